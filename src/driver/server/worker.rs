//! The threads that run rooms, each with a host, a module and an interpreter of its own.

use super::{
    config::{ServeError, ServerConfig},
    members::{Connection, Members},
    rooms::RoomFigures,
};
use crate::{
    Budget, ClientId, Clock, EventError, Host, HostLimits, Instant, Module, OpenError, RoomKey,
    abi::AbiVersion,
    driver::tokio::{FUEL_PER_POLL, OwnedEvent, TokioClock, Wake, wait},
};
use core::time::Duration;
use hashbrown::HashMap;
use std::{
    boxed::Box,
    collections::VecDeque,
    format,
    hash::{BuildHasher, RandomState},
    string::{String, ToString},
    thread,
    vec::Vec,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// The workers of a server.
pub(super) struct Workers {
    commands: Vec<mpsc::Sender<Command>>,
    abi: AbiVersion,
    hasher: RandomState,
}

/// What a worker is told.
pub(super) enum Command {
    Join {
        room: Box<str>,
        token: Option<Box<str>>,
        connection: Connection,
        reply: oneshot::Sender<Result<(RoomKey, ClientId), Refusal>>,
    },
    Message {
        room: RoomKey,
        event: OwnedEvent,
        /// What the connection may have on its way; given back when the room has taken it.
        permit: OwnedSemaphorePermit,
    },
    Leave {
        room: RoomKey,
        client: ClientId,
        connection: u64,
    },
    List(oneshot::Sender<Vec<RoomFigures>>),
    Stop(oneshot::Sender<()>),
}

/// Why a client does not get into a room, as a close code and a reason.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
}

/// Commands that wait for a worker.
const COMMANDS: usize = 1024;

impl Workers {
    pub(super) fn start(config: &ServerConfig) -> Result<Self, ServeError> {
        let seed = config.seed()?;
        let mut commands = Vec::new();
        let mut abi = AbiVersion::V0_2;
        for number in 0..config.workers.max(1) {
            let module = config.load()?;
            abi = module.abi();
            let (sender, receiver) = mpsc::channel(COMMANDS);
            let config = config.clone();
            let seed = seed.wrapping_add((number as u64) << 32);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(ServeError::Start)?;
            thread::Builder::new()
                .name(format!("rooms-{number}"))
                .spawn(move || {
                    runtime.block_on(async { Worker::new(&config, module, seed).run(receiver).await })
                })
                .map_err(ServeError::Start)?;
            commands.push(sender);
        }
        Ok(Self { commands, abi, hasher: RandomState::new() })
    }

    pub(super) const fn abi(&self) -> AbiVersion {
        self.abi
    }

    /// The worker that has, or would have, the room of this id.
    pub(super) fn of_room(&self, id: &str) -> mpsc::Sender<Command> {
        let place = self.hasher.hash_one(id) % self.commands.len() as u64;
        self.commands[place as usize].clone()
    }

    /// All rooms, by their ids.
    pub(super) async fn list(&self) -> Vec<RoomFigures> {
        let mut rooms = Vec::new();
        for worker in &self.commands {
            let (reply, answer) = oneshot::channel();
            if worker.send(Command::List(reply)).await.is_ok() {
                rooms.extend(answer.await.unwrap_or_default());
            }
        }
        rooms.sort_unstable_by(|a: &RoomFigures, b| a.id.cmp(&b.id));
        rooms
    }

    /// Lets each worker handle what it was given, and close its clients.
    pub(super) async fn stop(&self) {
        for worker in &self.commands {
            let (reply, answer) = oneshot::channel();
            if worker.send(Command::Stop(reply)).await.is_ok() {
                let _ = answer.await;
            }
        }
    }
}

struct Worker {
    host: Host<TokioClock, Members>,
    module: Module,
    /// Events that found their room's inbox full, in order; everything else for the room waits
    /// behind them. Their number is bounded by what each connection may have on its way.
    backlog: HashMap<RoomKey, VecDeque<Pending>>,
    /// Rooms that lost their last client, with the time to look at them again; earliest first,
    /// since all wait for the same time.
    idle: VecDeque<(Instant, RoomKey)>,
    room_idle: Duration,
    keep_timers: bool,
    stopping: Option<oneshot::Sender<()>>,
}

/// An event, and what to give back when the room has taken it.
type Pending = (OwnedEvent, Option<OwnedSemaphorePermit>);

impl Worker {
    fn new(config: &ServerConfig, module: Module, seed: u64) -> Self {
        let limits = HostLimits { rooms: config.rooms.div_ceil(config.workers.max(1)) };
        Self {
            host: Host::with_limits(TokioClock::new(), Members::default(), limits).with_seed(seed),
            module,
            backlog: HashMap::new(),
            idle: VecDeque::new(),
            room_idle: config.room_idle,
            keep_timers: config.keep_timers,
            stopping: None,
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let wake_at = self.work();
            if self.stopping.is_some() && wake_at.is_none_or(|at| at > self.host.clock().now()) {
                self.stop();
                return;
            }
            let wake_at = wake_at.into_iter().chain(self.idle.front().map(|(at, _)| *at)).min();
            match wait(&mut commands, wake_at, self.host.clock(), core::future::pending()).await {
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
        while let Some(room) = self.host.poll_closed() {
            self.backlog.remove(&room.key);
            let (code, reason) = match &room.fault {
                Some(fault) => (1011, fault.to_string()),
                None => (1001, "the room is closed".into()),
            };
            match &room.fault {
                Some(fault) => log::warn!("room {:?} is closed: {fault}", room.id),
                None => log::debug!("room {:?} is closed", room.id),
            }
            self.host.transport_mut().close_room(room.key, code, &reason);
        }
        self.close_idle();
        if self.retry_backlog() {
            wake_at = Some(Instant::ZERO);
        }
        wake_at
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join { room, token, connection, reply } => {
                let joined = self.join(&room, token, connection);
                // Whoever has gone meanwhile is taken out again.
                if let Err(Ok((room, client))) = reply.send(joined)
                    && self.host.transport_mut().leave(room, client, None).is_some()
                {
                    self.left(room, client);
                }
            }
            Command::Message { room, event, permit } => self.event(room, event, Some(permit)),
            Command::Leave { room, client, connection } => {
                if self.host.transport_mut().leave(room, client, Some(connection)).is_some() {
                    self.left(room, client);
                }
            }
            Command::List(reply) => {
                let _ = reply.send(RoomFigures::of_all(&self.host));
            }
            Command::Stop(reply) => self.stopping = Some(reply),
        }
    }

    fn join(
        &mut self,
        id: &str,
        token: Option<Box<str>>,
        connection: Connection,
    ) -> Result<(RoomKey, ClientId), Refusal> {
        if self.stopping.is_some() {
            return Err(Refusal { code: 1001, reason: "the server is stopping".into() });
        }
        let open = self.host.find(id).filter(|key| self.host.room(*key).is_some_and(|r| !r.is_closed()));
        let room = match open {
            Some(room) => room,
            None => self.host.open(id, &self.module)?,
        };
        let client = self.host.transport_mut().client_id(room, token);
        if let Some(older) = self.host.transport_mut().leave(room, client, None) {
            older.close(1008, "replaced by a newer connection", true);
            self.left(room, client);
        }
        // The room may still have the same client's older connection to see off.
        if self.backlog.contains_key(&room) {
            self.event(room, OwnedEvent::Connect(client), None);
        } else {
            self.host.handle_event(room, OwnedEvent::Connect(client).as_event())?;
        }
        self.host.transport_mut().join(room, client, connection);
        Ok((room, client))
    }

    /// Tells a room that a client has left, which has no connection any more.
    fn left(&mut self, room: RoomKey, client: ClientId) {
        self.event(room, OwnedEvent::Disconnect(client), None);
        if self.host.transport().is_empty(room) {
            let look_at = self.host.clock().now() + self.room_idle;
            self.idle.push_back((look_at, room));
        }
    }

    /// Gives a room an event; it waits if the room's inbox is full, or others wait already.
    fn event(&mut self, room: RoomKey, event: OwnedEvent, permit: Option<OwnedSemaphorePermit>) {
        if let Some(waiting) = self.backlog.get_mut(&room) {
            waiting.push_back((event, permit));
            return;
        }
        match self.host.handle_event(room, event.as_event()) {
            Err(EventError::InboxFull) => {
                self.backlog.entry(room).or_default().push_back((event, permit));
            }
            Ok(()) | Err(EventError::UnknownRoom | EventError::Closed) => {}
            Err(error) => log::warn!("room {room} refused an event: {error}"),
        }
    }

    /// Moves what waited into the inboxes as far as it fits; answers whether anything did.
    fn retry_backlog(&mut self) -> bool {
        let mut moved = false;
        let host = &mut self.host;
        self.backlog.retain(|room, waiting| {
            while let Some((event, _)) = waiting.front() {
                match host.handle_event(*room, event.as_event()) {
                    Err(EventError::InboxFull) => return true,
                    Ok(()) => moved = true,
                    Err(error) => log::debug!("room {room} refused an event: {error}"),
                }
                waiting.pop_front();
            }
            false
        });
        moved
    }

    /// Closes rooms that had no client for long enough.
    fn close_idle(&mut self) {
        let now = self.host.clock().now();
        while let Some((_, room)) = self.idle.front().copied().filter(|(at, _)| *at <= now) {
            self.idle.pop_front();
            // A room that got a client and lost it again has a later entry, too.
            let waits_longer = self.idle.iter().any(|(_, later)| *later == room);
            if waits_longer || !self.host.transport().is_empty(room) {
                continue;
            }
            let has_timer = self.host.room(room).is_some_and(|room| room.poll_timeout().is_some());
            if has_timer && self.keep_timers {
                self.idle.push_back((now + self.room_idle, room));
            } else {
                self.host.close(room);
            }
        }
        while let Some(room) = self.host.poll_closed() {
            self.host.transport_mut().close_room(room.key, 1001, "the room is closed");
        }
    }

    /// Closes all clients, after what is queued for them.
    fn stop(&mut self) {
        let rooms: Vec<_> = self.host.rooms().map(|(key, _)| key).collect();
        for room in rooms {
            self.host.transport_mut().close_room(room, 1001, "the server is stopping");
        }
        if let Some(stopped) = self.stopping.take() {
            let _ = stopped.send(());
        }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let code = match error {
            OpenError::TooManyRooms { .. } | OpenError::IdTaken => 1013,
            OpenError::IdTooLong { .. } => 1008,
            _ => 1011,
        };
        Self { code, reason: error.to_string() }
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        Self { code: 1013, reason: error.to_string() }
    }
}
