//! The other end of a link, where the clients are.

use super::{
    arq::{GoBackN, Order, PushError},
    framing::{Deframer, Frame},
    messages::{Hello, Reason, VERSION, event_head, kind, room_and_client, room_and_recipient},
    transport::greeting,
};
use alloc::boxed::Box;
use core::{fmt, time::Duration};
use stateroom_wasmi_host::{ClientId, Event, Instant, MessagePayload, Output};

/// There is memory enough here; this bounds the messages that a board may send.
const BUFFER: usize = u16::MAX as usize;
/// Bytes that the board may send before it is answered.
const WINDOW: u32 = 16 << 10;
/// Time between two greetings that are not answered.
const GREET_AGAIN: Duration = Duration::from_millis(500);
/// Time after which the board is asked for a sign of life, if nothing is heard of it.
const PING_AFTER: Duration = Duration::from_secs(1);
/// Time after which a silent board is taken for gone.
const SILENCE: Duration = Duration::from_secs(10);

/// The computer's end of a link, where the clients are: a state machine without I/O.
///
/// Drive it with this loop: write what is [`unsent`](Self::unsent) and report it with
/// [`sent`](Self::sent); hand what was read to [`receive`](Self::receive); call
/// [`tick`](Self::tick) after each of these and at the [`deadline`](Self::deadline). On a
/// [`SessionError`] close the line, and begin again with a new bridge.
///
/// `stateroom-wasmi attach` is such a loop, with a WebSocket for each client.
pub struct Bridge {
    arq: Box<GoBackN<BUFFER>>,
    deframer: Box<Deframer<BUFFER>>,
    session: u32,
    is_greeted: bool,
    /// When the board was last heard of, or first greeted.
    heard: Instant,
    /// When to greet again, or to ask for a sign of life.
    speak_at: Instant,
}

/// What a board says. Rooms have the numbers that the board gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoardMessage<'a> {
    /// The board answered the greeting: the session has begun.
    Greeting,
    /// The board has this room.
    Room {
        /// Its number within the session.
        number: u8,
        /// The longest message that it takes, in bytes.
        message_bytes: usize,
        /// Its id.
        id: &'a str,
    },
    /// A room has ended. Its number may be used again.
    Closed {
        /// Its number.
        number: u8,
        /// Why its guest failed; none if the board closed it.
        fault: Option<&'a str>,
    },
    /// The room handles the connect of this client: outputs from here on may be sent to it.
    Joined(u8, ClientId),
    /// The room refused an event of this client.
    Refused(u8, ClientId, Reason),
    /// A room sends a message.
    Output(u8, Output<'a>),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The board has started again.
    Restarted,
    /// It speaks another version of the format.
    Version(u8),
    /// Nothing was heard of it for too long.
    Silent,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarted => f.write_str("the board restarted"),
            Self::Silent => f.write_str("the board does not respond"),
            Self::Version(version) => {
                write!(
                    f,
                    "the board speaks version {version} of the link; this end speaks {VERSION}"
                )
            }
        }
    }
}

impl core::error::Error for SessionError {}

impl Bridge {
    /// A bridge that greets with this session, which is not 0.
    pub fn new(session: u32, now: Instant) -> Self {
        let mut arq = Box::new(GoBackN::new());
        arq.greet(greeting::<BUFFER>(session, WINDOW));
        Self {
            arq,
            deframer: Box::new(Deframer::new()),
            session,
            is_greeted: false,
            heard: now,
            speak_at: now + GREET_AGAIN,
        }
    }

    /// Takes what has come, and hands on what it says.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: Instant,
        mut tell: impl FnMut(BoardMessage<'_>),
    ) -> Result<(), SessionError> {
        for byte in bytes {
            match self.deframer.push(*byte) {
                Some(Ok(frame)) => {
                    let mut ends = Ends {
                        arq: &mut self.arq,
                        session: self.session,
                        is_greeted: &mut self.is_greeted,
                    };
                    if ends.take(frame, &mut tell)? {
                        self.heard = now;
                        self.speak_at = now + PING_AFTER;
                    }
                }
                Some(Err(_)) if self.is_greeted => self.arq.missing(),
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Sends an event; answers whether there was a place for it.
    pub fn send(&mut self, room: u8, event: Event<'_>) -> bool {
        let (kind, payload) = match event {
            Event::Connect(_) => (kind::CONNECT, &[][..]),
            Event::Disconnect(_) => (kind::DISCONNECT, &[][..]),
            Event::Message(_, MessagePayload::Text(text)) => (kind::TEXT, text.as_bytes()),
            Event::Message(_, MessagePayload::Bytes(bytes)) => (kind::BYTES, bytes),
        };
        // What is too long for the board was looked at before.
        self.arq
            .push(kind, &[&event_head(room, event.client()), payload])
            != Err(PushError::Full)
    }

    /// Says that the bridge leaves.
    pub fn leave(&mut self) {
        self.arq.start(0, 0);
        self.arq.greet(greeting::<BUFFER>(0, 0));
    }

    /// What is to be written next, and may be written in parts.
    pub fn unsent(&mut self, now: Instant) -> &[u8] {
        self.arq.unsent(now)
    }

    /// So many of those bytes were written.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        self.arq.sent(bytes, now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.is_greeted && now >= self.heard + SILENCE {
            return Err(SessionError::Silent);
        }
        if now >= self.speak_at {
            if self.is_greeted {
                self.arq.ping();
                self.speak_at = now + PING_AFTER;
            } else {
                self.arq.greet(greeting::<BUFFER>(self.session, WINDOW));
                self.speak_at = now + GREET_AGAIN;
            }
        }
        Ok(())
    }

    /// When something is due.
    pub fn deadline(&self) -> Instant {
        self.arq
            .deadline()
            .map_or(self.speak_at, |at| at.min(self.speak_at))
    }
}

/// A bridge without the buffer that a frame lies in.
struct Ends<'a> {
    arq: &'a mut GoBackN<BUFFER>,
    session: u32,
    is_greeted: &'a mut bool,
}

impl Ends<'_> {
    /// Takes a frame; answers whether it was of this session.
    fn take(
        &mut self,
        frame: Frame<'_>,
        tell: &mut impl FnMut(BoardMessage<'_>),
    ) -> Result<bool, SessionError> {
        if frame.kind == kind::HELLO {
            return self.greeted(frame.body, tell);
        }
        // Until the answer to the greeting, it is of a session before.
        if !*self.is_greeted {
            return Ok(false);
        }
        match frame.kind {
            kind::ACK | kind::RESEND | kind::BUSY => self.arq.heard(frame.kind, frame.number),
            // A later version may know it.
            ..kind::NUMBERED => {}
            _ => match self.arq.order(frame.number) {
                Order::Next => {
                    self.arq.accept();
                    // What is no event, a later version may know.
                    told(frame).into_iter().for_each(tell);
                }
                Order::Old => self.arq.old(),
                Order::Early => self.arq.missing(),
            },
        }
        Ok(true)
    }

    fn greeted(
        &mut self,
        body: &[u8],
        tell: &mut impl FnMut(BoardMessage<'_>),
    ) -> Result<bool, SessionError> {
        let Some(hello) = Hello::from_bytes(body) else {
            return Ok(false);
        };
        if hello.version != VERSION {
            return Err(SessionError::Version(hello.version));
        }
        match (hello.session == self.session, *self.is_greeted) {
            (true, false) => {
                *self.is_greeted = true;
                self.arq
                    .start(hello.window as usize, hello.longest_body as usize);
                tell(BoardMessage::Greeting);
                Ok(true)
            }
            // The answer to a greeting that was sent twice.
            (true, true) => Ok(true),
            // It has not heard the greeting yet.
            (false, false) => Ok(false),
            (false, true) => Err(SessionError::Restarted),
        }
    }
}

/// What a frame of a board says.
fn told(frame: Frame<'_>) -> Option<BoardMessage<'_>> {
    let text = |bytes| core::str::from_utf8(bytes).ok();
    Some(match frame.kind {
        kind::ROOM => {
            let (number, rest) = frame.body.split_first()?;
            let (message_bytes, id) = rest.split_first_chunk()?;
            let message_bytes = u32::from_le_bytes(*message_bytes) as usize;
            BoardMessage::Room {
                number: *number,
                message_bytes,
                id: text(id)?,
            }
        }
        kind::CLOSED => {
            let [number, has_failed, fault @ ..] = frame.body else {
                return None;
            };
            BoardMessage::Closed {
                number: *number,
                fault: if *has_failed == 0 {
                    None
                } else {
                    Some(text(fault)?)
                },
            }
        }
        kind::JOINED => {
            let (number, client, _) = room_and_client(frame.body)?;
            BoardMessage::Joined(number, client)
        }
        kind::REFUSED => {
            let (number, client, rest) = room_and_client(frame.body)?;
            BoardMessage::Refused(number, client, Reason::from_byte(*rest.first()?)?)
        }
        kind::SAID_TEXT | kind::SAID_BYTES => {
            let (number, recipient, payload) = room_and_recipient(frame.body)?;
            let payload = match frame.kind {
                kind::SAID_TEXT => MessagePayload::Text(text(payload)?),
                _ => MessagePayload::Bytes(payload),
            };
            BoardMessage::Output(number, Output { recipient, payload })
        }
        _ => return None,
    })
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
