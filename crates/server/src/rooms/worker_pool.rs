//! The workers of a server: threads that run its rooms, or one that holds the link to a board.

use crate::{
    config::{ServeError, ServerConfig},
    gateway::{self, GatewayRooms, Routes},
    http::ConnectionLimiter,
    journal::{JournalError, UnfinishedRoom},
    metrics::Metrics,
    rooms::{
        AdminError, RoomFilter, Rooms,
        clients::ClientLimits,
        handover::{Command, Listing, NewConnection},
        hosted::{self, HostedOptions, HostedRooms, SharedByWorkers},
        load::ServerLoad,
        trials::Trials,
        worker::{self, WorkerHandle},
    },
    ws::connection::ConnectionOptions,
};
use core::future::Future;
use futures_util::{StreamExt, stream::FuturesUnordered};
use stateroom_wasmi_host::{Module, ModuleHash, abi::AbiVersion};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The workers of a server. When it is dropped, they stop.
pub(crate) struct WorkerPool {
    rooms: LocalRooms,
    /// The rooms' ABI; unknown for a board.
    abi: Mutex<Option<AbiVersion>>,
    /// Rooms that are kept open.
    to_open: Vec<UnfinishedRoom>,
    /// At a node of a cluster.
    gateways: Option<Gateways>,
    draining: Arc<AtomicBool>,
}

/// The workers that have rooms.
#[derive(Clone)]
pub(crate) struct LocalRooms {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    hasher: RandomState,
}

/// The workers that have clients of rooms which may be at other nodes.
struct Gateways {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    routes: Arc<Routes>,
}

/// Resolves each worker's end.
pub(crate) struct WorkerEnds {
    gateways: Ends,
    rooms: Ends,
}

type Ends = FuturesUnordered<oneshot::Receiver<io::Result<()>>>;

/// Numbers handshakes, by their wall time in microseconds: those of several nodes are compared.
#[derive(Clone, Default)]
pub(crate) struct Sequence(Arc<AtomicU64>);

impl Sequence {
    pub(crate) fn next(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0));
        let later = |last: u64| now.max(last.saturating_add(1));
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            let next = later(last);
            let taken =
                self.0
                    .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed);
            match taken {
                Ok(_) => return next,
                Err(other) => last = other,
            }
        }
    }
}

impl WorkerPool {
    /// Starts workers with rooms of the configured module.
    /// If the server is a node of a cluster, `peers` counts the clients of rooms that are here.
    pub(crate) fn start(
        config: &ServerConfig,
        peers: &ConnectionLimiter,
    ) -> Result<(Self, WorkerEnds), ServeError> {
        let seed = config.draw_seed()?;
        // Shared by all workers, since hashing room ids does not spread the rooms evenly.
        let room_permits = config.max_rooms.min(Semaphore::MAX_PERMITS);
        let room_permits = Arc::new(Semaphore::new(room_permits));
        let limits = ClientLimits::of_worker(config);
        let on_fault = config.on_fault;
        let secret = config.secret()?;
        let hasher = RandomState::new();
        let count = config.workers.max(1);
        let to_open = config.open_rooms.iter().map(|id| UnfinishedRoom {
            id: id.as_str().into(),
            wake_at: None,
        });
        let to_open: Vec<_> = to_open.collect();
        let journal = config.journal.as_ref();
        let unfinished = journal.map_or_else(Vec::new, |journal| journal.unfinished());
        let unfinished = by_worker(&hasher, count, [to_open.clone(), unfinished].concat());
        if let Some(journal) = journal {
            journal.keep_module(ModuleHash::of(&config.module), &config.module);
        }
        let draining = Arc::new(AtomicBool::new(false));
        let trials = Trials::new();
        let mut workers = Vec::new();
        let mut abi = None;
        for (number, unfinished) in unfinished.into_iter().enumerate() {
            let module = config.loader().load(&config.module);
            let module = module.map_err(ServeError::Load)?;
            abi = Some(module.abi());
            let shared = SharedByWorkers {
                room_permits: room_permits.clone(),
                trials: trials.clone(),
                draining: draining.clone(),
            };
            let options = HostedOptions::new(config, module, shared);
            let seed = seed.wrapping_add((number as u64) << 32);
            let open = move || {
                HostedRooms::new(number, options, limits, secret, seed, on_fault, unfinished)
            };
            let name = format!("worker {number}");
            workers.push(
                worker::start(name, ConnectionOptions::new(config), open, hosted::run)
                    .map_err(ServeError::Worker)?,
            );
        }
        let (mut pool, mut ends) = Self::new(workers, abi, hasher, draining);
        pool.to_open = to_open;
        if let Some(directory) = &config.directory {
            let rooms = pool.rooms.clone();
            let routes = Routes::new(config, directory.clone(), rooms, peers.clone());
            pool.start_gateways(config, Arc::new(routes), &mut ends)?;
        }
        Ok((pool, ends))
    }

    fn start_gateways(
        &mut self,
        config: &ServerConfig,
        routes: Arc<Routes>,
        ends: &mut WorkerEnds,
    ) -> Result<(), ServeError> {
        let limits = ClientLimits::of_worker(config);
        let max_bytes = config.limits.max_message_bytes;
        let mut workers = Vec::new();
        for number in 0..self.len() {
            let routes = routes.clone();
            let worker = worker::start(
                format!("gateway {number}"),
                ConnectionOptions::new(config),
                move || GatewayRooms::new(limits, max_bytes),
                move |worker| gateway::run(worker, routes),
            );
            let worker = worker.map_err(ServeError::Worker)?;
            workers.push(worker.commands);
            ends.gateways.push(worker.ended);
        }
        self.gateways = Some(Gateways { workers, routes });
        Ok(())
    }

    /// A pool whose only worker is the bridge to a board.
    #[cfg(feature = "board")]
    pub(crate) fn for_board(
        address: crate::BoardAddress,
        config: &ServerConfig,
    ) -> Result<(Self, WorkerEnds), ServeError> {
        let limits = ClientLimits::of_worker(config);
        let secret = config.secret()?;
        let worker = worker::start(
            "board".into(),
            ConnectionOptions::new(config),
            move || crate::board::BoardRooms::new(limits, secret),
            |worker| async {
                crate::board::run(worker, address).await;
                Ok(())
            },
        )
        .map_err(ServeError::Worker)?;
        let workers = Vec::from([worker]);
        Ok(Self::new(workers, None, RandomState::new(), Arc::default()))
    }

    fn new(
        workers: Vec<WorkerHandle>,
        abi: Option<AbiVersion>,
        hasher: RandomState,
        draining: Arc<AtomicBool>,
    ) -> (Self, WorkerEnds) {
        let (workers, ends) = workers
            .into_iter()
            .map(|worker| (worker.commands, worker.ended))
            .unzip();
        let pool = Self {
            rooms: LocalRooms { workers, hasher },
            abi: Mutex::new(abi),
            to_open: Vec::new(),
            gateways: None,
            draining,
        };
        let ends = WorkerEnds {
            gateways: Ends::new(),
            rooms: ends,
        };
        (pool, ends)
    }

    /// The workers that have rooms.
    pub(crate) fn rooms(&self) -> &LocalRooms {
        &self.rooms
    }

    /// How rooms of other nodes are reached, at a node of a cluster.
    pub(crate) fn routes(&self) -> Option<Arc<Routes>> {
        let gateways = self.gateways.as_ref();
        gateways.map(|gateways| gateways.routes.clone())
    }

    /// The rooms' ABI, as text.
    pub(crate) fn abi(&self) -> String {
        let abi = *self.abi.lock().unwrap_or_else(PoisonError::into_inner);
        abi.map_or_else(|| "unknown".into(), |abi| abi.to_string())
    }

    /// Set while no new clients are accepted.
    pub(crate) fn draining(&self) -> Arc<AtomicBool> {
        self.draining.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.rooms.workers.len()
    }

    /// Gives each worker its module.
    pub(crate) fn replace_module(&self, modules: Vec<Module>) {
        let abi = modules.first().map(Module::abi);
        *self.abi.lock().unwrap_or_else(PoisonError::into_inner) = abi;
        for (worker, module) in self.rooms.workers.iter().zip(modules) {
            let question = move |rooms: &mut dyn Rooms| rooms.replace_module(module);
            // Fails if it has stopped.
            let _ = worker.send(Command::Ask(Box::new(question)));
        }
    }

    /// Hands a connection to the worker of its room, or, at a node of a cluster, to whoever brings it there,
    /// which may take until it has ended, or `stop` resolves.
    pub(crate) async fn connect(&self, connection: NewConnection, stop: impl Future<Output = ()>) {
        match &self.gateways {
            None => self.rooms.connect(connection),
            Some(Gateways { routes, .. }) if connection.resumes => {
                routes.pipe(connection, stop).await;
            }
            Some(Gateways { workers, .. }) => {
                let index = (connection.order.sequence % workers.len() as u64) as usize;
                let _ = workers[index].send(Command::Connect(Box::new(connection)));
            }
        }
    }

    /// Restores rooms that this node has taken over.
    pub(crate) fn adopt(&self, mut rooms: Vec<UnfinishedRoom>) {
        // Those of them that are here by now.
        rooms.extend(self.to_open.iter().cloned());
        for (worker, rooms) in self.rooms.workers.iter().zip(self.by_worker(rooms)) {
            if !rooms.is_empty() {
                let question = move |hosted: &mut dyn Rooms| hosted.adopt(rooms);
                // Fails if it has stopped.
                let _ = worker.send(Command::Ask(Box::new(question)));
            }
        }
    }

    fn by_worker(&self, rooms: Vec<UnfinishedRoom>) -> Vec<Vec<UnfinishedRoom>> {
        by_worker(&self.rooms.hasher, self.rooms.workers.len(), rooms)
    }

    /// Gives up rooms, for another node.
    pub(crate) fn release(
        &self,
        moves: RoomFilter,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let releases = self.rooms.workers.iter().map(|worker| {
            let (done, released) = oneshot::channel();
            let moves = moves.clone();
            let question = move |rooms: &mut dyn Rooms| rooms.release(&moves, done);
            // Fails if it has stopped; then the question is dropped.
            let _ = worker.send(Command::Ask(Box::new(question)));
            released
        });
        let releases: Vec<_> = releases.collect();
        async move {
            let mut lost = Vec::new();
            for released in releases {
                match released.await {
                    Ok(Ok(())) => {}
                    Ok(Err(JournalError::NotOwned { rooms })) => lost.extend(rooms),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(JournalError::Closed),
                }
            }
            match lost.is_empty() {
                true => Ok(()),
                false => Err(JournalError::NotOwned { rooms: lost }),
            }
        }
    }

    /// Drops rooms that another node has.
    pub(crate) fn abandon(&self, is_lost: RoomFilter) -> impl Future<Output = ()> + Send + use<> {
        let abandoned = self.rooms.workers.iter().map(|worker| {
            let (done, abandoned) = oneshot::channel();
            let is_lost = is_lost.clone();
            let question = move |rooms: &mut dyn Rooms| {
                rooms.abandon(&is_lost);
                let _ = done.send(());
            };
            let _ = worker.send(Command::Ask(Box::new(question)));
            abandoned
        });
        let abandoned: Vec<_> = abandoned.collect();
        async move {
            for abandoned in abandoned {
                // A worker that has ended has no rooms.
                let _ = abandoned.await;
            }
        }
    }

    /// All rooms, ordered by id, and those that failed lately, latest first.
    pub(crate) async fn list(&self) -> Listing {
        let mut all = Listing::default();
        for worker in &self.rooms.workers {
            if let Some(Listing { rooms, failed }) = ask(worker, |rooms| rooms.list()).await {
                all.rooms.extend(rooms);
                all.failed.extend(failed);
            }
        }
        all.rooms.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all.failed.sort_by_key(|room| room.seconds_ago);
        all
    }

    /// What the rooms do and take, in so many groups.
    pub(crate) async fn load(
        &self,
        groups: usize,
        group_of: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    ) -> ServerLoad {
        let mut all = ServerLoad::default();
        for worker in &self.rooms.workers {
            let group_of = group_of.clone();
            if let Some(load) = ask(worker, move |rooms| rooms.load(groups, &*group_of)).await {
                all += load;
            }
        }
        all
    }

    /// What all workers have counted and measured.
    pub(crate) async fn metrics(&self, busiest: usize) -> Metrics {
        let mut all = Metrics::default();
        let gateways = self.gateways.iter().flat_map(|gateways| &gateways.workers);
        for worker in self.rooms.workers.iter().chain(gateways) {
            if let Some(metrics) = ask(worker, move |rooms| rooms.metrics(busiest)).await {
                all.add(metrics, busiest);
            }
        }
        all
    }

    /// Asks the worker of a room; none if it has stopped.
    pub(crate) async fn ask_room<T: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(&mut dyn Rooms) -> T + Send + 'static,
    ) -> Option<T> {
        let index = index(&self.rooms.hasher, id, self.rooms.workers.len());
        ask(&self.rooms.workers[index], question).await
    }

    /// Ends a room; none if its worker has stopped.
    pub(crate) async fn close_room(&self, id: &str) -> Option<Result<(), AdminError>> {
        let (done, closed) = oneshot::channel();
        let room = Box::<str>::from(id);
        self.ask_room(id, move |rooms| rooms.close(&room, done))
            .await?;
        closed.await.ok()
    }
}

/// Asks a worker; none if it has stopped.
async fn ask<T: Send + 'static>(
    worker: &mpsc::UnboundedSender<Command>,
    question: impl FnOnce(&mut dyn Rooms) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let question = move |rooms: &mut dyn Rooms| {
        // Fails if nobody waits any more.
        let _ = reply.send(question(rooms));
    };
    worker.send(Command::Ask(Box::new(question))).ok()?;
    answer.await.ok()
}

/// Rooms, by the worker that has them.
fn by_worker(
    hasher: &RandomState,
    workers: usize,
    rooms: Vec<UnfinishedRoom>,
) -> Vec<Vec<UnfinishedRoom>> {
    let mut of_workers: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    for room in rooms {
        of_workers[index(hasher, &room.id, workers)].push(room);
    }
    of_workers
}

/// The worker of the room of this id.
fn index(hasher: &RandomState, room: &str, workers: usize) -> usize {
    (hasher.hash_one(room) % workers as u64) as usize
}

impl LocalRooms {
    /// Hands a connection to the worker of its room.
    pub(crate) fn connect(&self, connection: NewConnection) {
        let index = index(&self.hasher, &connection.room, self.workers.len());
        // Fails if the worker has stopped; then the connection is dropped.
        let _ = self.workers[index].send(Command::Connect(Box::new(connection)));
    }
}

impl WorkerEnds {
    /// Waits until all workers have ended.
    ///
    /// # Errors
    ///
    /// As soon as one of them has panicked, or has ended with an error.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        tokio::try_join!(wait(&mut self.gateways), wait(&mut self.rooms)).map(drop)
    }

    /// Lets each worker handle its queued events, close its clients, and end: those of clients first, which
    /// tell the others of those that have left.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub(crate) async fn stop(&mut self, pool: &WorkerPool) -> io::Result<()> {
        if let Some(gateways) = &pool.gateways {
            stop(&gateways.workers);
            wait(&mut self.gateways).await?;
        }
        stop(&pool.rooms.workers);
        self.wait().await
    }
}

fn stop(workers: &[mpsc::UnboundedSender<Command>]) {
    for worker in workers {
        // Fails if it has stopped.
        let _ = worker.send(Command::Stop);
    }
}

async fn wait(ends: &mut Ends) -> io::Result<()> {
    while let Some(ended) = ends.next().await {
        ended.map_err(|_| io::Error::other("a worker has panicked"))??;
    }
    Ok(())
}
