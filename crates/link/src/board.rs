//! The board's end of a link: received frames become events of the rooms, outputs become frames.

use super::{
    arq::SequenceCheck,
    framing::{Deframer, Frame, FrameError},
    messages::{Hello, RefusalReason, VERSION, kind, parse_event_header},
    transport::{LinkTransport, MAX_ROOM_ID_BYTES, MAX_ROOMS, hello},
    wire::Wire,
};
#[cfg(feature = "snapshot")]
use crate::transfer::{LoadRoomError, Transfers};
use core::{fmt, time::Duration};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, ClosedRoom, Event, EventError, Host, Instant, MessagePayload, Room,
    RoomKey, Transport,
};
#[cfg(feature = "snapshot")]
use stateroom_wasmi_host::{Module, SnapshotInfo, SnapshotOptions};

/// Bytes per read of the wire.
const READ_BYTES: usize = 64;

/// Options of a [`Link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Bytes that the wire buffers while the board does not read: the receive queue of the UART's
    /// driver. The bridge sends no more than this without an acknowledgement, but always one frame.
    /// Default 0: one frame at a time.
    pub receive_buffer_bytes: u32,
    /// Time without a frame after which the bridge is considered gone and its clients are
    /// disconnected. A bridge pings each second. Default 10 s.
    pub session_timeout: Duration,
    /// Heap that a room may take on its way to the bridge or from it, in bytes: a snapshot is received only
    /// if it is no longer and its state, twice, fits as well; a room is saved only if twice its memory and
    /// 12 KiB fit. Default 0: rooms are neither saved nor loaded.
    #[cfg(feature = "snapshot")]
    pub transfer_heap_bytes: usize,
}

impl LinkOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            receive_buffer_bytes: 0,
            session_timeout: Duration::from_secs(10),
            #[cfg(feature = "snapshot")]
            transfer_heap_bytes: 0,
        }
    }

    stateroom_wasmi_host::setters! { receive_buffer_bytes: u32, session_timeout: Duration }

    #[cfg(feature = "snapshot")]
    stateroom_wasmi_host::setters! { transfer_heap_bytes: usize }
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The board's end of a link: reads events from a [`Wire`], and writes the rooms' outputs to it.
///
/// The transport of the host is a [`LinkTransport`], or a type that contains one and implements
/// `AsMut<LinkTransport<N>>`. The [crate's documentation](crate#run-loop) has the loop that drives it.
///
/// The bridge owns the clients of the rooms that are [added](Self::add_room) to a link: when its
/// session ends, all clients of these rooms are disconnected.
pub struct Link<W, const N: usize> {
    wire: W,
    options: LinkOptions,
    deframer: Deframer<N>,
    session: Session,
}

/// The state of the session that [`LinkTransport`] does not need.
#[derive(Default)]
struct Session {
    id: u32,
    last_received: Instant,
    /// Set while the next frame is deferred by `RNR`.
    deferral: Option<Deferral>,
    #[cfg(feature = "snapshot")]
    transfers: Transfers,
}

/// Why a frame cannot be accepted now.
#[derive(Clone, Copy)]
pub(crate) enum Deferral {
    /// The room's inbox is full.
    InboxFull {
        room: RoomKey,
        /// [`RoomStats::events_handled`](stateroom_wasmi_host::RoomStats) at that time.
        events_handled: u64,
    },
    /// [`LinkTransport`] has no capacity for a reply.
    TransportFull,
    /// The reply to an earlier request about a room on its way waits for capacity.
    #[cfg(feature = "snapshot")]
    ReportWaiting,
}

/// Why a room was not added to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddRoomError {
    /// The host has no such room.
    UnknownRoom,
    /// The link carries [`MAX_ROOMS`] rooms already.
    TooManyRooms,
    /// The room's id is longer than [`MAX_ROOM_ID_BYTES`].
    IdTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for AddRoomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => f.write_str("the host has no such room"),
            Self::TooManyRooms => write!(f, "the link carries {MAX_ROOMS} rooms already"),
            Self::IdTooLong { bytes } => {
                write!(
                    f,
                    "the room's id is {bytes} bytes long, more than the limit of {MAX_ROOM_ID_BYTES}"
                )
            }
        }
    }
}

impl core::error::Error for AddRoomError {}

impl<W: Wire, const N: usize> Link<W, N> {
    /// A link over this wire, with default options.
    pub fn new(wire: W) -> Self {
        Self::with_options(wire, LinkOptions::default())
    }

    /// A link over this wire.
    pub fn with_options(wire: W, options: LinkOptions) -> Self {
        Self {
            wire,
            options,
            deframer: Deframer::new(),
            session: Session::default(),
        }
    }

    /// Makes a room accessible over the link, until it closes. Adding it again is a no-op.
    ///
    /// # Errors
    ///
    /// If the host has no such room, the link has [`MAX_ROOMS`], or the room's id is too long.
    pub fn add_room<C, T>(
        &mut self,
        host: &mut Host<C, T>,
        room: RoomKey,
    ) -> Result<(), AddRoomError>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        add_room(host, room)
    }

    /// Reads from the wire, runs the host within the budget, and writes as much as the wire takes.
    ///
    /// Returns when to poll again, as [`Host::poll`] does; also poll when bytes arrive, and, while the
    /// link [wants to write](Self::wants_write), when the wire can take more.
    ///
    /// # Errors
    ///
    /// Those of the wire. The link's state stays valid: if the wire recovers, poll again, and lost
    /// frames are retransmitted.
    pub fn poll<C, T>(
        &mut self,
        host: &mut Host<C, T>,
        budget: Budget,
    ) -> Result<Option<Instant>, W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let has_more = self.read(host)?;
        let timeout = self.options.session_timeout;
        self.session.check_timeout(host, timeout);
        let wake_at = host.poll(budget);
        self.session.resume_deferred(host);
        forget_rooms(host);
        announce_rooms(host);
        #[cfg(feature = "snapshot")]
        self.session
            .transfers
            .advance(host, self.options.transfer_heap_bytes);
        self.write(host)?;
        if has_more {
            return Ok(Some(Instant::ZERO));
        }
        let link = transport(host);
        let session_ends_at = link
            .has_session()
            .then(|| self.session.last_received + timeout);
        Ok([wake_at, link.arq.poll_timeout(), session_ends_at]
            .into_iter()
            .flatten()
            .min())
    }

    /// Takes a closed room from the host, as [`Host::poll_closed`] does, and reports it to the bridge.
    /// Returns `None` as long as the send buffer has no capacity for the report; the room is kept.
    pub fn poll_closed<C, T>(&mut self, host: &mut Host<C, T>) -> Option<ClosedRoom>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if !transport(host).can_report_closed() {
            return None;
        }
        let closed = host.poll_closed()?;
        transport(host).remove_room(closed.key, closed.fault.as_ref());
        Some(closed)
    }

    /// What the snapshot says of itself that the bridge has sent, for a room to be opened here. Call
    /// [`load`](Self::load) with its module, or [`refuse_load`](Self::refuse_load); before that the bridge
    /// can send no other.
    #[cfg(feature = "snapshot")]
    #[must_use]
    pub fn received_room(&self) -> Option<SnapshotInfo> {
        self.session.transfers.received()
    }

    /// Opens the room that was [received](Self::received_room), adds it to the link, disconnects the
    /// clients that it had elsewhere, and reports what became of it to the bridge.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be loaded or added. What was received is dropped in any case.
    #[cfg(feature = "snapshot")]
    pub fn load<C, T>(
        &mut self,
        host: &mut Host<C, T>,
        module: &Module,
        options: SnapshotOptions,
    ) -> Result<RoomKey, LoadRoomError>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.session.transfers.load(host, module, options)
    }

    /// Drops the snapshot that was [received](Self::received_room), and tells the bridge why; of a long
    /// reason the beginning.
    #[cfg(feature = "snapshot")]
    pub fn refuse_load(&mut self, why: impl fmt::Display) {
        self.session.transfers.refuse_load(why);
    }

    /// Takes a room that has gone to the bridge, and is no longer in the host.
    #[cfg(feature = "snapshot")]
    pub fn poll_moved(&mut self) -> Option<ClosedRoom> {
        self.session.transfers.poll_moved()
    }

    /// Whether there are bytes to write: call [`poll`](Self::poll) when the wire can take more.
    pub fn wants_write<C, T>(&self, host: &mut Host<C, T>) -> bool
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let now = host.clock().now();
        !transport(host).unsent(now).is_empty()
    }

    /// The wire.
    pub const fn wire(&self) -> &W {
        &self.wire
    }

    /// The wire.
    pub const fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Reads about `N` bytes at most, so that a peer that never stops sending does not starve the
    /// host. Returns whether there may be more.
    fn read<C, T>(&mut self, host: &mut Host<C, T>) -> Result<bool, W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..N.div_ceil(READ_BYTES) {
            let read = self.wire.read(&mut bytes)?;
            if read == 0 {
                return Ok(false);
            }
            for byte in bytes.iter().take(read) {
                match self.deframer.push(*byte) {
                    Some(Ok(frame)) => self.session.handle_frame(frame, host, self.options),
                    Some(Err(FrameError)) if transport(host).has_session() => {
                        transport(host).arq.on_gap();
                    }
                    Some(Err(FrameError)) | None => {}
                }
            }
        }
        Ok(true)
    }

    fn write<C, T>(&mut self, host: &mut Host<C, T>) -> Result<(), W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let now = host.clock().now();
        let link = transport(host);
        // Terminates: new frames come only from reading and from the rooms.
        loop {
            let bytes = link.unsent(now);
            if bytes.is_empty() {
                return Ok(());
            }
            match self.wire.write(bytes)? {
                0 => return Ok(()),
                written => link.arq.sent(written, now),
            }
        }
    }
}

/// See [`Link::add_room`].
pub(crate) fn add_room<C, T, const N: usize>(
    host: &mut Host<C, T>,
    room: RoomKey,
) -> Result<(), AddRoomError>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    let id = host.room(room).ok_or(AddRoomError::UnknownRoom)?.id();
    if id.len() > MAX_ROOM_ID_BYTES {
        return Err(AddRoomError::IdTooLong { bytes: id.len() });
    }
    transport(host)
        .add_room(room)
        .map(drop)
        .ok_or(AddRoomError::TooManyRooms)
}

impl Session {
    fn handle_frame<C, T, const N: usize>(
        &mut self,
        frame: Frame<'_>,
        host: &mut Host<C, T>,
        options: LinkOptions,
    ) where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.last_received = host.clock().now();
        let link = transport(host);
        match frame.kind {
            kind::HELLO => self.on_hello(frame.body, host, options.receive_buffer_bytes),
            _ if !link.has_session() => link.end_session(),
            kind::ACK | kind::REJ | kind::RNR | kind::PING => {
                link.arq.on_control(frame.kind, frame.sequence);
            }
            // Reserved for later versions.
            ..kind::NUMBERED => {}
            _ => match link.arq.check_sequence(frame.sequence) {
                SequenceCheck::Expected => {
                    self.deferral = self.accept(frame, host, options).err();
                    match self.deferral {
                        None => transport(host).arq.on_accepted(),
                        Some(_) => transport(host).arq.on_busy(),
                    }
                }
                SequenceCheck::Duplicate => link.arq.on_duplicate(),
                SequenceCheck::Gap => link.arq.on_gap(),
            },
        }
    }

    /// Accepts a numbered frame. On an error nothing has happened, and the frame must come again.
    #[cfg_attr(
        not(feature = "snapshot"),
        allow(
            clippy::unused_self,
            clippy::needless_pass_by_ref_mut,
            reason = "transfers"
        )
    )]
    fn accept<C, T, const N: usize>(
        &mut self,
        frame: Frame<'_>,
        host: &mut Host<C, T>,
        options: LinkOptions,
    ) -> Result<(), Deferral>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        #[cfg(feature = "snapshot")]
        if let kind::SAVE..=kind::LOAD_PIECE = frame.kind
            && options.transfer_heap_bytes > 0
        {
            let heap_bytes = options.transfer_heap_bytes;
            return self
                .transfers
                .on_frame(frame.kind, frame.body, host, heap_bytes);
        }
        #[cfg(not(feature = "snapshot"))]
        let _ = options;
        deliver(frame, host)
    }

    /// Begins a session, or confirms it again.
    fn on_hello<C, T, const N: usize>(
        &mut self,
        body: &[u8],
        host: &mut Host<C, T>,
        window_bytes: u32,
    ) where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let Some(peer) = Hello::from_bytes(body) else {
            return;
        };
        if transport(host).has_session() && peer.session == self.id && peer.version == VERSION {
            // The bridge repeats its hello, and sends nothing else, until it receives ours.
            transport(host)
                .arq
                .send_hello(hello::<N>(peer.session, window_bytes));
            return;
        }
        self.end(host);
        if peer.version == VERSION && peer.session != 0 {
            self.id = peer.session;
            transport(host).start_session(peer, window_bytes);
        }
    }

    fn check_timeout<C, T, const N: usize>(&mut self, host: &mut Host<C, T>, timeout: Duration)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if transport(host).has_session() && host.clock().now() >= self.last_received + timeout {
            log!(
                info,
                "the link's session timed out; its clients are disconnected"
            );
            self.end(host);
        }
    }

    /// Ends the session: disconnects all clients.
    fn end<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.deferral = None;
        #[cfg(feature = "snapshot")]
        self.transfers.on_session_end(host);
        transport(host).end_session();
        for slot in 0..MAX_ROOMS {
            let Some(key) = transport(host).room_at(slot) else {
                continue;
            };
            while let Some(client) = host
                .room(key)
                .and_then(|room| room.clients().last().copied())
            {
                // Fails if the room is closed.
                if host.enqueue(key, Event::Disconnect(client)).is_err() {
                    break;
                }
            }
        }
    }

    /// Requests the deferred frame, if there is capacity for it now.
    fn resume_deferred<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let is_ready = match self.deferral {
            None => false,
            Some(Deferral::TransportFull) => transport(host).can_accept_event(),
            #[cfg(feature = "snapshot")]
            Some(Deferral::ReportWaiting) => {
                !self.transfers.has_report() && transport(host).can_report_closed()
            }
            Some(Deferral::InboxFull {
                room,
                events_handled,
            }) => {
                host.room(room).is_none_or(|room| {
                    let stats = room.stats();
                    // Events of a restart, which are the room's own, are not counted as handled.
                    stats.events_handled > events_handled || stats.waiting_events == 0
                })
            }
        };
        if is_ready {
            self.deferral = None;
            transport(host).arq.on_ready();
        }
    }
}

/// Hands an event to its room, or reports its refusal to the bridge. On an error nothing has happened,
/// and the frame must come again.
fn deliver<C, T, const N: usize>(frame: Frame<'_>, host: &mut Host<C, T>) -> Result<(), Deferral>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    if !transport(host).can_accept_event() {
        return Err(Deferral::TransportFull);
    }
    // Skip bodies and kinds that a later version may define.
    let Some((number, client, payload)) = parse_event_header(frame.body) else {
        return Ok(());
    };
    let event = match parse_event(frame.kind, client, payload) {
        Some(Ok(event)) => event,
        Some(Err(reason)) => {
            transport(host).report_refused(number, client, reason);
            return Ok(());
        }
        None => return Ok(()),
    };
    let Some(room) = transport(host).key(number) else {
        transport(host).report_refused(number, client, RefusalReason::NoSuchRoom);
        return Ok(());
    };
    // What it was told now would be lost or come twice if it goes on elsewhere. Those who leave have left
    // in any case.
    if transport(host).held == Some(room) && !matches!(event, Event::Disconnect(_)) {
        transport(host).report_refused(number, client, RefusalReason::Held);
        return Ok(());
    }
    match host.enqueue(room, event) {
        Ok(()) => {}
        Err(EventError::InboxFull) => {
            let stats = host.room(room).map(Room::stats);
            let events_handled = stats.map_or(0, |stats| stats.events_handled);
            return Err(Deferral::InboxFull {
                room,
                events_handled,
            });
        }
        Err(error) => {
            if let Some(reason) = RefusalReason::from_error(error) {
                transport(host).report_refused(number, client, reason);
            }
        }
    }
    Ok(())
}

/// The event of a frame; `None` if its kind is unknown.
fn parse_event(
    kind: u8,
    client: ClientId,
    payload: &[u8],
) -> Option<Result<Event<'_>, RefusalReason>> {
    Some(match kind {
        kind::CONNECT => Ok(Event::Connect(client)),
        kind::DISCONNECT => Ok(Event::Disconnect(client)),
        kind::TEXT => match core::str::from_utf8(payload) {
            Ok(text) => Ok(Event::Message(client, MessagePayload::Text(text))),
            Err(_) => Err(RefusalReason::InvalidUtf8),
        },
        kind::BYTES => Ok(Event::Message(client, MessagePayload::Bytes(payload))),
        _ => return None,
    })
}

/// Removes rooms that the host no longer has and that [`Link::poll_closed`] did not take: discarded
/// ones. Reports them to the bridge, as far as the send buffer has capacity.
fn forget_rooms<C, T, const N: usize>(host: &mut Host<C, T>)
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    for slot in 0..MAX_ROOMS {
        let Some(key) = transport(host).room_at(slot) else {
            continue;
        };
        if host.room(key).is_none() && transport(host).can_report_closed() {
            transport(host).remove_room(key, None);
        }
    }
}

/// Announces rooms to the bridge, as far as the send buffer has capacity.
fn announce_rooms<C, T, const N: usize>(host: &mut Host<C, T>)
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    while transport(host).has_session() {
        let Some(key) = transport(host).next_unannounced() else {
            return;
        };
        let mut id = heapless::String::<MAX_ROOM_ID_BYTES>::new();
        let mut max_message_bytes = 0;
        if let Some(room) = host.room(key) {
            // Fits: `add_room` checked the length.
            let _ = id.push_str(room.id());
            max_message_bytes = room.module().limits().max_message_bytes;
        }
        if !transport(host).announce(key, &id, max_message_bytes) {
            return;
        }
    }
}

fn transport<C, T, const N: usize>(host: &mut Host<C, T>) -> &mut LinkTransport<N>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    host.transport_mut().as_mut()
}

impl<W, const N: usize> fmt::Debug for Link<W, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
