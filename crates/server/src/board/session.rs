//! The bridge's view of a board: its rooms, and their clients.

use crate::{
    board::{
        backlog::Backlog,
        joins::{Answered, Joins},
        transfers::{Numbers, Transfers},
    },
    http::RoomSummary,
    log_limit::{KeyedLogLimiter, LogLimiter},
    metrics::Metrics,
    rooms::{
        AdminError, Busy, Claim, Closed, FailedRooms, JoinRejection, REPLACED, Reply, Rooms,
        STOPPING, TransferReply,
        clients::{ClientLimits, Clients},
        handover::Listing,
        read_file,
        watches::Watch,
    },
    ws::connection::ConnectionKey,
};
use core::{fmt, time::Duration};
use stateroom_wasmi_host::{
    ClientId, Clock, Escaped, MessagePayload, Module, OutputMessage, OwnedEvent, RoomKey,
    Transport, driver::tokio::TokioClock,
};
use stateroom_wasmi_link::{BoardMessage, Bridge, BridgeSendError, RefusalReason, SessionError};
use std::io;
use tokio::time::Instant;

/// Why the board cannot be reached.
#[derive(Debug)]
pub(super) enum LinkError {
    Broken(io::Error),
    Session(SessionError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the link is broken: {error}"),
            Self::Session(error) => error.fmt(f),
        }
    }
}

/// The rooms of a board.
pub(crate) struct BoardRooms {
    /// The time of sessions that have no connection.
    clock: TokioClock,
    clients: Clients,
    rooms: RoomTable,
    transfers: Transfers,
    next_key: u64,
    backlog: Backlog,
    joins: Joins,
    is_established: bool,
    is_stopping: bool,
    failed: FailedRooms,
    log: BoardLog,
}

/// Limits of the lines that clients, and rooms that end again and again, can cause at will.
struct BoardLog {
    opened_rooms: KeyedLogLimiter,
    closed_rooms: KeyedLogLimiter,
    /// Rooms that the board should not open.
    wrong_rooms: LogLimiter,
}

#[derive(Default)]
struct RoomTable(Vec<BoardRoom>);

impl RoomTable {
    /// The room of this id that clients can join.
    fn find(&self, id: &str) -> Option<&BoardRoom> {
        self.0
            .iter()
            .find(|room| !room.is_hidden && *room.id == *id)
    }
}

impl Numbers for RoomTable {
    fn number_of(&self, id: &str) -> Option<u8> {
        Some(self.find(id)?.number)
    }

    fn id_of(&self, number: u8) -> Option<&str> {
        let mut rooms = self.0.iter();
        let room = rooms.find(|room| room.number == number && !room.is_hidden)?;
        Some(&room.id)
    }
}

struct BoardRoom {
    key: RoomKey,
    /// No other room has this number.
    number: u8,
    id: Box<str>,
    max_message_bytes: usize,
    /// Whether clients cannot join it: another room has its id, or its id is too long.
    is_hidden: bool,
}

/// Rooms with longer ids are hidden, in bytes: the default limit of a host.
const MAX_ROOM_ID_BYTES: usize = 256;

/// Characters of a fault's text that are kept.
const MAX_FAULT_CHARS: usize = 1000;

/// The close reason of clients whose room is opened again while it is open.
const OPENED_AGAIN: &str = "the board has opened the room again";

impl BoardRooms {
    pub(crate) fn new(limits: ClientLimits, secret: [u8; 32]) -> Self {
        /// More than the rooms of a board, which chooses their ids.
        const MAX_LOGGED_ROOMS: usize = 64;
        Self {
            clock: TokioClock::new(),
            clients: Clients::new(limits, secret, None),
            rooms: RoomTable::default(),
            transfers: Transfers::default(),
            next_key: 0,
            backlog: Backlog::default(),
            joins: Joins::default(),
            is_established: false,
            is_stopping: false,
            failed: FailedRooms::default(),
            log: BoardLog {
                opened_rooms: KeyedLogLimiter::with_keys(MAX_LOGGED_ROOMS),
                closed_rooms: KeyedLogLimiter::with_keys(MAX_LOGGED_ROOMS),
                wrong_rooms: LogLimiter::new(),
            },
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The room of this id; for the empty id, if the board has none, its first room.
    fn room_to_join(&self, id: &str, claim: &Claim) -> Result<RoomKey, JoinRejection> {
        if !self.is_established {
            return Err(match claim.session {
                // A gateway can wait.
                Some(_) => JoinRejection::moved(),
                None => JoinRejection::new(1013, "the board is not connected"),
            });
        }
        let room = self.open_rooms().find(|room| *room.id == *id);
        room.or_else(|| self.open_rooms().next().filter(|_| id.is_empty()))
            .map(|room| room.key)
            .ok_or_else(|| {
                JoinRejection::new(
                    1008,
                    format!("the board has no room {:?}", Escaped::new(id)),
                )
            })
    }

    /// The rooms that clients can join.
    fn open_rooms(&self) -> impl Iterator<Item = &BoardRoom> {
        self.rooms.0.iter().filter(|room| !room.is_hidden)
    }

    fn room(&self, key: RoomKey) -> Option<&BoardRoom> {
        self.rooms.0.iter().find(|room| room.key == key)
    }

    /// Closes a client's connection, and removes it from its room.
    fn disconnect(&mut self, room: RoomKey, client: ClientId, code: u16, reason: &str) {
        if let Some(connection) = self.clients.leave(room, client) {
            if let Some(connection) = self.clients.get(connection) {
                connection.close(code, reason, true);
            }
            self.on_left(room, client);
        }
    }

    /// Informs the board of a client that was removed from its room.
    fn on_left(&mut self, room: RoomKey, client: ClientId) {
        self.joins.abandon(room, client);
        self.backlog.disconnect(room, client);
    }

    /// Passes queued events to the bridge, as far as it takes them.
    pub(super) fn send_backlog(&mut self, bridge: &mut Bridge) {
        self.transfers.advance(bridge, &self.rooms);
        let held = self.transfers.held_room();
        let held = held.and_then(|id| self.rooms.find(id)).map(|room| room.key);
        while let Some((index, queued)) = self.backlog.next(held) {
            // Events of a room that has ended are dropped.
            let room = self.room(queued.room);
            let sent = room.map(|room| bridge.send(room.number, queued.event.as_event()));
            if sent == Some(Err(BridgeSendError::QueueFull)) {
                break;
            }
            let Some(queued) = self.backlog.remove(index, &mut self.clients) else {
                break;
            };
            if sent == Some(Err(BridgeSendError::TooLong)) {
                self.on_too_long(queued.room, &queued.event, queued.connection);
            }
        }
        self.backlog.wake_waiting(&mut self.clients);
    }

    /// Closes the client of an event that is longer than what the board said that it takes.
    fn on_too_long(
        &mut self,
        room: RoomKey,
        event: &OwnedEvent,
        connection: Option<ConnectionKey>,
    ) {
        let client = event.as_event().client();
        match connection {
            Some(key) => {
                // Another connection may have its id by now.
                let sender = self.clients.get(key).map(|sender| sender.member);
                let is_sender = match sender {
                    Some(member) => member == Some((room, client)),
                    // Its session goes on over another one.
                    None => self.clients.has_session(room, client),
                };
                if is_sender {
                    // What it has sent since is not handled either.
                    self.backlog.drop_messages(key);
                    let reason = "the message is longer than the link to the board takes";
                    self.disconnect(room, client, 1009, reason);
                }
            }
            None => self.disconnect(room, client, 1011, "the link to the board takes no clients"),
        }
    }

    /// Sends what is queued for clients, for no longer than `budget`; returns whether all of it was tried.
    pub(super) fn flush(&mut self, budget: Duration) -> bool {
        self.clients.flush(budget)
    }

    /// Closes clients whose joins the board does not answer, and ends a transfer of which nothing comes;
    /// returns when to call it again.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        let transfer_deadline = self.transfers.expire(now, &self.rooms);
        self.remove_gone();
        let session_deadline = self.clients.next_end().map(|at| {
            let left = at.saturating_duration_since(self.clock.now());
            now + left
        });
        let join_deadline = loop {
            match self.joins.expire(now) {
                Ok((room, client)) => {
                    self.disconnect(room, client, 1013, "the board does not answer");
                }
                Err(wake_at) => break wake_at,
            }
        };
        [transfer_deadline, join_deadline, session_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    /// Handles a message of the board.
    pub(super) fn handle_message(&mut self, message: BoardMessage<'_>) {
        match message {
            BoardMessage::SessionStarted => self.is_established = true,
            BoardMessage::RoomOpened {
                room,
                max_message_bytes,
                id,
            } => self.on_opened(room, max_message_bytes, id),
            BoardMessage::RoomClosed { room, fault } => self.on_closed(room, fault),
            BoardMessage::Joined { room, client } => {
                if let Some(key) = self.key(room) {
                    self.on_joined(key, client);
                }
            }
            BoardMessage::Refused {
                room,
                client,
                reason,
            } => {
                if let Some(key) = self.key(room) {
                    self.on_refused(key, client, reason);
                }
            }
            BoardMessage::Output { room, output } => {
                if let Some(key) = self.key(room) {
                    self.on_output(key, output);
                }
            }
            message => self.handle_transfer(message),
        }
    }

    /// Handles a message about a room on its way.
    fn handle_transfer(&mut self, message: BoardMessage<'_>) {
        let rooms = &self.rooms;
        match message {
            BoardMessage::Transfers { max_snapshot_bytes } => {
                self.transfers.on_available(max_snapshot_bytes);
            }
            BoardMessage::Saved {
                room,
                is_held,
                length,
                checksum,
            } => self
                .transfers
                .on_saved(room, is_held, length, checksum, rooms),
            BoardMessage::SavedPiece { offset, bytes } => {
                self.transfers.on_piece(offset, bytes, rooms);
            }
            BoardMessage::LoadReady { from } => self.transfers.on_load_ready(from, rooms),
            BoardMessage::Loaded { room, is_held } => {
                self.transfers.on_loaded(room, is_held, rooms);
            }
            BoardMessage::TransferRefused { reason, text } => {
                self.transfers.on_refused(reason, text, rooms);
            }
            // Messages that a later version adds.
            _ => {}
        }
    }

    fn key(&self, number: u8) -> Option<RoomKey> {
        Some(self.rooms.0.iter().find(|room| room.number == number)?.key)
    }

    fn on_opened(&mut self, number: u8, max_message_bytes: usize, id: &str) {
        // A number belongs to one room until that is closed, and an id to one room of a host. If the
        // board has not said that the former room is closed, its clients must not wait for it.
        let index = self.rooms.0.iter().position(|room| room.number == number);
        let of_number = index.map(|index| self.rooms.0.remove(index).key);
        let of_id = self.hide_room(id);
        let is_hidden = id.len() > MAX_ROOM_ID_BYTES;
        let id = match is_hidden {
            true => Escaped::new(id).at_most(MAX_ROOM_ID_BYTES).to_string(),
            false => id.to_owned(),
        };
        self.log_opened(&id, is_hidden, of_number.or(of_id).is_some());
        // The number's room keeps its key, so that events for it stay in order, and the ids of new
        // clients are not those that the board may know yet.
        let key = of_number.unwrap_or_else(|| {
            self.next_key += 1;
            RoomKey::from_bits(self.next_key)
        });
        self.rooms.0.push(BoardRoom {
            key,
            number,
            id: id.into(),
            max_message_bytes,
            is_hidden,
        });
        for room in of_number.into_iter().chain(of_id) {
            for client in self.clients.ids(room) {
                self.disconnect(room, client, 1001, OPENED_AGAIN);
            }
            self.joins.remove_room(room);
        }
    }

    /// Hides the room of this id, if there is one.
    fn hide_room(&mut self, id: &str) -> Option<RoomKey> {
        let mut rooms = self.rooms.0.iter_mut();
        let room = rooms.find(|room| !room.is_hidden && *room.id == *id)?;
        room.is_hidden = true;
        Some(room.key)
    }

    fn log_opened(&self, id: &str, is_hidden: bool, is_opened_again: bool) {
        let escaped = Escaped::new(id);
        let problem = match (is_hidden, is_opened_again) {
            (true, _) => ", whose id is too long to be joined",
            (false, true) => ", opened while a room of its id or its number is open",
            (false, false) => {
                if let Some(permit) = self.log.opened_rooms.permit(id) {
                    log::info!("the board has the room {escaped:?}{permit}");
                }
                return;
            }
        };
        if let Some(permit) = self.log.wrong_rooms.permit() {
            log::warn!("the board has the room {escaped:?}{problem}{permit}");
        }
    }

    fn on_closed(&mut self, number: u8, fault: Option<&str>) {
        let Some(index) = self.rooms.0.iter().position(|room| room.number == number) else {
            return;
        };
        let BoardRoom {
            key, id, is_hidden, ..
        } = self.rooms.0.remove(index);
        let moved = match is_hidden {
            true => None,
            false => {
                self.transfers.on_room_closed(&id, &self.rooms);
                self.transfers.take_moved(&id)
            }
        };
        let (code, reason) = match fault {
            Some(fault) => {
                self.failed.push(&id, fault, Instant::now());
                let fault = Escaped::new(fault).at_most(MAX_FAULT_CHARS);
                (1011, fault.to_string())
            }
            None => match moved {
                Some(reason) => (1012, reason),
                None => (1001, "the room is closed".into()),
            },
        };
        if let Some(permit) = self.log.closed_rooms.permit(&id) {
            let id = Escaped::new(&id);
            log::info!("the board closed the room {id:?}: {reason}{permit}");
        }
        self.joins.remove_room(key);
        self.clients.close_room(key, code, &reason);
    }

    fn on_joined(&mut self, key: RoomKey, client: ClientId) {
        if self.joins.answer(key, client) == Answered::Pending {
            // The transport never blocks and never fails.
            let _ = self.clients.connected(key, client);
            self.clients.admit(key, client);
        }
    }

    fn on_refused(&mut self, key: RoomKey, client: ClientId, reason: RefusalReason) {
        let (code, text) = match reason {
            RefusalReason::NoSuchRoom => (1001, "the room is closed"),
            RefusalReason::RoomFull => (1013, "the room is full"),
            RefusalReason::MessageTooLong => (1009, "the message exceeds the room's limit"),
            RefusalReason::InvalidUtf8 => (1007, "the text is not UTF-8"),
            RefusalReason::Held => (1013, "the room is being moved"),
            _ => (1011, "the board and the bridge disagree"),
        };
        let is_of_client = match reason {
            // A client whose connect is pending has sent no message: that was an earlier one.
            RefusalReason::MessageTooLong | RefusalReason::InvalidUtf8 => {
                !self.joins.is_pending(key, client)
            }
            _ => self.joins.answer(key, client) != Answered::Abandoned,
        };
        if is_of_client {
            // The board ignores the disconnect of a client that it does not have. One that it has
            // although it refused it would have its place in the room for ever.
            self.disconnect(key, client, code, text);
        }
    }

    fn on_output(&mut self, key: RoomKey, output: OutputMessage<'_>) {
        // The transport never blocks and never fails.
        let _ = self.clients.send(key, output);
        self.remove_gone();
    }

    /// Clients have left that were too slow, or whose sessions have ended.
    fn remove_gone(&mut self) {
        for (room, client) in self.clients.take_removed(self.clock.now()) {
            self.on_left(room, client);
        }
    }

    /// Closes all clients, since the link is lost.
    pub(super) fn on_link_lost(&mut self, reason: &LinkError) {
        self.is_established = false;
        self.close_all(1012, &reason.to_string());
        self.transfers.on_link_lost();
        self.transfers.expire(Instant::now(), &self.rooms);
    }

    fn check_known(&self, id: &str) -> Result<(), AdminError> {
        match self.rooms.find(id) {
            Some(_) => Ok(()),
            None if self.is_established => Err(AdminError::UnknownRoom),
            None => {
                let reason = "the board is not connected";
                Err(AdminError::Unavailable(reason.into()))
            }
        }
    }

    fn close_all(&mut self, code: u16, reason: &str) {
        self.joins.clear();
        for room in self.rooms.0.drain(..) {
            self.clients.close_room(room.key, code, reason);
        }
        self.backlog.clear();
    }
}

impl Rooms for BoardRooms {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Starts a join, which the board confirms or rejects.
    fn join(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        claim: Claim,
    ) -> Result<(), JoinRejection> {
        if self.is_stopping {
            return Err(JoinRejection::stopping());
        }
        let room = self.room_to_join(id, &claim)?;
        if let Some((client, resumed)) = self.clients.come_back(room, connection, &claim)? {
            resumed.map_err(|error| JoinRejection::new(1008, error.to_string()))?;
            if !self.joins.is_pending(room, client) {
                self.clients.admit(room, client);
            }
            return Ok(());
        }
        // Before the older connection is closed.
        self.backlog.check_connect()?;
        let client = self.clients.client_id(room, claim.token.as_deref());
        self.clients.check_order(room, client, connection)?;
        self.disconnect(room, client, 1008, REPLACED);
        let secret = claim.new_session()?;
        self.clients.join(room, client, connection);
        if let Some(secret) = secret {
            self.clients.begin_session(room, client, secret);
            // An older session may have had to end for it.
            self.remove_gone();
        }
        self.joins.start(room, client, Instant::now());
        self.backlog.connect(room, client);
        Ok(())
    }

    fn message(
        &mut self,
        connection: ConnectionKey,
        (key, client): (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy> {
        let Some(room) = self.room(key) else {
            return Ok(());
        };
        let (bytes, limit) = (payload.len(), room.max_message_bytes);
        if bytes > limit {
            let reason = format!("the message has {bytes} bytes; the board's limit is {limit}");
            self.disconnect(key, client, 1009, &reason);
            return Ok(());
        }
        self.backlog
            .message(&mut self.clients, connection, (key, client), payload)
    }

    fn leave(&mut self, (room, client): (RoomKey, ClientId)) {
        if self.clients.keep_session(room, client, self.clock.now()) {
            return;
        }
        if self.clients.leave(room, client).is_some() {
            self.on_left(room, client);
        }
    }

    fn list(&self) -> Listing {
        let summary =
            |room: &BoardRoom| RoomSummary::remote(&room.id, self.clients.count(room.key));
        Listing {
            rooms: self.open_rooms().map(summary).collect(),
            failed: self.failed.list(Instant::now()),
        }
    }

    fn metrics(&self, _busiest: usize) -> Metrics {
        let mut metrics = self.clients.metrics();
        metrics.add_remote_rooms(self.open_rooms().count());
        metrics
    }

    fn close(&mut self, _id: &str, done: Closed) {
        // Fails if the operator has gone.
        let _ = done.send(Err(AdminError::Remote));
    }

    fn watch(&mut self, _id: &str, _watch: Watch) -> Result<(), AdminError> {
        Err(AdminError::Remote)
    }

    fn save(&mut self, _id: &str) -> Result<Vec<u8>, AdminError> {
        Err(AdminError::Remote)
    }

    fn begin_save(&mut self, id: &str, reply: Reply<Vec<u8>>) {
        match self.check_known(id) {
            Ok(()) => self.transfers.begin_save(id, reply),
            Err(error) => reply(Err(error)),
        }
    }

    fn begin_hold(&mut self, id: &str, time: Duration, reply: Reply<(u64, Vec<u8>)>) {
        match self.check_known(id) {
            Ok(()) => self.transfers.begin_hold(id, time, reply),
            Err(error) => reply(Err(error)),
        }
    }

    fn end_hold(&mut self, id: &str, hold: u64, reply: TransferReply) {
        reply(self.transfers.end_hold(id, hold, &self.rooms));
    }

    fn give_up(&mut self, id: &str, hold: u64, location: Option<&str>, reply: TransferReply) {
        reply(self.transfers.give_up(id, hold, location, &self.rooms));
    }

    fn import(&mut self, id: &str, file: &[u8], hold: Option<Duration>, reply: TransferReply) {
        let error = match read_file(file) {
            Ok(file) if &*file.id != id => AdminError::Unreadable("it is of another room".into()),
            Ok(_) if self.rooms.find(id).is_some() => AdminError::Exists,
            Ok(file) => return self.transfers.begin_load(file, hold, reply),
            Err(reason) => AdminError::Unreadable(reason),
        };
        reply(Err(error));
    }

    /// The firmware has its own.
    fn replace_module(&mut self, _module: Module) {}

    fn stop(&mut self) {
        self.is_stopping = true;
        self.transfers.stop(&self.rooms);
        let (code, reason) = STOPPING;
        self.close_all(code, reason);
    }
}
