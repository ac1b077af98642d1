//! The transport of a board's host: encodes outputs as frames of the link.

use super::{
    arq::{GoBackN, PushError},
    framing::max_body_bytes,
    messages::{
        EVENT_HEADER_BYTES, Hello, RefusalReason, VERSION, event_header, kind, output_header,
    },
};
use core::fmt::{self, Write};
use stateroom_wasmi_host::{
    ClientId, Fault, Instant, MessagePayload, OutputMessage, RoomKey, SendError, Transport,
};

/// The most rooms that one link carries at a time.
pub const MAX_ROOMS: usize = 8;
/// The length of the longest room id that a link carries.
pub const MAX_ROOM_ID_BYTES: usize = 64;

/// Longer fault texts are truncated.
pub(crate) const MAX_FAULT_BYTES: usize = 120;

/// The transport of a host whose rooms are behind a [`Link`](super::Link), with a send buffer of `N`
/// bytes (see [`buffer_bytes`](super::buffer_bytes)).
///
/// Outputs that are sent while no bridge is connected are dropped: the rooms have no clients then. A
/// transport that contains this one passes all calls on, [`is_ready`](Transport::is_ready) included.
///
/// # Panics
///
/// Does not compile unless `N` is between 256 and 65,535.
pub struct LinkTransport<const N: usize> {
    pub(crate) arq: GoBackN<N>,
    rooms: [Option<LinkedRoom>; MAX_ROOMS],
    /// The number of the room that is added next.
    next_number: u8,
    has_session: bool,
    /// The room that is or will be saved, and does not run until the bridge says what follows.
    pub(crate) held: Option<RoomKey>,
}

#[derive(Clone, Copy)]
struct LinkedRoom {
    number: u8,
    key: RoomKey,
    /// Whether the bridge of this session knows the room.
    is_announced: bool,
}

/// Why the link dropped an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkSendError {
    /// The message is longer than the buffer of this end, or than the bridge accepts.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for LinkSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "the message of {bytes} bytes is too long for the link")
            }
        }
    }
}

impl core::error::Error for LinkSendError {}

impl<const N: usize> LinkTransport<N> {
    /// A transport with an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(N >= 256, "a link needs a buffer of at least 256 bytes");
            assert!(
                N <= u16::MAX as usize,
                "a link needs a buffer of at most 65,535 bytes"
            );
        }
        let mut arq = GoBackN::new();
        // A bridge that had a session with this board learns that the board restarted.
        arq.send_hello(hello::<N>(0, 0));
        Self {
            arq,
            rooms: [None; MAX_ROOMS],
            next_number: 0,
            has_session: false,
            held: None,
        }
    }

    /// Whether a bridge is connected.
    #[must_use]
    pub const fn has_session(&self) -> bool {
        self.has_session
    }

    /// Assigns a number to a room. Returns `None` if there are [`MAX_ROOMS`] already.
    pub(crate) fn add_room(&mut self, key: RoomKey) -> Option<u8> {
        if let Some(room) = self.rooms.iter().flatten().find(|room| room.key == key) {
            return Some(room.number);
        }
        // Reuse numbers as late as possible: frames for a closed room may still be in transit.
        while self.key(self.next_number).is_some() {
            self.next_number = self.next_number.wrapping_add(1);
        }
        let number = self.next_number;
        let slot = self.rooms.iter_mut().find(|slot| slot.is_none())?;
        *slot = Some(LinkedRoom {
            number,
            key,
            is_announced: false,
        });
        self.next_number = number.wrapping_add(1);
        Some(number)
    }

    pub(crate) fn key(&self, number: u8) -> Option<RoomKey> {
        let mut rooms = self.rooms.iter().flatten();
        Some(rooms.find(|room| room.number == number)?.key)
    }

    /// The room in a slot below [`MAX_ROOMS`].
    pub(crate) fn room_at(&self, slot: usize) -> Option<RoomKey> {
        Some((*self.rooms.get(slot)?)?.key)
    }

    fn room_mut(&mut self, key: RoomKey) -> Option<&mut LinkedRoom> {
        let mut rooms = self.rooms.iter_mut().flatten();
        rooms.find(|room| room.key == key)
    }

    /// Begins the session that `peer` asks for, and confirms it by a hello.
    pub(crate) fn start_session(&mut self, peer: Hello, window_bytes: u32) {
        self.clear_session();
        self.has_session = true;
        self.arq
            .reset(peer.window_bytes as usize, peer.max_body_bytes as usize);
        self.arq.send_hello(hello::<N>(peer.session, window_bytes));
    }

    /// Ends the session, if any, and reports by a hello that there is none.
    pub(crate) fn end_session(&mut self) {
        self.clear_session();
        self.arq.reset(0, 0);
        self.arq.send_hello(hello::<N>(0, 0));
    }

    fn clear_session(&mut self) {
        self.has_session = false;
        for room in self.rooms.iter_mut().flatten() {
            room.is_announced = false;
        }
    }

    /// The room to announce next: the oldest of those that the bridge does not know.
    pub(crate) fn next_unannounced(&self) -> Option<RoomKey> {
        let rooms = self.rooms.iter().flatten();
        let unannounced = rooms.filter(|room| !room.is_announced);
        Some(unannounced.min_by_key(|room| room.key)?.key)
    }

    /// Queues the announcement of a room. Returns whether it was queued.
    pub(crate) fn announce(&mut self, key: RoomKey, id: &str, max_message_bytes: usize) -> bool {
        let longest = max_body_bytes(N) - EVENT_HEADER_BYTES;
        let max_message_bytes = u32::try_from(max_message_bytes.min(longest))
            .unwrap_or(u32::MAX)
            .to_le_bytes();
        let Some(number) = self.room_mut(key).map(|room| room.number) else {
            return true;
        };
        let pushed = self.arq.push(
            kind::ROOM_OPENED,
            &[&[number], &max_message_bytes, id.as_bytes()],
        );
        if let Some(room) = self.room_mut(key) {
            // Retrying does not help if the announcement is too long for the bridge.
            room.is_announced = pushed != Err(PushError::QueueFull);
        }
        pushed.is_ok()
    }

    /// Whether the closing of a room can be queued.
    pub(crate) fn can_report_closed(&self) -> bool {
        !self.has_session || self.arq.has_capacity(2 + MAX_FAULT_BYTES)
    }

    /// Removes a closed room, and reports it to the bridge.
    pub(crate) fn remove_room(&mut self, key: RoomKey, fault: Option<&Fault>) {
        let mut slots = self.rooms.iter_mut();
        let Some(slot) = slots.find(|slot| slot.is_some_and(|room| room.key == key)) else {
            return;
        };
        let Some(LinkedRoom {
            number,
            is_announced,
            ..
        }) = slot.take()
        else {
            return;
        };
        if self.has_session && is_announced {
            let mut text = Truncated(heapless::String::new());
            if let Some(fault) = fault {
                let _ = write!(text, "{fault}");
            }
            let is_fault = u8::from(fault.is_some());
            let pushed = self
                .arq
                .push(kind::ROOM_CLOSED, &[&[number, is_fault], text.0.as_bytes()]);
            debug_assert!(
                pushed != Err(PushError::QueueFull),
                "`can_report_closed` was checked"
            );
        }
    }

    /// Whether the refusal of an event can be queued.
    pub(crate) fn can_accept_event(&self) -> bool {
        self.arq.has_capacity(EVENT_HEADER_BYTES + 1)
    }

    pub(crate) fn report_refused(&mut self, room: u8, client: ClientId, reason: RefusalReason) {
        // Cannot be full: `can_accept_event` was checked.
        let _ = self.arq.push(
            kind::REFUSED,
            &[&event_header(room, client), &[reason as u8]],
        );
    }

    /// The number of a room that clients of the bridge may be in: it was announced in this session.
    pub(crate) fn announced_number(&mut self, key: RoomKey) -> Option<u8> {
        let has_session = self.has_session;
        let room = self.room_mut(key)?;
        (has_session && room.is_announced).then_some(room.number)
    }

    /// Whether the link carries the room.
    #[cfg(feature = "snapshot")]
    pub(crate) fn carries(&mut self, key: RoomKey) -> bool {
        self.room_mut(key).is_some()
    }

    /// The longest piece of a snapshot: some fit into the queue at once, and into what the bridge takes.
    #[cfg(feature = "snapshot")]
    pub(crate) fn piece_bytes(&self) -> usize {
        const OFFSET_BYTES: usize = 4;
        let longest = (max_body_bytes(N) / 4).min(self.arq.peer_max_body_bytes());
        longest.saturating_sub(OFFSET_BYTES)
    }

    /// Queues a frame, if a part of the queue stays free for what the rooms send. Returns whether it was
    /// queued, or never can be.
    #[cfg(feature = "snapshot")]
    pub(crate) fn report(&mut self, kind: u8, body: &[&[u8]]) -> bool {
        let len: usize = body.iter().map(|part| part.len()).sum();
        self.arq.has_capacity(len + N / 4) && self.arq.push(kind, body) != Err(PushError::QueueFull)
    }

    fn push(
        &mut self,
        kind: u8,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), SendError<LinkSendError>> {
        self.arq
            .push(kind, &[header, payload])
            .map_err(|error| match error {
                PushError::QueueFull => SendError::WouldBlock,
                PushError::TooLong => SendError::Failed(LinkSendError::TooLong {
                    bytes: payload.len(),
                }),
            })
    }

    /// The bytes to write next; empty if there are none.
    pub(crate) fn unsent(&mut self, now: Instant) -> &[u8] {
        self.arq.unsent(now)
    }
}

/// The hello of an end with a buffer of `N` bytes.
pub(crate) const fn hello<const N: usize>(session: u32, window_bytes: u32) -> Hello {
    Hello {
        version: VERSION,
        session,
        max_body_bytes: max_body_bytes(N) as u32,
        window_bytes,
    }
}

impl<const N: usize> Transport for LinkTransport<N> {
    type Error = LinkSendError;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Self::Error>> {
        let OutputMessage { recipient, payload } = message;
        let Some(number) = self.announced_number(room) else {
            return Ok(());
        };
        let kind = match payload {
            MessagePayload::Text(_) => kind::OUTPUT_TEXT,
            MessagePayload::Bytes(_) => kind::OUTPUT_BYTES,
        };
        self.push(kind, &output_header(number, recipient), payload.as_bytes())
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) -> Result<(), SendError<Self::Error>> {
        let Some(number) = self.announced_number(room) else {
            return Ok(());
        };
        self.push(kind::JOINED, &event_header(number, client), &[])
    }

    /// A room that was saved to go to the bridge does not run.
    fn is_ready(&self, room: RoomKey) -> bool {
        self.held != Some(room)
    }
}

impl<const N: usize> AsMut<Self> for LinkTransport<N> {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl<const N: usize> Default for LinkTransport<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for LinkTransport<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTransport")
            .field("has_session", &self.has_session)
            .finish_non_exhaustive()
    }
}

/// A text of limited length; what does not fit is dropped.
pub(crate) struct Truncated(pub(crate) heapless::String<MAX_FAULT_BYTES>);

impl Write for Truncated {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut chars = text.chars();
        while chars.next().is_some_and(|char| self.0.push(char).is_ok()) {}
        Ok(())
    }
}
