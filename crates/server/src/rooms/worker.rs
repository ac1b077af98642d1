//! A worker: a task that runs rooms, with a host, a module and an interpreter of its own.
//!
//! Workers share the runtime's threads with the connections, so that a message passes through the
//! server without waking another thread. A worker yields after about a millisecond of work.

use crate::{
    config::ServerConfig,
    http::RoomSummary,
    rate_limit::LogLimiter,
    rooms::{
        clients::Clients,
        command::{Command, JoinRejection, MAX_QUEUED_COMMANDS, REPLACED, STOPPING},
    },
    ws::send_queue::ClientSender,
};
use core::time::Duration;
use hashbrown::HashMap;
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Escaped, Event, EventError, Host, HostLimits, Instant, Module,
    OpenError, OwnedEvent, RoomKey, WithSources,
    driver::tokio::{TokioClock, Wake, wait},
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub(super) struct Worker {
    host: Host<TokioClock, Clients>,
    module: Module,
    rooms: HashMap<RoomKey, OpenRoom>,
    /// Rooms without clients, by the time to close them: those that have an `idle_until`.
    idle: BTreeSet<(Instant, RoomKey)>,
    /// New rooms, by the time to trim their memory. In order, since the delay is constant.
    untrimmed: VecDeque<(Instant, RoomKey)>,
    /// Only rooms with events in their inbox or backlog have an entry.
    queues: HashMap<RoomKey, RoomQueue>,
    /// One for each open room, shared by all workers.
    room_permits: Arc<Semaphore>,
    max_rooms: usize,
    room_idle: Duration,
    keep_timers: bool,
    stopping: Option<Stopping>,
    /// For rooms that cannot be opened, which clients may try at will.
    log: LogLimiter,
}

struct OpenRoom {
    /// Returned when the room is closed.
    _permit: OwnedSemaphorePermit,
    idle_until: Option<Instant>,
}

/// The credits of events on their way through a room; see [`Command::Message`].
struct RoomQueue {
    /// How many of the room's events were over when credits were returned last.
    events_handled: u64,
    /// One for each accepted event that is not over, in order; none for events of the worker's own.
    credits: VecDeque<Option<OwnedSemaphorePermit>>,
    /// Events that found the inbox full, in order; later events queue behind them. Bounded:
    /// messages by their connections' credits, joins are rejected while there is a backlog.
    backlog: VecDeque<(OwnedEvent, Option<OwnedSemaphorePermit>)>,
}

struct Stopping {
    reply: oneshot::Sender<()>,
    /// When to stop even if rooms still have work.
    until: Instant,
}

/// Fuel between two yields to other tasks: about a millisecond of work.
const FUEL_PER_POLL: u64 = 800_000;

/// Time for rooms to handle queued events at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Time after which a room has used most memory it will use; short-lived rooms are closed before.
const TRIM_DELAY: Duration = Duration::from_secs(2);

impl Worker {
    pub(super) fn new(
        config: &ServerConfig,
        module: Module,
        room_permits: Arc<Semaphore>,
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
            queues: HashMap::new(),
            room_permits,
            max_rooms: config.max_rooms,
            room_idle: config.room_idle,
            keep_timers: config.keep_timers,
            stopping: None,
            log: LogLimiter::new(),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
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
                Wake::Command(command) => self.handle_command(command),
                Wake::Time | Wake::Writable => {}
                Wake::Ended => return,
            }
            // Batch the commands that have arrived meanwhile.
            for _ in 0..MAX_QUEUED_COMMANDS {
                match commands.try_recv() {
                    Ok(command) => self.handle_command(command),
                    Err(_) => break,
                }
            }
        }
    }

    /// Does one round of work; returns when to continue.
    fn work(&mut self) -> Option<Instant> {
        let mut wake_at = self.host.poll(Budget::fuel(FUEL_PER_POLL));
        for (room, client) in self.host.transport_mut().take_too_slow() {
            log::info!("disconnected client {client} of room {room}: too slow");
            self.on_disconnect(room, client);
            wake_at = Some(Instant::ZERO);
        }
        self.close_idle();
        self.trim();
        self.reap_closed();
        if self.drain_backlogs() {
            wake_at = Some(Instant::ZERO);
        }
        wake_at
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Join {
                room,
                token,
                sender,
                reply,
            } => {
                let joined = self.join(&room, token, sender);
                // The connection closed while joining: undo the join.
                if let Err(Ok((room, client))) = reply.send(joined) {
                    self.leave(room, client, None);
                }
            }
            // Ignore messages after shutdown began, or it might never finish.
            Command::Message { .. } if self.stopping.is_some() => {}
            Command::Message {
                room,
                event,
                credit,
            } => self.deliver(room, event, Some(credit)),
            Command::Leave {
                room,
                client,
                connection_id,
            } => self.leave(room, client, Some(connection_id)),
            Command::List(reply) => {
                let _ = reply.send(RoomSummary::of_all(&self.host));
            }
            Command::Stop(reply) => {
                let until = self.host.clock().now() + SHUTDOWN_GRACE;
                self.stopping = Some(Stopping { reply, until });
            }
        }
    }

    fn join(
        &mut self,
        id: &str,
        token: Option<Box<str>>,
        sender: ClientSender,
    ) -> Result<(RoomKey, ClientId), JoinRejection> {
        if self.stopping.is_some() {
            return Err(JoinRejection::stopping());
        }
        let room = match self.host.find(id) {
            Some(room) => room,
            None => self.open(id).map_err(|error| self.reject(id, &error))?,
        };
        let joined = self.admit(room, token, sender);
        // Also if the join was rejected: a new room without clients must be closed eventually.
        self.update_idle_deadline(room);
        Ok((room, joined?))
    }

    fn open(&mut self, id: &str) -> Result<RoomKey, OpenError> {
        let permit = self.room_permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| OpenError::TooManyRooms {
            limit: self.max_rooms,
        })?;
        let room = self.host.open(id, &self.module)?;
        self.rooms.insert(
            room,
            OpenRoom {
                _permit: permit,
                idle_until: None,
            },
        );
        self.untrimmed
            .push_back((self.host.clock().now() + TRIM_DELAY, room));
        Ok(room)
    }

    /// Rejects a client whose room cannot be opened, and logs why.
    fn reject(&self, id: &str, error: &OpenError) -> JoinRejection {
        let code = match error {
            OpenError::TooManyRooms { .. } | OpenError::IdTaken => 1013,
            OpenError::IdTooLong { .. } => 1008,
            _ => 1011,
        };
        let reason = WithSources(error);
        if self.log.allows() {
            let id = Escaped::new(id).at_most(256);
            log::warn!("cannot open room {id:?}: {reason}");
        }
        JoinRejection::new(code, reason.to_string())
    }

    fn admit(
        &mut self,
        room: RoomKey,
        token: Option<Box<str>>,
        sender: ClientSender,
    ) -> Result<ClientId, JoinRejection> {
        // Check capacity first, or we would drop the old connection and then reject the new one.
        if self.is_inbox_full(room) {
            return Err(EventError::InboxFull.into());
        }
        let client = self.host.transport_mut().client_id(room, token.as_deref());
        if let Some(older) = self.host.transport_mut().leave(room, client, None) {
            older.close(1008, REPLACED, true);
            self.disconnect(room, client);
        }
        self.host.enqueue(room, Event::Connect(client))?;
        self.queue(room).credits.push_back(None);
        self.host.transport_mut().join(room, client, sender);
        Ok(client)
    }

    /// Whether the inbox lacks space for a connect and the disconnect of an older connection.
    fn is_inbox_full(&self, room: RoomKey) -> bool {
        let limit = self.module.limits().max_inbox_events;
        let has_backlog = self
            .queues
            .get(&room)
            .is_some_and(|queue| !queue.backlog.is_empty());
        has_backlog || self.inbox_len(room) + 2 > limit
    }

    fn inbox_len(&self, room: RoomKey) -> usize {
        self.host
            .room(room)
            .map_or(0, |room| room.stats().waiting_events)
    }

    /// Removes a client; if `connection_id` is given, only while that is its connection.
    fn leave(&mut self, room: RoomKey, client: ClientId, connection_id: Option<u64>) {
        let clients = self.host.transport_mut();
        if clients.leave(room, client, connection_id).is_some() {
            self.on_disconnect(room, client);
        }
    }

    /// Delivers the disconnect of a client that was removed from the transport.
    fn on_disconnect(&mut self, room: RoomKey, client: ClientId) {
        self.disconnect(room, client);
        self.update_idle_deadline(room);
    }

    fn disconnect(&mut self, room: RoomKey, client: ClientId) {
        self.host.transport_mut().note_leaving(room, client);
        self.deliver(room, OwnedEvent::Disconnect(client), None);
    }

    /// Starts a room's idle timeout if it has no clients, and else cancels it.
    fn update_idle_deadline(&mut self, key: RoomKey) {
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

    /// Delivers an event to a room's inbox, or to its backlog if the inbox is full.
    fn deliver(&mut self, room: RoomKey, event: OwnedEvent, credit: Option<OwnedSemaphorePermit>) {
        let queue = self.queue(room);
        if !queue.backlog.is_empty() {
            queue.backlog.push_back((event, credit));
            return;
        }
        match self.host.enqueue(room, event.as_event()) {
            Ok(()) => self.queue(room).credits.push_back(credit),
            Err(EventError::InboxFull) => self.queue(room).backlog.push_back((event, credit)),
            // A message may arrive after its client or room was closed.
            Err(error) => log::debug!("room {room} rejected an event: {error}"),
        }
    }

    fn queue(&mut self, room: RoomKey) -> &mut RoomQueue {
        let host = &self.host;
        // Without an entry, all events that the room accepted are over.
        self.queues.entry(room).or_insert_with(|| RoomQueue {
            events_handled: events_handled(host, room),
            credits: VecDeque::new(),
            backlog: VecDeque::new(),
        })
    }

    /// Returns the credits of handled events, and moves backlogs into inboxes as far as they fit;
    /// returns whether any event was moved.
    fn drain_backlogs(&mut self) -> bool {
        let mut moved = false;
        let host = &mut self.host;
        self.queues.retain(|room, queue| {
            let RoomQueue {
                credits, backlog, ..
            } = queue;
            let handled = events_handled(host, *room);
            let newly_handled = handled.saturating_sub(queue.events_handled);
            queue.events_handled = handled;
            let returned = usize::try_from(newly_handled).unwrap_or(usize::MAX);
            credits.drain(..returned.min(credits.len()));
            while let Some((event, _)) = backlog.front() {
                match host.enqueue(*room, event.as_event()) {
                    Err(EventError::InboxFull) => break,
                    result => {
                        let credit = backlog.pop_front().and_then(|(_, credit)| credit);
                        match result {
                            Ok(()) => credits.push_back(credit),
                            Err(error) => log::debug!("room {room} rejected an event: {error}"),
                        }
                        moved = true;
                    }
                }
            }
            !credits.is_empty() || !backlog.is_empty()
        });
        moved
    }

    /// Closes rooms whose idle timeout has passed.
    fn close_idle(&mut self) {
        /// Shortest time between two checks of a room that is kept for its timer.
        const MIN_RECHECK: Duration = Duration::from_millis(100);
        let now = self.host.clock().now();
        while let Some((_, key)) = self
            .idle
            .first()
            .copied()
            .filter(|(until, _)| *until <= now)
        {
            self.idle.pop_first();
            // An event that waits or is in progress may set a timer.
            let room = self.host.room(key);
            let has_timer =
                room.is_some_and(|room| room.poll_timeout().is_some() || room.is_runnable());
            let idle_until =
                (has_timer && self.keep_timers).then(|| now + self.room_idle.max(MIN_RECHECK));
            if let Some(room) = self.rooms.get_mut(&key) {
                room.idle_until = idle_until;
            }
            match idle_until {
                Some(until) => drop(self.idle.insert((until, key))),
                // Fails if the room has ended by itself.
                None => drop(self.host.close(key)),
            }
        }
    }

    /// Returns a room's unused memory to the operating system; one room per round.
    fn trim(&mut self) {
        let now = self.host.clock().now();
        if let Some((_, room)) = self.untrimmed.front().copied().filter(|(at, _)| *at <= now) {
            self.untrimmed.pop_front();
            // Fails if the room has ended.
            let _ = self.host.trim(room);
        }
    }

    /// Closes the clients of closed rooms, and removes those rooms.
    fn reap_closed(&mut self) {
        while let Some(room) = self.host.poll_closed() {
            let (code, reason) = match &room.fault {
                Some(fault) => {
                    let fault = WithSources(fault);
                    log::warn!("closed room {:?}: {fault}", Escaped::new(&room.id));
                    match room.stats.faults {
                        0 | 1 => (1011, fault.to_string()),
                        faults => (1011, format!("after {faults} faults: {fault}")),
                    }
                }
                None => {
                    log::debug!("closed room {:?}", Escaped::new(&room.id));
                    (1001, "the room is closed".into())
                }
            };
            self.host
                .transport_mut()
                .close_room(room.key, code, &reason);
            self.queues.remove(&room.key);
            if let Some(until) = self
                .rooms
                .remove(&room.key)
                .and_then(|room| room.idle_until)
            {
                self.idle.remove(&(until, room.key));
            }
        }
    }

    /// Closes all clients, after draining their queues.
    fn stop(&mut self, stopping: Stopping) {
        let rooms: Vec<_> = self.host.rooms().map(|(key, _)| key).collect();
        let (code, reason) = STOPPING;
        for room in rooms {
            self.host.transport_mut().close_room(room, code, reason);
        }
        let _ = stopping.reply.send(());
    }
}

fn events_handled(host: &Host<TokioClock, Clients>, room: RoomKey) -> u64 {
    host.room(room)
        .map_or(0, |room| room.stats().events_handled)
}

impl From<EventError> for JoinRejection {
    fn from(error: EventError) -> Self {
        Self::new(1013, error.to_string())
    }
}
