//! Rooms on their way to the bridge and from it, one at a time: a snapshot in pieces.

use crate::{
    board::Deferral,
    incoming::{IncomingSnapshot, WrongPiece},
    messages::{Fields, TransferReason, kind},
    transport::{LinkTransport, MAX_FAULT_BYTES, Truncated},
};
use alloc::{boxed::Box, vec::Vec};
use core::fmt::{self, Write};
use stateroom_wasmi_host::{
    Clock, ClosedRoom, Event, Host, Module, RoomKey, SaveError, SnapshotError, SnapshotInfo,
    SnapshotOptions, Transport,
};

/// What saving a room takes besides its state, in bytes: most is a table of the compression.
const SAVE_BYTES: usize = 12 << 10;

/// The board's end of transfers.
#[derive(Default)]
pub(crate) struct Transfers {
    state: State,
    /// To be sent when there is space for it. Until then no other request is accepted.
    report: Option<Report>,
    /// For the driver.
    moved: Option<ClosedRoom>,
    /// Whether the bridge of this session was told what may be transferred.
    is_announced: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// The room is to be saved as soon as its outputs have left.
    Saving(Saving),
    Sending(Outgoing),
    Receiving {
        incoming: IncomingSnapshot,
        /// Whether the room is to be held when it is there.
        is_held: bool,
    },
    /// The driver is to load this.
    Received {
        bytes: Vec<u8>,
        is_held: bool,
    },
    /// It was loaded, and is held.
    Arrived(RoomKey),
}

struct Saving {
    room: RoomKey,
    /// Whether the room stops until the bridge says what follows.
    is_held: bool,
}

struct Outgoing {
    room: RoomKey,
    is_held: bool,
    bytes: Vec<u8>,
    checksum: u32,
    /// Where the next piece begins.
    next: usize,
    /// Whether the bridge of this session was told of it.
    is_announced: bool,
    /// Whether all of it was sent, in this session or an earlier one.
    was_sent: bool,
}

enum Report {
    Refused(TransferReason, Box<heapless::String<MAX_FAULT_BYTES>>),
    Ready(u32),
    Loaded(RoomKey),
}

impl Report {
    fn refused(reason: TransferReason, why: impl fmt::Display) -> Self {
        let mut text = Truncated(heapless::String::new());
        let _ = write!(text, "{why}");
        Self::Refused(reason, Box::new(text.0))
    }
}

/// Why a room was not loaded from a snapshot that the bridge has sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadRoomError {
    /// There is no such snapshot.
    NothingToLoad,
    /// The snapshot cannot be loaded with this module and host.
    Snapshot(SnapshotError),
    /// The room was loaded and removed again, since the link cannot carry it.
    AddRoom(crate::AddRoomError),
}

impl fmt::Display for LoadRoomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToLoad => f.write_str("the bridge has sent no room"),
            Self::Snapshot(error) => error.fmt(f),
            Self::AddRoom(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadRoomError {}

impl Transfers {
    /// Handles a request of the bridge, or a piece of a snapshot. On an error nothing has happened, and
    /// the frame must come again.
    pub(crate) fn on_frame<C, T, const N: usize>(
        &mut self,
        kind: u8,
        body: &[u8],
        host: &mut Host<C, T>,
        heap_bytes: usize,
    ) -> Result<(), Deferral>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if self.report.is_some() || !transport(host).can_report_closed() {
            return Err(Deferral::ReportWaiting);
        }
        self.report = match kind {
            kind::SAVE => self.on_save(body, host),
            kind::RELEASE => {
                self.on_release(body, host);
                None
            }
            kind::LOAD => self.on_load(body, heap_bytes),
            _ => self.on_piece(body, heap_bytes),
        };
        Ok(())
    }

    fn on_save<C, T, const N: usize>(
        &mut self,
        body: &[u8],
        host: &mut Host<C, T>,
    ) -> Option<Report>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let mut fields = Fields(body);
        // A later version may define others.
        let (Some(number), Some(is_held), Some(from), Some(checksum)) = (
            fields.byte(),
            fields.byte(),
            fields.number(),
            fields.number(),
        ) else {
            return None;
        };
        let Some(room) = transport(host).key(number) else {
            return Some(Report::refused(TransferReason::NoSuchRoom, ""));
        };
        match &mut self.state {
            // It was interrupted, or is asked for again.
            State::Sending(outgoing) if outgoing.room == room && outgoing.is_held => {
                let is_known = outgoing.checksum == checksum;
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                outgoing.next = match is_known && from <= outgoing.bytes.len() {
                    true => from,
                    false => 0,
                };
                outgoing.is_announced = false;
                None
            }
            // What was received of another is given up.
            State::Idle | State::Receiving { .. } => {
                let is_held = is_held != 0;
                if is_held {
                    transport(host).held = Some(room);
                }
                self.state = State::Saving(Saving { room, is_held });
                None
            }
            _ => Some(busy()),
        }
    }

    /// The bridge says what becomes of a held room.
    fn on_release<C, T, const N: usize>(&mut self, body: &[u8], host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let &[number, has_moved, ..] = body else {
            return;
        };
        let held = transport(host).held;
        let Some(room) = transport(host).key(number).filter(|key| held == Some(*key)) else {
            return;
        };
        let may_go = match &self.state {
            // Of what was not sent as a whole, the bridge cannot have made a room.
            State::Sending(outgoing) => outgoing.was_sent,
            State::Arrived(_) => true,
            _ => false,
        };
        if has_moved != 0 && may_go {
            transport(host).remove_room(room, None);
            self.moved = host.discard(room).ok();
        }
        self.stop_holding(host);
    }

    fn on_load(&mut self, body: &[u8], heap_bytes: usize) -> Option<Report> {
        let mut fields = Fields(body);
        let (length, checksum) = (fields.number()?, fields.number()?);
        let holds = fields.byte()? != 0;
        match &mut self.state {
            State::Receiving { incoming, is_held } if incoming.is(length, checksum) => {
                *is_held = holds;
                return Some(Report::Ready(incoming.received() as u32));
            }
            // What was received of another is given up.
            State::Idle | State::Receiving { .. } => self.state = State::Idle,
            _ => return Some(busy()),
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return None;
        }
        if length > heap_bytes {
            let why = format_args!("at most {heap_bytes} bytes are allowed");
            return Some(Report::refused(TransferReason::TooLong, why));
        }
        let mut incoming = IncomingSnapshot::new(length, checksum);
        if incoming.reserve().is_err() {
            return Some(Report::refused(TransferReason::OutOfMemory, ""));
        }
        self.state = State::Receiving {
            incoming,
            is_held: holds,
        };
        Some(Report::Ready(0))
    }

    fn on_piece(&mut self, body: &[u8], heap_bytes: usize) -> Option<Report> {
        let mut fields = Fields(body);
        let offset = fields.number()?;
        let State::Receiving { incoming, .. } = &mut self.state else {
            return None;
        };
        let pushed = incoming.push(offset, fields.rest());
        if pushed.is_ok() && !incoming.is_complete() {
            return None;
        }
        let State::Receiving { incoming, is_held } = core::mem::take(&mut self.state) else {
            return None;
        };
        match complete(incoming, pushed, heap_bytes) {
            Ok(bytes) => {
                self.state = State::Received { bytes, is_held };
                None
            }
            Err(report) => Some(report),
        }
    }

    /// Does what there is to do and space for.
    pub(crate) fn advance<C, T, const N: usize>(&mut self, host: &mut Host<C, T>, heap_bytes: usize)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if !transport(host).has_session() {
            return;
        }
        if !self.is_announced && heap_bytes > 0 {
            let longest = u32::try_from(heap_bytes).unwrap_or(u32::MAX).to_le_bytes();
            self.is_announced = transport(host).report(kind::TRANSFERS, &[&longest]);
        }
        self.send_report(host);
        if self.room().is_some_and(|room| host.room(room).is_none()) {
            // The firmware has closed it.
            self.stop_holding(host);
            self.report = Some(Report::refused(TransferReason::NoSuchRoom, ""));
        }
        if let State::Saving(saving) = &self.state
            && self.report.is_none()
        {
            match save(saving, host, heap_bytes) {
                Ok(None) => {}
                Ok(Some(outgoing)) => self.state = State::Sending(outgoing),
                Err(report) => {
                    self.stop_holding(host);
                    self.report = Some(report);
                }
            }
        }
        if let State::Sending(outgoing) = &mut self.state {
            outgoing.send(transport(host));
            if outgoing.next == outgoing.bytes.len() && outgoing.is_announced && !outgoing.is_held {
                self.state = State::Idle;
            }
        }
    }

    fn send_report<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let link = transport(host);
        let is_sent = match &self.report {
            None => return,
            Some(Report::Refused(reason, text)) => {
                link.report(kind::TRANSFER_REFUSED, &[&[*reason as u8], text.as_bytes()])
            }
            Some(Report::Ready(from)) => link.report(kind::LOAD_READY, &[&from.to_le_bytes()]),
            Some(Report::Loaded(room)) => match link.announced_number(*room) {
                Some(number) => {
                    let is_held = link.held == Some(*room);
                    link.report(kind::LOADED, &[&[number, is_held.into()]])
                }
                // It is announced first; or it is closed already.
                None => !link.carries(*room),
            },
        };
        if is_sent {
            self.report = None;
        }
    }

    /// The room that is saved, or has arrived.
    const fn room(&self) -> Option<RoomKey> {
        match &self.state {
            State::Saving(saving) => Some(saving.room),
            State::Sending(outgoing) => Some(outgoing.room),
            State::Arrived(room) => Some(*room),
            _ => None,
        }
    }

    fn stop_holding<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        transport(host).held = None;
        self.state = State::Idle;
    }

    /// The session has ended: what nobody waits for any more is given up. A held room stays so, since
    /// the bridge may have made a room of it; and what was received of a snapshot is kept, for the bridge
    /// to go on.
    pub(crate) fn on_session_end<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.report = None;
        self.is_announced = false;
        match &mut self.state {
            State::Arrived(room) => self.report = Some(Report::Loaded(*room)),
            State::Sending(outgoing) if outgoing.is_held => {
                outgoing.is_announced = false;
                // Nothing is sent before the bridge asks for it.
                outgoing.next = outgoing.bytes.len();
            }
            State::Receiving { .. } | State::Idle => {}
            State::Saving(_) | State::Sending(_) | State::Received { .. } => {
                self.stop_holding(host);
            }
        }
    }

    pub(crate) const fn has_report(&self) -> bool {
        self.report.is_some()
    }

    /// What a snapshot says that waits to be loaded.
    pub(crate) fn received(&self) -> Option<SnapshotInfo> {
        match &self.state {
            State::Received { bytes, .. } => SnapshotInfo::read(bytes).ok(),
            _ => None,
        }
    }

    /// Loads what was received, and disconnects the clients that it had elsewhere.
    pub(crate) fn load<C, T, const N: usize>(
        &mut self,
        host: &mut Host<C, T>,
        module: &Module,
        options: SnapshotOptions,
    ) -> Result<RoomKey, LoadRoomError>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let State::Received { bytes, is_held } = &self.state else {
            return Err(LoadRoomError::NothingToLoad);
        };
        let is_held = *is_held;
        let loaded = host
            .load(module, bytes, options)
            .map_err(LoadRoomError::Snapshot);
        self.state = State::Idle;
        let loaded = loaded.and_then(|room| match crate::board::add_room(host, room) {
            Ok(()) => Ok(room),
            Err(error) => {
                let _ = host.discard(room);
                Err(LoadRoomError::AddRoom(error))
            }
        });
        match &loaded {
            Ok(room) => {
                let clients = host.room(*room).map(|room| Vec::from(room.clients()));
                for client in clients.into_iter().flatten() {
                    let _ = host.enqueue(*room, Event::Disconnect(client));
                }
                if is_held {
                    transport(host).held = Some(*room);
                    self.state = State::Arrived(*room);
                }
                self.report = Some(Report::Loaded(*room));
            }
            Err(error) => self.report = Some(Report::refused(TransferReason::Rejected, error)),
        }
        loaded
    }

    /// Drops what was received, and tells the bridge why.
    pub(crate) fn refuse_load(&mut self, why: impl fmt::Display) {
        if let State::Received { .. } = self.state {
            self.state = State::Idle;
            self.report = Some(Report::refused(TransferReason::Rejected, why));
        }
    }

    pub(crate) fn poll_moved(&mut self) -> Option<ClosedRoom> {
        self.moved.take()
    }
}

/// The snapshot of which the last piece has come, if it is one that may be loaded.
fn complete(
    incoming: IncomingSnapshot,
    pushed: Result<(), WrongPiece>,
    heap_bytes: usize,
) -> Result<Vec<u8>, Report> {
    let bytes = pushed.ok().and_then(|()| incoming.into_bytes());
    let bytes = bytes.ok_or_else(|| Report::refused(TransferReason::Damaged, ""))?;
    let info = SnapshotInfo::read(&bytes)
        .map_err(|error| Report::refused(TransferReason::Rejected, error))?;
    // The state is decompressed, and then copied to be the room's.
    let needed = info
        .state_bytes
        .saturating_mul(2)
        .saturating_add(bytes.len());
    if needed > heap_bytes {
        let why = format_args!("loading it takes {needed} bytes, and {heap_bytes} are allowed");
        return Err(Report::refused(TransferReason::TooLong, why));
    }
    Ok(bytes)
}

fn busy() -> Report {
    Report::refused(TransferReason::Busy, "another room is on its way")
}

/// Saves a room, if its outputs have left.
fn save<C, T, const N: usize>(
    saving: &Saving,
    host: &mut Host<C, T>,
    heap_bytes: usize,
) -> Result<Option<Outgoing>, Report>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    let &Saving { room, is_held } = saving;
    let memory_bytes = host.room(room).map_or(0, |room| room.stats().memory_bytes);
    let needed = memory_bytes.saturating_mul(2).saturating_add(SAVE_BYTES);
    if needed > heap_bytes {
        let why = format_args!("saving it may take {needed} bytes, and {heap_bytes} are allowed");
        return Err(Report::refused(TransferReason::TooLong, why));
    }
    let bytes = match host.save(room) {
        Ok(bytes) => bytes,
        Err(SaveError::Busy | SaveError::OutputsWaiting) => return Ok(None),
        Err(error) => return Err(Report::refused(TransferReason::CannotSave, error)),
    };
    if transport(host).piece_bytes() == 0 {
        let why = "the bridge accepts no piece of it";
        return Err(Report::refused(TransferReason::TooLong, why));
    }
    Ok(Some(Outgoing {
        room,
        is_held,
        checksum: crate::framing::checksum(&bytes),
        bytes,
        next: 0,
        is_announced: false,
        was_sent: false,
    }))
}

impl Outgoing {
    /// Queues what there is space for; a part of the queue stays free for what the rooms send.
    fn send<const N: usize>(&mut self, link: &mut LinkTransport<N>) {
        let Some(number) = link.announced_number(self.room) else {
            return;
        };
        if !self.is_announced {
            let length = (self.bytes.len() as u32).to_le_bytes();
            let head = [number, self.is_held.into()];
            let body: [&[u8]; 3] = [&head, &length, &self.checksum.to_le_bytes()];
            self.is_announced = link.report(kind::SAVED, &body);
        }
        while self.is_announced && self.next < self.bytes.len() {
            let rest = &self.bytes[self.next..];
            let piece = &rest[..rest.len().min(link.piece_bytes())];
            let offset = (self.next as u32).to_le_bytes();
            if piece.is_empty() || !link.report(kind::SAVED_PIECE, &[&offset, piece]) {
                return;
            }
            self.next += piece.len();
            self.was_sent |= self.next == self.bytes.len();
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
