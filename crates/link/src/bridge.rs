//! The computer's end of a link, where the clients are.

use super::{
    arq::{GoBackN, PushError, SequenceCheck},
    framing::{Deframer, Frame, checksum},
    messages::{
        Fields, Hello, RefusalReason, TransferReason, VERSION, event_header, kind,
        parse_event_header, parse_output_header,
    },
    transport::hello,
};
use alloc::boxed::Box;
use core::{fmt, num::NonZeroU32, time::Duration};
use stateroom_wasmi_host::{ClientId, Event, Instant, MessagePayload, OutputMessage};

/// Bounds the messages that a board may send. A computer has the memory.
const BUFFER_BYTES: usize = u16::MAX as usize;
/// Bytes that the board may send without an acknowledgement.
const WINDOW_BYTES: u32 = 16 << 10;
const HELLO_INTERVAL: Duration = Duration::from_millis(500);
/// Time without a frame from the board after which it is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the board acknowledges a frame, or says that it is busy: some retransmissions.
const ACKNOWLEDGEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The computer's end of a link, where the clients are: a state machine without I/O, which needs
/// `alloc` for its two buffers of 64 KiB.
///
/// Drive it with this loop:
///
/// - write [`unsent`](Self::unsent), and report what was written with [`sent`](Self::sent);
/// - hand what was read to [`handle_input`](Self::handle_input), which returns what the board sent;
/// - call [`handle_timeout`](Self::handle_timeout) after each of these, and at
///   [`poll_timeout`](Self::poll_timeout).
///
/// Begin with no clients and no rooms: the board announces its rooms after
/// [`BoardMessage::SessionStarted`]. On a [`SessionError`] all clients are disconnected; reopen the line
/// and begin with a new bridge. `now` is the time of one clock that never runs backwards, whose
/// zero may be anywhere.
///
/// This bridge connects client 1 to each room, and prints what the rooms send:
///
/// ```no_run
/// use stateroom_wasmi_host::{ClientId, Clock, Event, SystemClock};
/// use stateroom_wasmi_link::{BoardMessage, Bridge};
/// use std::{
///     error::Error,
///     io::{ErrorKind, Read, Write},
///     net::TcpStream,
///     num::NonZeroU32,
///     time::Duration,
/// };
///
/// fn run(session: NonZeroU32) -> Result<(), Box<dyn Error>> {
///     let mut line = TcpStream::connect("127.0.0.1:5555")?;
///     let clock = SystemClock::new();
///     let mut bridge = Bridge::new(session, clock.now());
///     let mut bytes = [0; 1024];
///     loop {
///         loop {
///             let unsent = bridge.unsent(clock.now());
///             if unsent.is_empty() {
///                 break;
///             }
///             let written = line.write(unsent)?;
///             bridge.sent(written, clock.now());
///         }
///
///         let wait = bridge.poll_timeout().saturating_duration_since(clock.now());
///         line.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
///         let read = match line.read(&mut bytes) {
///             Ok(0) => return Err("the board closed the connection".into()),
///             Ok(read) => read,
///             Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
///             Err(error) => return Err(error.into()),
///         };
///         let mut opened = Vec::new();
///         bridge.handle_input(&bytes[..read], clock.now(), |message| match message {
///             BoardMessage::RoomOpened { room, .. } => opened.push(room),
///             BoardMessage::Output { room, output } => println!("room {room}: {output:?}"),
///             _ => {}
///         })?;
///         for room in opened {
///             bridge.send(room, Event::Connect(ClientId(1)))?;
///         }
///         bridge.handle_timeout(clock.now())?;
///     }
/// }
/// ```
pub struct Bridge {
    deframer: Box<Deframer<BUFFER_BYTES>>,
    session: Session,
}

/// All but the deframer, whose buffer holds the frame that is handled.
struct Session {
    arq: Box<GoBackN<BUFFER_BYTES>>,
    id: u32,
    /// Whether the board has confirmed the session.
    is_established: bool,
    last_received: Instant,
    /// When the board last kept up: it acknowledged a frame, was busy, or had acknowledged all.
    last_progress: Instant,
    /// When to repeat the hello, or to ping.
    poll_at: Instant,
}

/// A message of a board. `room` is the number that the board assigned to the room in
/// [`RoomOpened`](Self::RoomOpened).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoardMessage<'a> {
    /// The board confirmed the session. Its rooms follow.
    SessionStarted,
    /// The board has this room.
    RoomOpened {
        /// The room's number, within this session and until the room closes.
        room: u8,
        /// The longest message that the room and the link take, in bytes.
        max_message_bytes: usize,
        /// The room's id.
        id: &'a str,
    },
    /// A room closed, and all of its clients are disconnected. Its number may be reused.
    RoomClosed {
        /// The room's number.
        room: u8,
        /// The fault of its guest; `None` if the board closed it.
        fault: Option<&'a str>,
    },
    /// The room handles the connect of this client: outputs from here on may be sent to it.
    Joined {
        /// The room's number.
        room: u8,
        /// The client.
        client: ClientId,
    },
    /// An event of this client was refused.
    Refused {
        /// The room's number.
        room: u8,
        /// The client.
        client: ClientId,
        /// Why.
        reason: RefusalReason,
    },
    /// The board saves and loads rooms. Comes once in a session, if at all.
    Transfers {
        /// The longest snapshot that it loads, in bytes.
        max_snapshot_bytes: usize,
    },
    /// A room was saved. Its pieces follow if this answers [`Bridge::save`]. If not, the room is held since
    /// an earlier session: ask for the rest by `save`, or [`release`](Bridge::release) it.
    Saved {
        /// The room's number.
        room: u8,
        /// Whether the room is stopped until it is released.
        is_held: bool,
        /// Length of the snapshot in bytes.
        length: u32,
        /// CRC-32 of the snapshot.
        checksum: u32,
    },
    /// A piece of the snapshot of the room that was saved last.
    SavedPiece {
        /// Where in the snapshot it begins.
        offset: u32,
        /// The piece.
        bytes: &'a [u8],
    },
    /// The board takes the snapshot that was announced by [`Bridge::load`].
    LoadReady {
        /// Where to begin: not at 0 if the board has the beginning since an earlier session.
        from: u32,
    },
    /// The snapshot has become a room; or the room is held since an earlier session, if nothing was asked
    /// for: [`release`](Bridge::release) it.
    Loaded {
        /// Its number, which was [announced](Self::RoomOpened) before.
        room: u8,
        /// Whether it is stopped until it is released.
        is_held: bool,
    },
    /// A room was not saved, or a snapshot not loaded.
    TransferRefused {
        /// Why.
        reason: TransferReason,
        /// More about it, possibly empty.
        text: &'a str,
    },
    /// A room sends a message. Deliver it to clients for which there was a
    /// [`Joined`](Self::Joined).
    Output {
        /// The room's number.
        room: u8,
        /// Recipients and payload.
        output: OutputMessage<'a>,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The board restarted, or took the bridge for gone.
    Restarted,
    /// The board uses this other version of the protocol.
    Version(u8),
    /// The board sent nothing for ten seconds.
    TimedOut,
    /// The board acknowledged no frame for thirty seconds, and was not busy.
    Unacknowledged,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarted => f.write_str("the board restarted"),
            Self::TimedOut => f.write_str("the board does not respond"),
            Self::Unacknowledged => f.write_str("the board does not acknowledge what it is sent"),
            Self::Version(version) => {
                write!(
                    f,
                    "the board uses version {version} of the protocol, this end version {VERSION}"
                )
            }
        }
    }
}

impl core::error::Error for SessionError {}

/// Why a [`Bridge`] did not send an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeSendError {
    /// The board has not confirmed the session.
    NoSession,
    /// Too many events are unacknowledged. Retry after
    /// [`handle_input`](Bridge::handle_input).
    QueueFull,
    /// The message is longer than the board accepts.
    TooLong,
}

impl fmt::Display for BridgeSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSession => "there is no session with the board",
            Self::QueueFull => "the send queue is full",
            Self::TooLong => "the message is longer than the board accepts",
        })
    }
}

impl core::error::Error for BridgeSendError {}

impl Bridge {
    /// A bridge that asks the board for a new session, and repeats that twice a second until the board
    /// confirms it, without a limit of time. `session` is the session's id; make it random, since it
    /// must differ from the one before.
    #[must_use]
    pub fn new(session: NonZeroU32, now: Instant) -> Self {
        let mut arq = Box::new(GoBackN::new());
        arq.send_hello(hello::<BUFFER_BYTES>(session.get(), WINDOW_BYTES));
        Self {
            deframer: Box::new(Deframer::new()),
            session: Session {
                arq,
                id: session.get(),
                is_established: false,
                last_received: now,
                last_progress: now,
                poll_at: now + HELLO_INTERVAL,
            },
        }
    }

    /// Handles bytes that were read, in pieces of any length; calls `on_message` for each message that
    /// they complete, in order.
    ///
    /// # Errors
    ///
    /// If the session ended.
    pub fn handle_input(
        &mut self,
        bytes: &[u8],
        now: Instant,
        mut on_message: impl FnMut(BoardMessage<'_>),
    ) -> Result<(), SessionError> {
        for byte in bytes {
            match self.deframer.push(*byte) {
                Some(Ok(frame)) => self.session.handle_frame(frame, now, &mut on_message)?,
                Some(Err(_)) if self.session.is_established => self.session.arq.on_gap(),
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Queues an event for a room. Events arrive once and in order, or the session ends.
    ///
    /// # Errors
    ///
    /// If the event was not queued; nothing has happened then.
    pub fn send(&mut self, room: u8, event: Event<'_>) -> Result<(), BridgeSendError> {
        let (kind, payload) = match event {
            Event::Connect(_) => (kind::CONNECT, &[][..]),
            Event::Disconnect(_) => (kind::DISCONNECT, &[][..]),
            Event::Message(_, MessagePayload::Text(text)) => (kind::TEXT, text.as_bytes()),
            Event::Message(_, MessagePayload::Bytes(bytes)) => (kind::BYTES, bytes),
        };
        self.push(kind, &[&event_header(room, event.client()), payload])
    }

    /// Asks the board to save a room. With `hold` the room stops there, and takes neither connects nor
    /// messages, until it is [released](Self::release): what is sent to it meanwhile is refused. After
    /// an interruption `resume` is how many bytes have come and the snapshot's checksum; otherwise none.
    ///
    /// # Errors
    ///
    /// If it was not queued; nothing has happened then.
    pub fn save(
        &mut self,
        room: u8,
        hold: bool,
        resume: Option<(u32, u32)>,
    ) -> Result<(), BridgeSendError> {
        let (from, checksum) = resume.unwrap_or_default();
        let head = [room, hold.into()];
        let body: [&[u8]; 3] = [&head, &from.to_le_bytes(), &checksum.to_le_bytes()];
        self.push(kind::SAVE, &body)
    }

    /// Says what becomes of a room that is held. If it `has_moved`, or is not to be there after all, the board
    /// removes it; otherwise it goes on there.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn release(&mut self, room: u8, has_moved: bool) -> Result<(), BridgeSendError> {
        self.push(kind::RELEASE, &[&[room, has_moved.into()]])
    }

    /// Asks the board to load this snapshot, and with `hold` to stop the room as by
    /// [`save`](Self::save). It replies with [`LoadReady`](BoardMessage::LoadReady).
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn load(&mut self, snapshot: &[u8], hold: bool) -> Result<(), BridgeSendError> {
        let length = u32::try_from(snapshot.len()).map_err(|_| BridgeSendError::TooLong)?;
        let checksum = checksum(snapshot);
        let body: [&[u8]; 3] = [
            &length.to_le_bytes(),
            &checksum.to_le_bytes(),
            &[hold.into()],
        ];
        self.push(kind::LOAD, &body)
    }

    /// Tells the board that no more of a snapshot comes, so that it drops what it has of it.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn cancel_load(&mut self) -> Result<(), BridgeSendError> {
        self.push(kind::LOAD, &[&[0; 9]])
    }

    /// Sends the next piece of the snapshot, from `offset` on; returns where the one after it begins. Few are
    /// queued at a time, so that what clients send has its turn.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn send_piece(&mut self, snapshot: &[u8], offset: usize) -> Result<usize, BridgeSendError> {
        // More would keep what clients send from the line for long.
        const PIECE_BYTES: usize = 512;
        const MAX_QUEUED_FRAMES: usize = 4;
        const OFFSET_BYTES: usize = 4;
        if self.session.arq.queued_frames() >= MAX_QUEUED_FRAMES {
            return Err(BridgeSendError::QueueFull);
        }
        let longest = self.session.arq.peer_max_body_bytes();
        let longest = longest.saturating_sub(OFFSET_BYTES).min(PIECE_BYTES);
        let rest = snapshot.get(offset..).unwrap_or_default();
        let piece = &rest[..rest.len().min(longest)];
        if piece.is_empty() && !rest.is_empty() {
            return Err(BridgeSendError::TooLong);
        }
        let at = u32::try_from(offset).map_err(|_| BridgeSendError::TooLong)?;
        self.push(kind::LOAD_PIECE, &[&at.to_le_bytes(), piece])?;
        Ok(offset + piece.len())
    }

    fn push(&mut self, kind: u8, body: &[&[u8]]) -> Result<(), BridgeSendError> {
        if !self.session.is_established {
            return Err(BridgeSendError::NoSession);
        }
        self.session
            .arq
            .push(kind, body)
            .map_err(|error| match error {
                PushError::QueueFull => BridgeSendError::QueueFull,
                PushError::TooLong => BridgeSendError::TooLong,
            })
    }

    /// Tells the board that the bridge leaves, so that it does not wait for its timeout. Write what is
    /// [`unsent`](Self::unsent), and drop the bridge.
    pub fn end_session(&mut self) {
        self.session.arq.reset(0, 0);
        self.session.arq.send_hello(hello::<BUFFER_BYTES>(0, 0));
    }

    /// The bytes to write next, all of them or the first few; empty if there are none now.
    pub fn unsent(&mut self, now: Instant) -> &[u8] {
        self.session.arq.unsent(now)
    }

    /// The first `bytes` bytes of [`unsent`](Self::unsent) were written. To be called before the next
    /// [`handle_input`](Self::handle_input).
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        self.session.arq.sent(bytes, now);
    }

    /// Sends a ping or repeats the hello, if that is due. Spurious calls are no-ops.
    ///
    /// # Errors
    ///
    /// If the board sent nothing for ten seconds, or acknowledged nothing for thirty.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        self.session.handle_timeout(now)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and [`unsent`](Self::unsent) at the
    /// latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let poll_at = self.session.poll_at;
        self.session
            .arq
            .poll_timeout()
            .map_or(poll_at, |at| at.min(poll_at))
    }
}

impl Session {
    fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        now: Instant,
        on_message: &mut impl FnMut(BoardMessage<'_>),
    ) -> Result<(), SessionError> {
        let is_of_session = match frame.kind {
            kind::HELLO => self.on_hello(frame.body, on_message)?,
            // Frames before the confirmation are of an earlier session.
            _ => self.is_established,
        };
        if !is_of_session {
            return Ok(());
        }
        match frame.kind {
            kind::ACK | kind::REJ | kind::RNR => {
                if self.arq.on_control(frame.kind, frame.sequence) {
                    self.last_progress = now;
                }
            }
            // A hello was handled above; the others are reserved for later versions.
            ..kind::NUMBERED => {}
            _ => match self.arq.check_sequence(frame.sequence) {
                SequenceCheck::Expected => {
                    self.arq.on_accepted();
                    // A later version may define others.
                    parse(frame).into_iter().for_each(on_message);
                }
                SequenceCheck::Duplicate => self.arq.on_duplicate(),
                SequenceCheck::Gap => self.arq.on_gap(),
            },
        }
        self.last_received = now;
        self.poll_at = now + PING_INTERVAL;
        Ok(())
    }

    /// Returns whether the hello is of this session.
    fn on_hello(
        &mut self,
        body: &[u8],
        on_message: &mut impl FnMut(BoardMessage<'_>),
    ) -> Result<bool, SessionError> {
        let Some(peer) = Hello::from_bytes(body) else {
            return Ok(false);
        };
        if peer.version != VERSION {
            return Err(SessionError::Version(peer.version));
        }
        match (peer.session == self.id, self.is_established) {
            (true, false) => {
                self.is_established = true;
                self.arq
                    .reset(peer.window_bytes as usize, peer.max_body_bytes as usize);
                on_message(BoardMessage::SessionStarted);
                Ok(true)
            }
            // The reply to a hello that was sent twice.
            (true, true) => Ok(true),
            // Our hello has not arrived yet.
            (false, false) => Ok(false),
            (false, true) => Err(SessionError::Restarted),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.is_established && now >= self.last_received + SESSION_TIMEOUT {
            return Err(SessionError::TimedOut);
        }
        // Called at least at each ping, so that this is exact to a second.
        if self.arq.is_idle() || !self.is_established {
            self.last_progress = now;
        } else if now >= self.last_progress + ACKNOWLEDGEMENT_TIMEOUT {
            return Err(SessionError::Unacknowledged);
        }
        if now >= self.poll_at {
            if self.is_established {
                self.arq.send_ping();
                self.poll_at = now + PING_INTERVAL;
            } else {
                self.arq
                    .send_hello(hello::<BUFFER_BYTES>(self.id, WINDOW_BYTES));
                self.poll_at = now + HELLO_INTERVAL;
            }
        }
        Ok(())
    }
}

/// The message of a numbered frame; `None` if its kind or its body is unknown.
fn parse(frame: Frame<'_>) -> Option<BoardMessage<'_>> {
    let text = |bytes| core::str::from_utf8(bytes).ok();
    Some(match frame.kind {
        kind::ROOM_OPENED => {
            let (room, rest) = frame.body.split_first()?;
            let (max_message_bytes, id) = rest.split_first_chunk()?;
            BoardMessage::RoomOpened {
                room: *room,
                max_message_bytes: u32::from_le_bytes(*max_message_bytes) as usize,
                id: text(id)?,
            }
        }
        kind::ROOM_CLOSED => {
            let [room, is_fault, fault @ ..] = frame.body else {
                return None;
            };
            BoardMessage::RoomClosed {
                room: *room,
                fault: match is_fault {
                    0 => None,
                    _ => Some(text(fault)?),
                },
            }
        }
        kind::JOINED => {
            let (room, client, _) = parse_event_header(frame.body)?;
            BoardMessage::Joined { room, client }
        }
        kind::REFUSED => {
            let (room, client, rest) = parse_event_header(frame.body)?;
            BoardMessage::Refused {
                room,
                client,
                reason: RefusalReason::from_byte(*rest.first()?)?,
            }
        }
        kind::OUTPUT_TEXT | kind::OUTPUT_BYTES => {
            let (room, recipient, payload) = parse_output_header(frame.body)?;
            let payload = match frame.kind {
                kind::OUTPUT_TEXT => MessagePayload::Text(text(payload)?),
                _ => MessagePayload::Bytes(payload),
            };
            BoardMessage::Output {
                room,
                output: OutputMessage { recipient, payload },
            }
        }
        _ => return parse_transfer(frame),
    })
}

/// The same for rooms on their way.
fn parse_transfer(frame: Frame<'_>) -> Option<BoardMessage<'_>> {
    let mut fields = Fields(frame.body);
    Some(match frame.kind {
        kind::TRANSFERS => BoardMessage::Transfers {
            max_snapshot_bytes: fields.number()? as usize,
        },
        kind::SAVED => BoardMessage::Saved {
            room: fields.byte()?,
            is_held: fields.byte()? != 0,
            length: fields.number()?,
            checksum: fields.number()?,
        },
        kind::SAVED_PIECE => BoardMessage::SavedPiece {
            offset: fields.number()?,
            bytes: fields.rest(),
        },
        kind::LOAD_READY => BoardMessage::LoadReady {
            from: fields.number()?,
        },
        kind::LOADED => BoardMessage::Loaded {
            room: fields.byte()?,
            is_held: fields.byte()? != 0,
        },
        kind::TRANSFER_REFUSED => BoardMessage::TransferRefused {
            reason: TransferReason::from_byte(fields.byte()?)?,
            text: core::str::from_utf8(fields.rest()).ok()?,
        },
        _ => return None,
    })
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("session", &self.session.id)
            .finish_non_exhaustive()
    }
}
