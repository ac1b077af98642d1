//! The tasks that run rooms, each with a host, a module and an interpreter of its own.
//!
//! They share the runtime's threads with the connections, so that a message takes its way through the
//! server without waking another thread; after a slice or a millisecond of work, the others have
//! their turn.

use crate::{
    config::ServerConfig,
    http::rooms_endpoint::RoomSummary,
    rooms::clients::{Clients, Connection},
    rooms::command::{COMMANDS, Command, Refusal},
};
use core::time::Duration;
use hashbrown::HashMap;
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, EventError, Host, HostLimits, Instant, Module, OpenError,
    RoomKey,
    driver::tokio::{OwnedEvent, TokioClock, Wake, wait},
};
use std::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    format,
    string::ToString,
    sync::Arc,
    vec::Vec,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub(crate) struct Worker {
    host: Host<TokioClock, Clients>,
    module: Module,
    rooms: HashMap<RoomKey, OpenRoom>,
    /// Rooms without clients, by the time to close them: those that have an `idle_until`.
    idle: BTreeSet<(Instant, RoomKey)>,
    /// Rooms that have just been opened, by the time to give back what memory they do not use;
    /// earliest first, since all wait for the same time.
    untrimmed: VecDeque<(Instant, RoomKey)>,
    /// What rooms have been given and are not done with. Rooms that are have no entry.
    given: HashMap<RoomKey, Given>,
    /// Places for rooms, of all workers.
    places: Arc<Semaphore>,
    max_rooms: usize,
    room_idle: Duration,
    keep_timers: bool,
    stopping: Option<Stopping>,
}

struct OpenRoom {
    /// Given back when the room is closed.
    _place: OwnedSemaphorePermit,
    idle_until: Option<Instant>,
}

#[derive(Default)]
struct Given {
    /// What to give back for each event in the room's inbox, in order.
    taken: VecDeque<Option<OwnedSemaphorePermit>>,
    /// Events that found the inbox full, in order, and what to give back for them; everything else
    /// for the room waits behind them. Their number is bounded: messages are by what each connection
    /// may have on its way, and nobody joins a room where events wait here.
    waiting: VecDeque<(OwnedEvent, Option<OwnedSemaphorePermit>)>,
}

struct Stopping {
    reply: oneshot::Sender<()>,
    /// When to stop even if the rooms are not done.
    until: Instant,
}

/// Fuel between two turns of the others on the thread: about a millisecond of work.
const FUEL_PER_POLL: u64 = 800_000;

/// Time for rooms to handle what they were given before the server stopped.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Time after which a room has used what memory it uses at all events; most that are closed soon
/// are closed before.
const SETTLED: Duration = Duration::from_secs(2);

impl Worker {
    pub(crate) fn new(
        config: &ServerConfig,
        module: Module,
        places: Arc<Semaphore>,
        seed: u64,
    ) -> Self {
        let limits = HostLimits::new().max_rooms(config.max_rooms);
        Self {
            host: Host::with_limits(TokioClock::new(), Clients::new(config.max_tokens), limits)
                .with_seed(seed)
                .with_fault_policy(config.on_fault),
            module,
            rooms: HashMap::new(),
            idle: BTreeSet::new(),
            untrimmed: VecDeque::new(),
            given: HashMap::new(),
            places,
            max_rooms: config.max_rooms,
            room_idle: config.room_idle,
            keep_timers: config.keep_timers,
            stopping: None,
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let wake_at = self.work();
            let now = self.host.clock().now();
            if let Some(stopping) = self
                .stopping
                .take_if(|stopping| now >= stopping.until || wake_at.is_none_or(|at| at > now))
            {
                self.stop(stopping);
                return;
            }
            let idle = self.idle.first().map(|(at, _)| *at);
            let untrimmed = self.untrimmed.front().map(|(at, _)| *at);
            let wake_at = [wake_at, idle, untrimmed].into_iter().flatten().min();
            if wake_at.is_some_and(|at| at <= now) {
                tokio::task::yield_now().await;
            }
            match wait(
                &mut commands,
                wake_at,
                self.host.clock(),
                core::future::pending(),
            )
            .await
            {
                Wake::Command(command) => self.command(command),
                Wake::Time | Wake::Writable => {}
                Wake::Ended => return,
            }
            // What has come meanwhile is one round, too.
            for _ in 0..COMMANDS {
                match commands.try_recv() {
                    Ok(command) => self.command(command),
                    Err(_) => break,
                }
            }
        }
    }

    /// Does what there is to do; answers when to go on.
    fn work(&mut self) -> Option<Instant> {
        let mut wake_at = self.host.poll(Budget::fuel(FUEL_PER_POLL));
        for (room, client) in self.host.transport_mut().take_too_slow() {
            log::info!("client {client} of room {room} is closed: it was too slow");
            self.left(room, client);
            wake_at = Some(Instant::ZERO);
        }
        self.close_idle();
        self.trim();
        self.see_off_closed();
        if self.settle() {
            wake_at = Some(Instant::ZERO);
        }
        wake_at
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join {
                room,
                token,
                connection,
                reply,
            } => {
                let joined = self.join(&room, token, connection);
                // Whoever has gone meanwhile is taken out again.
                if let Err(Ok((room, client))) = reply.send(joined)
                    && self
                        .host
                        .transport_mut()
                        .leave(room, client, None)
                        .is_some()
                {
                    self.left(room, client);
                }
            }
            // What comes later than the end is not handled, or there would be none.
            Command::Message { .. } if self.stopping.is_some() => {}
            Command::Message {
                room,
                event,
                permit,
            } => self.event(room, event, Some(permit)),
            Command::Leave {
                room,
                client,
                connection,
            } => {
                if self
                    .host
                    .transport_mut()
                    .leave(room, client, Some(connection))
                    .is_some()
                {
                    self.left(room, client);
                }
            }
            Command::List(reply) => {
                let _ = reply.send(RoomSummary::of_all(&self.host));
            }
            Command::Stop(reply) => {
                let until = self.host.clock().now() + LAST_WORK;
                self.stopping = Some(Stopping { reply, until });
            }
        }
    }

    fn join(
        &mut self,
        id: &str,
        token: Option<Box<str>>,
        connection: Connection,
    ) -> Result<(RoomKey, ClientId), Refusal> {
        if self.stopping.is_some() {
            return Err(Refusal {
                code: 1001,
                reason: "the server is stopping".into(),
            });
        }
        let room = match self.host.find(id) {
            Some(room) => room,
            None => self.open(id)?,
        };
        let joined = self.let_in(room, token, connection);
        // Also a room that has let nobody in is closed some time.
        self.note_whether_idle(room);
        Ok((room, joined?))
    }

    fn open(&mut self, id: &str) -> Result<RoomKey, Refusal> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| OpenError::TooManyRooms {
            limit: self.max_rooms,
        })?;
        let room = self.host.open(id, &self.module)?;
        self.rooms.insert(
            room,
            OpenRoom {
                _place: place,
                idle_until: None,
            },
        );
        self.untrimmed
            .push_back((self.host.clock().now() + SETTLED, room));
        Ok(room)
    }

    fn let_in(
        &mut self,
        room: RoomKey,
        token: Option<Box<str>>,
        connection: Connection,
    ) -> Result<ClientId, Refusal> {
        // Before anything happens, so that nobody is sent away for one who does not get in.
        if self.is_inbox_full(room) {
            return Err(EventError::InboxFull.into());
        }
        let client = self.host.transport_mut().client_id(room, token.as_deref());
        if let Some(older) = self.host.transport_mut().leave(room, client, None) {
            older.close(1008, "replaced by a newer connection", true);
            self.event(room, OwnedEvent::Disconnect(client), None);
        }
        self.host.handle_event(room, Event::Connect(client))?;
        self.given.entry(room).or_default().taken.push_back(None);
        self.host.transport_mut().join(room, client, connection);
        Ok(client)
    }

    /// Whether a client that joins, after an older connection of it has left, would find no place in
    /// the room's inbox.
    fn is_inbox_full(&self, room: RoomKey) -> bool {
        let limit = self.module.limits().max_inbox_events;
        let in_inbox = self
            .host
            .room(room)
            .map_or(0, |room| room.stats().waiting_events);
        let waiting = self.given.get(&room).map_or(0, |given| given.waiting.len());
        waiting > 0 || in_inbox + 2 > limit
    }

    /// Tells a room that a client has left, which has no connection any more.
    fn left(&mut self, room: RoomKey, client: ClientId) {
        self.event(room, OwnedEvent::Disconnect(client), None);
        self.note_whether_idle(room);
    }

    fn note_whether_idle(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        if let Some(until) = room.idle_until.take() {
            self.idle.remove(&(until, key));
        }
        if self.host.transport().count(key) == 0 {
            let until = self.host.clock().now() + self.room_idle;
            room.idle_until = Some(until);
            self.idle.insert((until, key));
        }
    }

    /// Gives a room an event; it waits if the room's inbox is full, or others wait already.
    fn event(&mut self, room: RoomKey, event: OwnedEvent, permit: Option<OwnedSemaphorePermit>) {
        let given = self.given.entry(room).or_default();
        if !given.waiting.is_empty() {
            given.waiting.push_back((event, permit));
            return;
        }
        match self.host.handle_event(room, event.as_event()) {
            Ok(()) => given.taken.push_back(permit),
            Err(EventError::InboxFull) => given.waiting.push_back((event, permit)),
            // A message may come after its client was closed, or the room.
            Err(error) => log::debug!("room {room} refused an event: {error}"),
        }
    }

    /// Gives back what was given for events that are over, and moves what waited into the inboxes as
    /// far as it fits; answers whether anything was moved.
    fn settle(&mut self) -> bool {
        let mut moved = false;
        let host = &mut self.host;
        self.given.retain(|room, Given { taken, waiting }| {
            let in_inbox = host
                .room(*room)
                .map_or(0, |room| room.stats().waiting_events);
            taken.drain(..taken.len().saturating_sub(in_inbox));
            while let Some((event, _)) = waiting.front() {
                match host.handle_event(*room, event.as_event()) {
                    Err(EventError::InboxFull) => break,
                    result => {
                        let permit = waiting.pop_front().and_then(|(_, permit)| permit);
                        match result {
                            Ok(()) => taken.push_back(permit),
                            Err(error) => log::debug!("room {room} refused an event: {error}"),
                        }
                        moved = true;
                    }
                }
            }
            !taken.is_empty() || !waiting.is_empty()
        });
        moved
    }

    /// Closes rooms that had no client for long enough.
    fn close_idle(&mut self) {
        /// Time between two looks at a room that is kept.
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let now = self.host.clock().now();
        while let Some((_, key)) = self
            .idle
            .first()
            .copied()
            .filter(|(until, _)| *until <= now)
        {
            self.idle.pop_first();
            // A timer may be set by an event that is not over.
            let has_timer = self.host.room(key).is_some_and(|room| {
                room.poll_timeout().is_some() || room.stats().waiting_events > 0
            });
            let idle_until =
                (has_timer && self.keep_timers).then(|| now + self.room_idle.max(LOOK_AGAIN));
            if let Some(room) = self.rooms.get_mut(&key) {
                room.idle_until = idle_until;
            }
            match idle_until {
                Some(until) => drop(self.idle.insert((until, key))),
                None => self.host.close(key),
            }
        }
    }

    /// Gives back the memory that rooms turned out not to use, one room at a time.
    fn trim(&mut self) {
        let now = self.host.clock().now();
        if let Some((_, room)) = self.untrimmed.front().copied().filter(|(at, _)| *at <= now) {
            self.untrimmed.pop_front();
            self.host.trim(room);
        }
    }

    /// Closes the clients of rooms that are closed, and forgets these.
    fn see_off_closed(&mut self) {
        while let Some(room) = self.host.poll_closed() {
            let (code, reason) = match &room.fault {
                Some(fault) => {
                    log::warn!("room {:?} is closed: {fault}", room.id);
                    match room.stats.faults {
                        0 | 1 => (1011, fault.to_string()),
                        faults => (1011, format!("after {faults} faults: {fault}")),
                    }
                }
                None => {
                    log::debug!("room {:?} is closed", room.id);
                    (1001, "the room is closed".into())
                }
            };
            self.host
                .transport_mut()
                .close_room(room.key, code, &reason);
            self.given.remove(&room.key);
            if let Some(until) = self
                .rooms
                .remove(&room.key)
                .and_then(|room| room.idle_until)
            {
                self.idle.remove(&(until, room.key));
            }
        }
    }

    /// Closes all clients, after what is queued for them.
    fn stop(&mut self, stopping: Stopping) {
        let rooms: Vec<_> = self.host.rooms().map(|(key, _)| key).collect();
        for room in rooms {
            self.host
                .transport_mut()
                .close_room(room, 1001, "the server is stopping");
        }
        let _ = stopping.reply.send(());
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let code = match error {
            OpenError::TooManyRooms { .. } | OpenError::IdTaken => 1013,
            OpenError::IdTooLong { .. } => 1008,
            _ => 1011,
        };
        Self {
            code,
            reason: error.to_string(),
        }
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        Self {
            code: 1013,
            reason: error.to_string(),
        }
    }
}
