//! The rooms of a worker: a host, with a module and an interpreter of its own.

mod closing;
mod journaled;
mod moving;
mod transfer;
#[cfg(feature = "board")]
pub(crate) use self::transfer::{file_of, read_file};
mod upgrades;

pub(super) use self::transfer::Import;

use self::{
    journaled::{JournalOptions, Trial},
    moving::Release,
    transfer::Transfers,
    upgrades::Upgrades,
};
use crate::{
    config::{ModuleLoader, ServerConfig},
    directory::Directory,
    http::RoomSummary,
    journal::{JournalError, ModuleUpgrade, UnfinishedRoom},
    log_limit::{KeyedLogLimiter, LogLimiter},
    metrics::Metrics,
    rooms::{
        AdminError, BEHIND, Busy, Claim, Closed, FailedRooms, Hello, JoinRejection, MOVED,
        Released, RoomFilter, Rooms, TransferReply,
        clients::{ClientLimits, Clients},
        handover::Listing,
        hibernation::Hibernation,
        inbox_queue::InboxQueue,
        journaling::Journaling,
        load::{GroupLoad, ServerLoad},
        restorations::Restorations,
        trials::Trials,
        watches::Watch,
        worker::{Worker, poll_timer},
    },
    ws::connection::ConnectionKey,
};
use core::{future::poll_fn, pin::pin, time::Duration};
use hashbrown::{HashMap, HashSet};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Escaped, Event, EventError, FaultPolicy, Host, HostLimits, Instant,
    MessagePayload, Module, OpenError, Room, RoomKey, UnknownRoom, WithSources,
    driver::tokio::TokioClock,
};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time,
};

/// The rooms of a worker.
pub(super) struct HostedRooms {
    host: Host<TokioClock, Clients>,
    options: HostedOptions,
    rooms: HashMap<RoomKey, OpenRoom>,
    /// Rooms without clients, by the time to close them: those that have an `idle_until`.
    idle: BTreeSet<(Instant, RoomKey)>,
    /// New rooms, by the time to trim their memory. In order, since the delay is constant.
    untrimmed: VecDeque<(Instant, RoomKey)>,
    hibernation: Hibernation,
    restorations: Restorations,
    /// Rooms that were just restored.
    on_trial: Vec<Trial>,
    upgrades: Upgrades,
    transfers: Transfers,
    /// Rooms that go to another node, and releases that are not durable.
    releases: VecDeque<Release>,
    /// Rooms whose `is_busy` is set.
    busy: Vec<RoomKey>,
    failed: FailedRooms,
    /// Set at shutdown: when to stop even if rooms still have work.
    stop_at: Option<Instant>,
    /// Set when all rooms were saved at shutdown: when to stop waiting for the journal.
    saved_until: Option<Instant>,
    /// Why the journal has ended, and so the rooms.
    failure: Option<JournalError>,
    log: RoomsLog,
}

/// Limits of the lines that clients and guests can cause at will.
struct RoomsLog {
    rejected: LogLimiter,
    failed: KeyedLogLimiter,
}

/// What a worker needs to open rooms.
pub(super) struct HostedOptions {
    module: Module,
    loader: ModuleLoader,
    upgrade: ModuleUpgrade,
    shared: SharedByWorkers,
    max_rooms: usize,
    room_idle: Duration,
    /// Those that are not closed because they have no clients.
    open_rooms: HashSet<Box<str>>,
    keep_timers: bool,
    hibernate_after: Option<Duration>,
    max_tokens: usize,
    /// None if rooms are in memory only.
    journal: Option<JournalOptions>,
    /// None if all rooms are here.
    directory: Option<Arc<dyn Directory>>,
}

/// What all workers have in common.
pub(super) struct SharedByWorkers {
    /// One for each open room.
    pub(super) room_permits: Arc<Semaphore>,
    /// Lets clients go on one after the other that may be why nodes have ended.
    pub(super) trials: Trials,
    /// Set while no new clients are accepted.
    pub(super) draining: Arc<AtomicBool>,
}

struct OpenRoom {
    /// Returned when the room is closed.
    _permit: OwnedSemaphorePermit,
    idle_until: Option<Instant>,
    inbox: InboxQueue,
    /// Whether events may be in its inbox, or wait for it.
    is_busy: bool,
    /// Fuel that it had used when that was asked for last.
    fuel_measured: u64,
}

/// When the rooms have their next turn.
enum Next {
    Now,
    At(time::Instant),
    /// They have stopped, by themselves if there is an error.
    Never(Option<JournalError>),
}

/// How long a turn takes before the connections have theirs. Fuel counts, too, so that the clock need not
/// be exact.
const TURN: Duration = Duration::from_millis(1);
const FUEL_PER_TURN: u64 = 800_000;

/// Time for rooms to handle queued events at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Time after which a room has used most memory it will use; short-lived rooms are closed before.
const TRIM_DELAY: Duration = Duration::from_secs(2);

/// Gives the rooms their turns until they have stopped.
pub(super) async fn run(worker: Rc<Worker<HostedRooms>>) -> io::Result<()> {
    let mut timer = pin!(time::sleep(TURN));
    let journal = worker.with(|rooms| rooms.journal_notify());
    loop {
        match worker.with(HostedRooms::turn) {
            Next::Now => yield_now().await,
            Next::At(deadline) => tokio::select! {
                biased;
                () = worker.wait() => {}
                () = journal.notified() => {}
                () = poll_fn(|cx| poll_timer(timer.as_mut(), deadline, cx)) => {}
            },
            Next::Never(None) => return Ok(()),
            Next::Never(Some(error)) => return Err(io::Error::other(error)),
        }
    }
}

impl HostedOptions {
    pub(super) fn new(config: &ServerConfig, module: Module, shared: SharedByWorkers) -> Self {
        Self {
            module,
            loader: config.loader(),
            upgrade: config.upgrade,
            shared,
            max_rooms: config.max_rooms,
            room_idle: config.room_idle,
            open_rooms: config
                .open_rooms
                .iter()
                .map(|id| id.as_str().into())
                .collect(),
            keep_timers: config.keep_timers,
            hibernate_after: config.hibernate_after,
            max_tokens: config.max_tokens,
            journal: JournalOptions::new(config),
            directory: config.directory.clone(),
        }
    }
}

impl HostedRooms {
    /// Of the worker of this number. Tokens are hashed with `secret`; `unfinished` are the rooms to restore.
    pub(super) fn new(
        worker: usize,
        options: HostedOptions,
        clients: ClientLimits,
        secret: [u8; 32],
        seed: u64,
        on_fault: FaultPolicy,
        unfinished: Vec<UnfinishedRoom>,
    ) -> Self {
        let limits = HostLimits::new().max_rooms(options.max_rooms);
        let journaling = options.journal.as_ref();
        let journaling = journaling.map(|options| Journaling::new(options.journal.clone(), worker));
        let clients = Clients::new(clients, secret, journaling);
        let host = Host::with_limits(TokioClock::new(), clients, limits)
            .with_seed(seed)
            .with_fault_policy(on_fault);
        let hibernation = Hibernation::new(options.hibernate_after);
        let upgrade = options.upgrade;
        Self {
            host,
            options,
            rooms: HashMap::new(),
            idle: BTreeSet::new(),
            untrimmed: VecDeque::new(),
            hibernation,
            restorations: Restorations::new(unfinished),
            on_trial: Vec::new(),
            upgrades: Upgrades::new(upgrade),
            transfers: Transfers::default(),
            releases: VecDeque::new(),
            busy: Vec::new(),
            failed: FailedRooms::default(),
            stop_at: None,
            saved_until: None,
            failure: None,
            log: RoomsLog {
                rejected: LogLimiter::new(),
                failed: KeyedLogLimiter::new(),
            },
        }
    }

    /// Notified when the journal has done something.
    fn journal_notify(&self) -> Arc<Notify> {
        let journaling = self.host.transport().journaling.as_ref();
        journaling.map_or_else(Arc::default, Journaling::notify)
    }

    /// Runs the rooms for a while, and sends what they have sent.
    fn turn(&mut self) -> Next {
        let now = self.host.clock().now();
        let until = now + TURN;
        self.host.transport_mut().now = now;
        self.handle_journal();
        self.host.transport_mut().metrics.begin_turn();
        self.host.poll(Budget::fuel(FUEL_PER_TURN).and_until(until));
        let now = self.host.clock().now();
        self.end_trials();
        for (room, client) in self.host.transport_mut().take_removed(now) {
            self.disconnect(room, client);
            self.update_idle_deadline(room);
            if self.host.transport().log(room).is_some() {
                self.hibernation.leave(room);
            }
        }
        self.close_idle(now);
        self.trim(now);
        let is_attended = Clients::is_attended;
        self.hibernation.turn(&mut self.host, now, is_attended);
        self.restore(until);
        self.end_expired_holds(now);
        self.send_replies();
        self.upgrade_outdated(until);
        self.release_rooms(until);
        self.save_due(now);
        self.reap_closed();
        self.end_watches();
        self.update_inboxes();
        self.host.transport_mut().submit();
        self.end_releases();
        let has_flushed = self.host.transport_mut().flush(TURN);
        let wake_at = self.host.poll_timeout();
        let has_work = !has_flushed
            || self.host.has_closed()
            || self.restorations.has_work()
            || self.restorations.has_given_up()
            || self.hibernation.has_work()
            || !self.on_trial.is_empty()
            || self.upgrades.has_work()
            || self.is_releasing()
            || wake_at.is_some_and(|at| at <= now);
        if let Some(error) = self.failure.take() {
            // In a cluster another node goes on with them.
            let (code, reason) = match self.options.directory {
                Some(_) => MOVED,
                None => (1011, "the storage has failed"),
            };
            self.host.transport_mut().discard_held(code, reason);
            self.close_all(code, reason);
            // Nobody joins any more.
            self.stop_at = Some(now);
            return Next::Never(Some(error));
        }
        match self.stop_at {
            Some(stop_at) if !has_work || now >= stop_at => self.shut_down(now),
            _ if has_work => Next::Now,
            stop_at => {
                let idle = self.idle.first().map(|(at, _)| *at);
                let untrimmed = self.untrimmed.front().map(|(at, _)| *at);
                let hibernation = self.hibernation.next();
                let unsaved = self.next_save(now);
                let unfinished = self.next_wake(now);
                let session = self.host.transport().next_end();
                let hold = self.transfers.next_end();
                let deadlines = [
                    wake_at,
                    idle,
                    untrimmed,
                    hibernation,
                    unsaved,
                    unfinished,
                    session,
                    hold,
                    stop_at,
                ];
                let deadlines = deadlines.into_iter().flatten();
                let deadline = deadlines.min().unwrap_or(Instant::MAX);
                Next::At(self.host.clock().at(deadline))
            }
        }
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, OpenError> {
        let permit = self.options.shared.room_permits.clone().try_acquire_owned();
        permit.map_err(|_| OpenError::TooManyRooms {
            limit: self.options.max_rooms,
        })
    }

    fn open(&mut self, id: &str) -> Result<RoomKey, OpenError> {
        let permit = self.permit()?;
        let room = self.host.open(id, &self.options.module)?;
        self.add(room, permit);
        Ok(room)
    }

    /// Adds a room that is in the host.
    fn add(&mut self, room: RoomKey, permit: OwnedSemaphorePermit) {
        let opened = self.host.room(room);
        let inbox = opened.map(InboxQueue::of).unwrap_or_default();
        // One that was stored has used some elsewhere.
        let fuel_measured = opened.map_or(0, |room| room.stats().fuel_used);
        self.rooms.insert(
            room,
            OpenRoom {
                _permit: permit,
                idle_until: None,
                inbox,
                is_busy: false,
                fuel_measured,
            },
        );
        // One that was being restored meanwhile.
        self.upgrades.check(room);
        let now = self.host.clock().now();
        self.untrimmed.push_back((now + TRIM_DELAY, room));
        self.hibernation.watch(room, now);
    }

    /// Rejects a client whose room cannot be opened, and logs why.
    fn reject(&self, id: &str, error: &OpenError) -> JoinRejection {
        let code = match error {
            OpenError::TooManyRooms { .. } | OpenError::IdTaken => 1013,
            OpenError::IdTooLong { .. } => 1008,
            _ => 1011,
        };
        let reason = WithSources(error);
        if let Some(permit) = self.log.rejected.permit() {
            let id = Escaped::new(id).at_most(256);
            log::warn!("cannot open room {id:?}: {reason}{permit}");
        }
        JoinRejection::new(code, reason.to_string())
    }

    fn admit(
        &mut self,
        connection: ConnectionKey,
        room: RoomKey,
        claim: &Claim,
    ) -> Result<(), JoinRejection> {
        if self.must_wait(connection, room, claim) {
            return Ok(());
        }
        let clients = self.host.transport_mut();
        if let Some((_, resumed)) = clients.come_back(room, connection, claim)? {
            let code = match (&self.options.directory, &claim.session) {
                (None, _) => 1008,
                // Another node may have the room by now, and know more.
                (Some(_), Some(_)) => BEHIND,
                (Some(_), None) => MOVED.0,
            };
            resumed.map_err(|error| JoinRejection::new(code, error.to_string()))?;
            if let Some(connection) = clients.get(connection) {
                connection.admit();
            }
            return Ok(());
        }
        if self.is_drained(claim) {
            return Err(JoinRejection::draining());
        }
        let token = claim.token.as_deref();
        // Check capacity first, or we would drop the old connection and then reject the new one.
        if self.is_inbox_full(room) {
            return Err(EventError::InboxFull.into());
        }
        let client = self.host.transport_mut().client_id(room, token);
        self.host
            .transport()
            .check_order(room, client, connection)?;
        if let Some(older) = self.host.transport_mut().leave(room, client) {
            self.host.transport_mut().replace(room, older);
            self.disconnect(room, client);
        }
        self.with_inbox(room, |inbox, host| {
            inbox.event(host, room, Event::Connect(client))
        })
        .map_err(EventError::from)??;
        let secret = claim.new_session()?;
        let clients = self.host.transport_mut();
        clients.join(room, client, connection);
        if let Some(secret) = secret {
            clients.begin_session(room, client, secret);
        }
        if let Some(connection) = clients.get(connection) {
            connection.admit();
        }
        Ok(())
    }

    /// Whether a client waits for its turn, since it may be why nodes have ended; then it joins again.
    fn must_wait(&mut self, connection: ConnectionKey, room: RoomKey, claim: &Claim) -> bool {
        if claim.suspicion.deaths == 0 {
            return false;
        }
        let id = self.host.room(room).map_or("", |room| room.id());
        let waiting = self.options.shared.trials.wait(id, claim);
        let clients = self.host.transport_mut();
        let connected = clients.get(connection);
        let must_wait = connected.is_some_and(|it| !it.go_on_trial(claim.suspicion, waiting));
        if must_wait {
            clients.wait_for_turn(room, connection, claim);
        }
        must_wait
    }

    /// Whether clients that have no session must not join. Those that speak no `stateroom.resume.1` are
    /// rejected before their handshake, and not after.
    fn is_drained(&self, claim: &Claim) -> bool {
        let options = &self.options;
        // In a cluster they come through other nodes.
        options.directory.is_none()
            && claim.hello.is_some()
            && options.shared.draining.load(Ordering::Relaxed)
    }

    /// Whether the inbox lacks space for a connect and the disconnect of an older connection.
    fn is_inbox_full(&self, room: RoomKey) -> bool {
        let limit = self.options.module.limits().max_inbox_events;
        let waiting = self
            .host
            .room(room)
            .map_or(0, |room| room.stats().waiting_events);
        let room = self.rooms.get(&room);
        room.is_some_and(|room| room.inbox.has_disconnects()) || waiting + 2 > limit
    }

    /// Gives a room the disconnect of a client that was removed from the transport.
    fn disconnect(&mut self, room: RoomKey, client: ClientId) {
        self.host.transport_mut().note_leaving(room, client);
        // Fails if the room was closed.
        let _ = self.with_inbox(room, |inbox, host| inbox.disconnect(host, room, client));
    }

    /// Starts a room's idle timeout if it has no clients, and else cancels it.
    fn update_idle_deadline(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        if let Some(until) = room.idle_until.take() {
            self.idle.remove(&(until, key));
        }
        let options = &self.options;
        let is_kept = |room: &Room| options.open_rooms.contains(room.id());
        if self.host.transport().count(key) == 0 && !self.host.room(key).is_some_and(is_kept) {
            let until = self.host.clock().now() + self.options.room_idle;
            room.idle_until = Some(until);
            self.idle.insert((until, key));
        }
    }

    /// Calls `f` with a room's inbox, which is brought up to date after the next turn.
    fn with_inbox<T>(
        &mut self,
        key: RoomKey,
        f: impl FnOnce(&mut InboxQueue, &mut Host<TokioClock, Clients>) -> T,
    ) -> Result<T, UnknownRoom> {
        let room = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        if !room.is_busy {
            room.is_busy = true;
            self.busy.push(key);
        }
        Ok(f(&mut room.inbox, &mut self.host))
    }

    fn update_inboxes(&mut self) {
        let Self { host, rooms, .. } = self;
        self.busy.retain(|key| {
            rooms.get_mut(key).is_some_and(|room| {
                room.is_busy = room.inbox.update(host, *key);
                room.is_busy
            })
        });
    }

    /// Has rooms not say any more what they do if nobody watches them.
    fn end_watches(&mut self) {
        for room in self.host.transport_mut().watches.take_ended() {
            if self.host.transport().log(room).is_none() {
                // Fails if it has ended.
                let _ = self.host.set_recording(room, false);
            }
        }
    }

    /// Closes rooms whose idle timeout has passed.
    fn close_idle(&mut self, now: Instant) {
        /// Shortest time between two checks of a room that is kept for its timer.
        const MIN_RECHECK: Duration = Duration::from_millis(100);
        while let Some((_, key)) = self
            .idle
            .first()
            .copied()
            .filter(|(until, _)| *until <= now)
        {
            self.idle.pop_first();
            // An event that waits or is in progress may set a timer.
            let room = self.host.room(key);
            let is_held = self.transfers.is_held(key);
            let has_timer =
                room.is_some_and(|room| room.poll_timeout().is_some() || room.is_runnable());
            let recheck_at = now + self.options.room_idle.max(MIN_RECHECK);
            let idle_until =
                (is_held || has_timer && self.options.keep_timers).then_some(recheck_at);
            if let Some(room) = self.rooms.get_mut(&key) {
                room.idle_until = idle_until;
            }
            match idle_until {
                Some(until) => drop(self.idle.insert((until, key))),
                None => self.close_or_store(key, recheck_at),
            }
        }
    }

    /// Returns a room's unused memory to the operating system; one room per turn.
    fn trim(&mut self, now: Instant) {
        if let Some((_, room)) = self.untrimmed.front().copied().filter(|(at, _)| *at <= now) {
            self.untrimmed.pop_front();
            // Fails if the room has ended.
            let _ = self.host.trim(room);
        }
    }

    /// Closes the clients of closed rooms, and removes those rooms.
    fn reap_closed(&mut self) {
        /// In one turn; each takes microseconds, for its memory.
        const MAX_ROOMS: usize = 64;
        for _ in 0..MAX_ROOMS {
            let Some(room) = self.host.poll_closed() else {
                return;
            };
            let metrics = &mut self.host.transport_mut().metrics;
            metrics.room_gone(room.key, &room.stats);
            let (code, reason) = match &room.fault {
                Some(fault) => {
                    let fault = WithSources(fault);
                    if let Some(permit) = self.log.failed.permit(&room.id) {
                        log::warn!("closed room {:?}: {fault}{permit}", Escaped::new(&room.id));
                    }
                    let reason = match room.stats.faults {
                        0 | 1 => fault.to_string(),
                        faults => format!("after {faults} faults: {fault}"),
                    };
                    self.failed.push(&room.id, &reason, time::Instant::now());
                    (1011, reason)
                }
                None => {
                    log::debug!("closed room {:?}", Escaped::new(&room.id));
                    (1001, "the room is closed".into())
                }
            };
            self.host.transport_mut().end_room(room.key, code, &reason);
            if let Some(until) = self
                .rooms
                .remove(&room.key)
                .and_then(|room| room.idle_until)
            {
                self.idle.remove(&(until, room.key));
            }
        }
    }

    /// Closes all clients, after sending what is queued.
    fn close_all(&mut self, code: u16, reason: &str) {
        let rooms: Vec<_> = self.host.rooms().map(|(key, _)| key).collect();
        for room in rooms {
            self.host.transport_mut().close_room(room, code, reason);
        }
        self.host.transport_mut().close_waiting(code, reason);
        for connection in self.restorations.clear() {
            if let Some(connection) = self.host.transport_mut().get(connection) {
                connection.close(code, reason, true);
            }
        }
    }
}

impl Rooms for HostedRooms {
    fn clients(&mut self) -> &mut Clients {
        self.host.transport_mut()
    }

    fn join(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        claim: Claim,
    ) -> Result<(), JoinRejection> {
        if self.stop_at.is_some() && self.options.directory.is_none() {
            return Err(JoinRejection::stopping());
        }
        if let Some(rejection) = self.transfers.rejection(id) {
            return Err(rejection);
        }
        if self.stop_at.is_some() || !self.is_here_soon(id) {
            return Err(JoinRejection::moved());
        }
        let has_session = |claim: &Claim| matches!(claim.hello, Some(Hello(Some(_))));
        let room = match self.host.find(id) {
            Some(room) => room,
            // Sessions keep rooms open, or have them restored.
            None if self.is_drained(&claim)
                && !(has_session(&claim) && self.restorations.awaits(id)) =>
            {
                return Err(JoinRejection::draining());
            }
            None if self.is_journaled(id) => return self.join_later(connection, id, claim),
            None => self.open(id).map_err(|error| self.reject(id, &error))?,
        };
        if claim.suspicion.is_proved() {
            return Err(self.quarantine(room));
        }
        let admitted = self.admit(connection, room, &claim);
        // Also if the join was rejected: a new room without clients must be closed eventually.
        self.update_idle_deadline(room);
        admitted
    }

    fn message(
        &mut self,
        connection: ConnectionKey,
        (room, client): (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy> {
        // Messages after shutdown began are ignored, or it might never finish.
        if self.stop_at.is_some() {
            return Ok(());
        }
        let event = Event::Message(client, payload);
        self.with_inbox(room, |inbox, host| {
            inbox.message(host, room, connection, event)
        })
        // The connections of a room that was closed are about to be, too.
        .unwrap_or(Ok(()))
    }

    fn leave(&mut self, (room, client): (RoomKey, ClientId)) {
        let now = self.host.clock().now();
        let clients = self.host.transport_mut();
        if clients.keep_session(room, client, now) {
            return;
        }
        if clients.leave(room, client).is_some() {
            self.disconnect(room, client);
            self.update_idle_deadline(room);
        }
    }

    fn list(&self) -> Listing {
        Listing {
            rooms: RoomSummary::of_all(&self.host),
            failed: self.failed.list(time::Instant::now()),
        }
    }

    fn metrics(&self, busiest: usize) -> Metrics {
        let mut metrics = self.host.transport().metrics();
        metrics.restoring = self.restorations.count();
        metrics.add_rooms(&self.host, busiest);
        metrics
    }

    fn load(&mut self, groups: usize, group_of: &dyn Fn(&str) -> usize) -> ServerLoad {
        let mut by_group = vec![GroupLoad::default(); groups];
        for (key, open) in &mut self.rooms {
            if let Some(room) = self.host.room(*key)
                && let Some(group) = by_group.get_mut(group_of(room.id()))
            {
                let (mut load, fuel_used) = (GroupLoad::of(room), room.stats().fuel_used);
                let before = core::mem::replace(&mut open.fuel_measured, fuel_used);
                load.fuel = fuel_used.saturating_sub(before);
                *group += load;
            }
        }
        ServerLoad {
            workers: 1,
            guest_time: self.host.transport().metrics.guest_time(),
            groups: by_group,
        }
    }

    fn close(&mut self, id: &str, done: Closed) {
        let closed = match self.host.find(id) {
            Some(room) => self.close_open(room),
            None if self.is_journaled(id) && self.is_here(id) => {
                return self.close_stored(id, done);
            }
            None => Err(AdminError::UnknownRoom),
        };
        // Fails if the operator has gone.
        let _ = done.send(closed);
    }

    fn watch(&mut self, id: &str, watch: Watch) -> Result<(), AdminError> {
        let room = self.host.find(id);
        let room = room.filter(|room| self.host.room(*room).is_some_and(|room| !room.is_closed()));
        let room = room.ok_or(AdminError::UnknownRoom)?;
        self.host.transport_mut().watches.insert(room, watch);
        // Of a journaled room that is on in any case.
        self.host
            .set_recording(room, true)
            .map_err(|_| AdminError::UnknownRoom)
    }

    fn save(&mut self, id: &str) -> Result<Vec<u8>, AdminError> {
        let room = self.host.find(id).ok_or(AdminError::UnknownRoom)?;
        self.host.save(room).map_err(AdminError::Save)
    }

    fn hold(&mut self, id: &str, time: Duration) -> Result<(u64, Vec<u8>), AdminError> {
        self.hold_room(id, time)
    }

    fn end_hold(&mut self, id: &str, hold: u64, reply: TransferReply) {
        self.end_hold(id, hold, reply);
    }

    fn give_up(&mut self, id: &str, hold: u64, location: Option<&str>, reply: TransferReply) {
        self.give_up(id, hold, location, reply);
    }

    fn import(&mut self, id: &str, file: &[u8], hold: Option<Duration>, reply: TransferReply) {
        self.import_room(id, file, hold, reply);
    }

    fn replace_module(&mut self, module: Module) {
        self.options.module = module;
        self.upgrades
            .check_all(self.host.rooms().map(|(key, _)| key));
    }

    fn adopt(&mut self, rooms: Vec<UnfinishedRoom>) {
        self.adopt_rooms(rooms);
    }

    fn release(&mut self, moves: &RoomFilter, done: Released) {
        self.begin_release(moves, done);
    }

    fn abandon(&mut self, is_lost: &RoomFilter) {
        self.abandon_rooms(is_lost);
    }

    fn stop(&mut self) {
        let stop_at = self.host.clock().now() + SHUTDOWN_GRACE;
        self.stop_at.get_or_insert(stop_at);
    }
}

impl From<EventError> for JoinRejection {
    fn from(error: EventError) -> Self {
        Self::new(1013, error.to_string())
    }
}
