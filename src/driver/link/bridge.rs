//! The other end of a link, where the clients are.

use super::{
    carrier::{Carrier, Order, PushError},
    framing::{Deframer, Frame},
    transport::greeting,
    wire_format::{Hello, Reason, VERSION, event_head, kind, room_and_client, room_and_recipient},
};
use crate::{
    event::{ClientId, Event, MessagePayload, Output},
    time::Instant,
};
use alloc::boxed::Box;
use core::time::Duration;

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

/// Speaks to a board; bytes are carried by whoever has it.
pub(crate) struct Bridge {
    carrier: Box<Carrier<BUFFER>>,
    deframer: Box<Deframer<BUFFER>>,
    session: u32,
    is_greeted: bool,
    /// When the board was last heard of, or first greeted.
    heard: Instant,
    /// When to greet again, or to ask for a sign of life.
    speak_at: Instant,
}

/// What a board tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    /// It has answered the greeting.
    Greeting,
    Room {
        number: u8,
        message_bytes: usize,
        id: &'a str,
    },
    Closed {
        number: u8,
        fault: Option<&'a str>,
    },
    Joined(u8, ClientId),
    Refused(u8, ClientId, Reason),
    Said(u8, Output<'a>),
}

/// Why there is no session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The board has started again.
    Restarted,
    /// It speaks another version of the format.
    Version(u8),
    /// Nothing was heard of it for too long.
    Silent,
}

impl Bridge {
    /// A bridge that greets with this session, which is not 0.
    pub(crate) fn new(session: u32, now: Instant) -> Self {
        let mut carrier = Box::new(Carrier::new());
        carrier.greet(greeting::<BUFFER>(session, WINDOW));
        Self {
            carrier,
            deframer: Box::new(Deframer::new()),
            session,
            is_greeted: false,
            heard: now,
            speak_at: now + GREET_AGAIN,
        }
    }

    /// Takes what has come, and hands on what it says.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        now: Instant,
        mut tell: impl FnMut(Told<'_>),
    ) -> Result<(), Lost> {
        for byte in bytes {
            match self.deframer.push(*byte) {
                Some(Ok(frame)) => {
                    let mut ends = Ends {
                        carrier: &mut self.carrier,
                        session: self.session,
                        is_greeted: &mut self.is_greeted,
                    };
                    if ends.take(frame, &mut tell)? {
                        self.heard = now;
                        self.speak_at = now + PING_AFTER;
                    }
                }
                Some(Err(_)) if self.is_greeted => self.carrier.missing(),
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Sends an event; answers whether there was a place for it.
    pub(crate) fn send(&mut self, room: u8, event: Event<'_>) -> bool {
        let (kind, payload) = match event {
            Event::Connect(_) => (kind::CONNECT, &[][..]),
            Event::Disconnect(_) => (kind::DISCONNECT, &[][..]),
            Event::Message(_, MessagePayload::Text(text)) => (kind::TEXT, text.as_bytes()),
            Event::Message(_, MessagePayload::Bytes(bytes)) => (kind::BYTES, bytes),
        };
        // What is too long for the board was looked at before.
        self.carrier.push(kind, &[&event_head(room, event.client()), payload]) != Err(PushError::Full)
    }

    /// Says that the bridge leaves.
    pub(crate) fn leave(&mut self) {
        self.carrier.start(0, 0);
        self.carrier.greet(greeting::<BUFFER>(0, 0));
    }

    /// What is to be written next, and may be written in parts.
    pub(crate) fn unsent(&mut self, now: Instant) -> &[u8] {
        self.carrier.unsent(now)
    }

    /// So many of those bytes were written.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        self.carrier.sent(bytes, now);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Lost> {
        if self.is_greeted && now >= self.heard + SILENCE {
            return Err(Lost::Silent);
        }
        if now >= self.speak_at {
            if self.is_greeted {
                self.carrier.ping();
                self.speak_at = now + PING_AFTER;
            } else {
                self.carrier.greet(greeting::<BUFFER>(self.session, WINDOW));
                self.speak_at = now + GREET_AGAIN;
            }
        }
        Ok(())
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.carrier.deadline().map_or(self.speak_at, |at| at.min(self.speak_at))
    }
}

/// A bridge without the buffer that a frame lies in.
struct Ends<'a> {
    carrier: &'a mut Carrier<BUFFER>,
    session: u32,
    is_greeted: &'a mut bool,
}

impl Ends<'_> {
    /// Takes a frame; answers whether it was of this session.
    fn take(&mut self, frame: Frame<'_>, tell: &mut impl FnMut(Told<'_>)) -> Result<bool, Lost> {
        if frame.kind == kind::HELLO {
            return self.greeted(frame.body, tell);
        }
        // Until the answer to the greeting, it is of a session before.
        if !*self.is_greeted {
            return Ok(false);
        }
        match frame.kind {
            kind::ACK | kind::RESEND | kind::BUSY => self.carrier.heard(frame.kind, frame.number),
            // A later version may know it.
            ..kind::NUMBERED => {}
            _ => match self.carrier.order(frame.number) {
                Order::Next => {
                    self.carrier.accept();
                    // What is no event, a later version may know.
                    told(frame).into_iter().for_each(tell);
                }
                Order::Old => self.carrier.old(),
                Order::Early => self.carrier.missing(),
            },
        }
        Ok(true)
    }

    fn greeted(&mut self, body: &[u8], tell: &mut impl FnMut(Told<'_>)) -> Result<bool, Lost> {
        let Some(hello) = Hello::from_bytes(body) else { return Ok(false) };
        if hello.version != VERSION {
            return Err(Lost::Version(hello.version));
        }
        match (hello.session == self.session, *self.is_greeted) {
            (true, false) => {
                *self.is_greeted = true;
                self.carrier.start(hello.window as usize, hello.longest_body as usize);
                tell(Told::Greeting);
                Ok(true)
            }
            // The answer to a greeting that was sent twice.
            (true, true) => Ok(true),
            // It has not heard the greeting yet.
            (false, false) => Ok(false),
            (false, true) => Err(Lost::Restarted),
        }
    }
}

/// What a frame of a board says.
fn told(frame: Frame<'_>) -> Option<Told<'_>> {
    let text = |bytes| core::str::from_utf8(bytes).ok();
    Some(match frame.kind {
        kind::ROOM => {
            let (number, rest) = frame.body.split_first()?;
            let (message_bytes, id) = rest.split_first_chunk()?;
            let message_bytes = u32::from_le_bytes(*message_bytes) as usize;
            Told::Room { number: *number, message_bytes, id: text(id)? }
        }
        kind::CLOSED => {
            let [number, has_failed, fault @ ..] = frame.body else { return None };
            Told::Closed { number: *number, fault: if *has_failed == 0 { None } else { Some(text(fault)?) } }
        }
        kind::JOINED => {
            let (number, client, _) = room_and_client(frame.body)?;
            Told::Joined(number, client)
        }
        kind::REFUSED => {
            let (number, client, rest) = room_and_client(frame.body)?;
            Told::Refused(number, client, Reason::from_byte(*rest.first()?)?)
        }
        kind::SAID_TEXT | kind::SAID_BYTES => {
            let (number, recipient, payload) = room_and_recipient(frame.body)?;
            let payload = match frame.kind {
                kind::SAID_TEXT => MessagePayload::Text(text(payload)?),
                _ => MessagePayload::Bytes(payload),
            };
            Told::Said(number, Output { recipient, payload })
        }
        _ => return None,
    })
}
