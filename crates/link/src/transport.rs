//! What a host on a board sends through: frames that wait for the other side.

use super::{
    arq::{GoBackN, PushError},
    framing::longest_body,
    messages::{EVENT_HEAD, Hello, OUTPUT_HEAD, Reason, VERSION, event_head, kind, output_head},
};
use core::fmt::{self, Write};
use stateroom_wasmi_host::{
    ClientId, Fault, Instant, MessagePayload, Output, RoomKey, SendError, Transport,
};

/// Rooms that one link carries at a time.
pub const MAX_ROOMS: usize = 8;
/// Length of the id of a room that a link carries.
pub const MAX_ROOM_ID_BYTES: usize = 64;

/// Connects that are on their way through the rooms, until the other side was told that their turn
/// has come.
const MAX_JOINING: usize = 8;
/// Bytes of a fault's text that the other side is told.
const MAX_FAULT_BYTES: usize = 120;

/// The transport of a host whose rooms are behind a [`Link`](super::Link), with a buffer of `N` bytes
/// (see [`buffer_bytes`](super::buffer_bytes)) for what is on its way.
///
/// What is said while nobody is at the other end is lost, since nobody is in the rooms either.
pub struct LinkTransport<const N: usize> {
    pub(crate) arq: GoBackN<N>,
    rooms: [Option<Carried>; MAX_ROOMS],
    /// The number of the room that is carried next.
    next_number: u8,
    has_session: bool,
    /// Connects that the rooms have taken.
    joining: heapless::Vec<(u8, ClientId), MAX_JOINING>,
    /// Connects whose turn has come; there is no place yet to say so.
    joined: heapless::Deque<(u8, ClientId), MAX_JOINING>,
}

/// A room that is carried.
#[derive(Clone, Copy)]
struct Carried {
    number: u8,
    key: RoomKey,
    /// Whether the other side was told of it.
    is_known: bool,
}

/// Why a message did not go over the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkSendError {
    /// It is longer than the buffer of this side or of the other.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for LinkSendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "its {bytes} bytes are more than the link takes"),
        }
    }
}

impl core::error::Error for LinkSendError {}

impl<const N: usize> LinkTransport<N> {
    /// A transport with an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(N >= 256, "a link needs a buffer of 256 bytes at least");
            assert!(
                N <= u16::MAX as usize,
                "a link's buffer has 65,535 bytes at most"
            );
        }
        let mut arq = GoBackN::new();
        // Whoever listens learns that this side has just started.
        arq.greet(greeting::<N>(0, 0));
        Self {
            arq,
            rooms: [None; MAX_ROOMS],
            next_number: 0,
            has_session: false,
            joining: heapless::Vec::new(),
            joined: heapless::Deque::new(),
        }
    }

    /// Whether somebody is at the other end.
    #[must_use]
    pub const fn has_session(&self) -> bool {
        self.has_session
    }

    /// Gives a room a number; answers none if there are as many as can be.
    pub(crate) fn carry(&mut self, key: RoomKey) -> Option<u8> {
        if let Some(carried) = self
            .rooms
            .iter()
            .flatten()
            .find(|carried| carried.key == key)
        {
            return Some(carried.number);
        }
        // A number is used again as late as can be, for frames that are on their way meanwhile.
        while self.key(self.next_number).is_some() {
            self.next_number = self.next_number.wrapping_add(1);
        }
        let number = self.next_number;
        let place = self.rooms.iter_mut().find(|place| place.is_none())?;
        *place = Some(Carried {
            number,
            key,
            is_known: false,
        });
        self.next_number = number.wrapping_add(1);
        Some(number)
    }

    pub(crate) fn key(&self, number: u8) -> Option<RoomKey> {
        let carried = self
            .rooms
            .iter()
            .flatten()
            .find(|carried| carried.number == number)?;
        Some(carried.key)
    }

    /// The room at a place, if there is one.
    pub(crate) fn room_at(&self, place: usize) -> Option<RoomKey> {
        Some((*self.rooms.get(place)?)?.key)
    }

    fn carried(&mut self, key: RoomKey) -> Option<&mut Carried> {
        self.rooms
            .iter_mut()
            .flatten()
            .find(|carried| carried.key == key)
    }

    /// Begins a session with a side that has greeted, of which the answer tells.
    pub(crate) fn start(&mut self, hello: Hello, window: u32) {
        self.forget_session();
        self.has_session = true;
        self.arq
            .start(hello.window as usize, hello.longest_body as usize);
        self.arq.greet(greeting::<N>(hello.session, window));
    }

    /// Ends a session, and tells the other side that there is none.
    pub(crate) fn end_session(&mut self) {
        self.forget_session();
        self.arq.start(0, 0);
        self.arq.greet(greeting::<N>(0, 0));
    }

    fn forget_session(&mut self) {
        self.has_session = false;
        self.joining.clear();
        self.joined.clear();
        for carried in self.rooms.iter_mut().flatten() {
            carried.is_known = false;
        }
    }

    /// The place of a room that the other side should be told of next.
    pub(crate) fn unknown_room(&self) -> Option<RoomKey> {
        let carried = self
            .rooms
            .iter()
            .flatten()
            .filter(|carried| !carried.is_known);
        Some(carried.min_by_key(|carried| carried.key)?.key)
    }

    /// Tells the other side of a room; answers whether there was a place for that.
    pub(crate) fn introduce(&mut self, key: RoomKey, id: &str, message_bytes: usize) -> bool {
        let longest = longest_body(N) - EVENT_HEAD;
        let message_bytes = u32::try_from(message_bytes.min(longest))
            .unwrap_or(u32::MAX)
            .to_le_bytes();
        let Some(number) = self.carried(key).map(|carried| carried.number) else {
            return true;
        };
        let pushed = self
            .arq
            .push(kind::ROOM, &[&[number], &message_bytes, id.as_bytes()]);
        if let Some(carried) = self.carried(key) {
            // What is too long for the other side is too long later, too.
            carried.is_known = pushed != Err(PushError::Full);
        }
        pushed.is_ok()
    }

    /// Whether there is a place to say that a room has ended.
    pub(crate) fn has_place_for_closed(&mut self) -> bool {
        !self.has_session || (self.tell_joined() && self.arq.has_place(2 + MAX_FAULT_BYTES))
    }

    /// Forgets a room that has ended, and tells the other side.
    pub(crate) fn forget_room(&mut self, key: RoomKey, fault: Option<&Fault>) {
        let Some(place) = self
            .rooms
            .iter_mut()
            .find(|place| place.is_some_and(|carried| carried.key == key))
        else {
            return;
        };
        let Some(Carried {
            number, is_known, ..
        }) = place.take()
        else {
            return;
        };
        self.joining.retain(|(room, _)| *room != number);
        if self.has_session && is_known {
            let mut text = Cut(heapless::String::new());
            if let Some(fault) = fault {
                let _ = write!(text, "{fault}");
            }
            let has_failed = u8::from(fault.is_some());
            let pushed = self
                .arq
                .push(kind::CLOSED, &[&[number, has_failed], text.0.as_bytes()]);
            debug_assert!(pushed != Err(PushError::Full), "there was a place for this");
        }
    }

    /// Whether a refusal, and one more connect, would find their places.
    pub(crate) fn can_take_events(&mut self) -> bool {
        self.tell_joined() && !self.joining.is_full() && self.arq.has_place(EVENT_HEAD + 1)
    }

    /// A room has taken this connect.
    pub(crate) fn expect_join(&mut self, room: u8, client: ClientId) {
        // There was a place for it, or the connect would not have been taken.
        let _ = self.joining.push((room, client));
    }

    pub(crate) fn tell_refused(&mut self, room: u8, client: ClientId, reason: Reason) {
        // There was a place for it, or the event would not have been looked at.
        let _ = self
            .arq
            .push(kind::REFUSED, &[&event_head(room, client), &[reason as u8]]);
    }

    /// Says whose connects have had their turn, as far as there is place; answers whether that was all.
    pub(crate) fn tell_joined(&mut self) -> bool {
        while let Some((room, client)) = self.joined.front() {
            if self.arq.push(kind::JOINED, &[&event_head(*room, *client)]) == Err(PushError::Full) {
                return false;
            }
            self.joined.pop_front();
        }
        true
    }

    /// What is to be written next.
    pub(crate) fn unsent(&mut self, now: Instant) -> &[u8] {
        if self.has_session {
            self.tell_joined();
        }
        self.arq.unsent(now)
    }
}

/// What this side says of itself.
pub(crate) const fn greeting<const N: usize>(session: u32, window: u32) -> Hello {
    Hello {
        version: VERSION,
        session,
        longest_body: longest_body(N) as u32,
        window,
    }
}

impl<const N: usize> Transport for LinkTransport<N> {
    type Error = LinkSendError;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
        let Some(&mut Carried {
            number, is_known, ..
        }) = self.carried(room)
        else {
            return Ok(());
        };
        // Nobody can be in a room that nobody knows of.
        if !self.has_session || !is_known {
            return Ok(());
        }
        if !self.tell_joined() {
            return Err(SendError::WouldBlock);
        }
        let kind = match output.payload {
            MessagePayload::Text(_) => kind::SAID_TEXT,
            MessagePayload::Bytes(_) => kind::SAID_BYTES,
        };
        let head: [u8; OUTPUT_HEAD] = output_head(number, output.recipient);
        self.arq
            .push(kind, &[&head, output.payload.as_bytes()])
            .map_err(|error| match error {
                PushError::Full => SendError::WouldBlock,
                PushError::TooLong => SendError::Failed(LinkSendError::TooLong {
                    bytes: output.payload.len(),
                }),
            })
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        let Some(&mut Carried { number, .. }) = self.carried(room) else {
            return;
        };
        // A client that did not come over the link is of no interest at its other end.
        let Some(place) = self
            .joining
            .iter()
            .position(|joining| *joining == (number, client))
        else {
            return;
        };
        self.joining.remove(place);
        // As many as wait for their turn or for a place, no more are taken.
        let _ = self.joined.push_back((number, client));
        self.tell_joined();
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

/// A text that is cut where it gets too long.
struct Cut(heapless::String<MAX_FAULT_BYTES>);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut chars = text.chars();
        while chars.next().is_some_and(|char| self.0.push(char).is_ok()) {}
        Ok(())
    }
}
