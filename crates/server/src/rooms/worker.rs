//! A worker: a thread with its rooms and their clients' connections.
//!
//! What a client sends is read, handled and answered on this thread, in three steps: the connection's
//! task reads it and puts it into the room's inbox ([`Worker::poll`]), the task of the rooms runs them
//! (their turn), and sends what they have put into the clients' queues. Nothing of that is shared with
//! another thread.

use crate::{
    rooms::{
        Claim, Rooms,
        client_counts::ClientCounts,
        handover::{Command, NewConnection},
    },
    stream::Stream,
    ws::{
        closing::close,
        connection::{Connection, ConnectionKey, ConnectionOptions, End, READ_BYTES, Step},
        resume::{self, Destination, Passed, Resuming},
    },
};
use core::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use stateroom_wasmi_host::MessagePayload;
use std::{io, panic::resume_unwind, rc::Rc, thread};
use tokio::{
    runtime::{self, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::{coop, spawn_local, yield_now},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tungstenite::Message;

/// A worker's state, shared by the tasks of its thread.
pub(crate) struct Worker<R> {
    rooms: RefCell<R>,
    options: ConnectionOptions,
    buffer: RefCell<Box<[u8]>>,
    /// Notified when the rooms have something to do.
    work: Notify,
    /// Tasks of connections.
    connections: Cell<usize>,
    /// Notified when the last of them ends.
    empty: Notify,
    /// What became of clients, as far as it was logged.
    logged: RefCell<ClientCounts>,
}

/// What the rest of the server has of a worker.
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Resolves when the thread ends, with an error if it panics, or if its rooms have ended with one.
    pub(crate) ended: oneshot::Receiver<io::Result<()>>,
}

/// Starts a thread with a worker. `open` makes its rooms there, and `run` runs them until they have
/// stopped. The thread ends when all of its connections have.
pub(crate) fn start<R: Rooms, F: Future<Output = io::Result<()>> + 'static>(
    name: String,
    options: ConnectionOptions,
    open: impl FnOnce() -> R + Send + 'static,
    run: impl FnOnce(Rc<Worker<R>>) -> F + Send + 'static,
) -> io::Result<WorkerHandle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    let (start, started) = std::sync::mpsc::channel();
    thread::Builder::new().name(name).spawn(move || {
        // It belongs to the thread that makes it.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(start.send(Err(error))),
        };
        let _ = start.send(Ok(()));
        let worker = Rc::new(Worker {
            rooms: RefCell::new(open()),
            options,
            buffer: RefCell::new(vec![0; READ_BYTES].into()),
            work: Notify::new(),
            connections: Cell::new(0),
            empty: Notify::new(),
            logged: RefCell::default(),
        });
        let result = runtime.block_on(async {
            spawn_local(worker.clone().receive(receiver));
            spawn_local(worker.clone().report());
            // A task of its own, since the runtime wakes the one that it blocks on by a system call.
            // Its turns are bounded by themselves.
            let rooms = spawn_local(coop::unconstrained(run(worker.clone())));
            let result = match rooms.await {
                Ok(result) => result,
                Err(panic) => resume_unwind(panic.into_panic()),
            };
            let empty = async {
                while worker.connections.get() > 0 {
                    worker.empty.notified().await;
                }
            };
            /// For connections that are being closed.
            const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
            match &result {
                Ok(()) => empty.await,
                // Clients are told, but they do not keep the server from ending.
                Err(_) => drop(timeout(CLOSING_TIMEOUT, empty).await),
            }
            worker.log_counts();
            result
        });
        let _ = end.send(result);
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(WorkerHandle { commands, ended })
}

impl<R: Rooms> Worker<R> {
    /// Calls `f` with the rooms.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut R) -> T) -> T {
        f(&mut self.rooms.borrow_mut())
    }

    /// Calls `f` with the rooms and the thread's buffer, of [`READ_BYTES`].
    pub(crate) fn with_buffer<T>(&self, f: impl FnOnce(&mut R, &mut [u8]) -> T) -> T {
        f(&mut self.rooms.borrow_mut(), &mut self.buffer.borrow_mut())
    }

    /// The rooms have something to do.
    pub(crate) fn notify(&self) {
        self.work.notify_one();
    }

    /// Waits until the rooms have something to do.
    pub(crate) async fn wait(&self) {
        self.work.notified().await;
    }

    /// Logs now and then what became of clients.
    async fn report(self: Rc<Self>) {
        const INTERVAL: Duration = Duration::from_secs(60);
        loop {
            sleep(INTERVAL).await;
            self.log_counts();
        }
    }

    fn log_counts(&self) {
        let counts = self.with(|rooms| rooms.clients().metrics.clients.clone());
        let new = counts.since(&self.logged.replace(counts.clone()));
        if !new.is_empty() {
            let worker = thread::current();
            log::info!("{}: {new}", worker.name().unwrap_or_default());
        }
    }

    async fn receive(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Connect(connection) => {
                    let task = ConnectionTask::new(self.clone());
                    spawn_local(async move { task.0.serve(*connection).await });
                }
                Command::Ask(question) => {
                    question(&mut *self.rooms.borrow_mut());
                    self.work.notify_one();
                    // The others have their turn first.
                    yield_now().await;
                }
                // Connections whose handshake was under way still come, and are told why they are closed.
                Command::Stop => self.stop(),
            }
        }
        self.stop();
    }

    fn stop(&self) {
        self.with(R::stop);
        self.work.notify_one();
    }

    /// Serves a connection until it is closed.
    async fn serve(&self, new: NewConnection) {
        let NewConnection {
            stream,
            unread,
            permit,
            address,
            order,
            room,
            token,
            resumes,
            session,
            suspicion,
        } = new;
        let stream = match Stream::attach(stream) {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("the connection of {address} failed: {error}");
                return;
            }
        };
        let key = self.with(|rooms| {
            let (unread, queued) = (Vec::from(unread), rooms.clients().queued());
            let is_gateway = session.is_some();
            let destination = Destination {
                room,
                token,
                session,
                suspicion,
            };
            let (resuming, destination) = match resumes {
                true => (Resuming::BeforeHello(Box::new(destination)), None),
                false => (Resuming::No, Some(destination)),
            };
            let key = rooms.clients().insert(Connection::new(
                stream,
                unread,
                order,
                permit,
                self.options.of(resumes, is_gateway),
                queued,
                resuming,
            ));
            if let Some(Destination { room, token, .. }) = destination {
                let claim = Claim {
                    token,
                    ..Claim::default()
                };
                join(rooms, key, &room, claim);
            }
            key
        });
        self.work.notify_one();
        let served = Served { worker: self, key };
        let mut timer = pin!(sleep_until(Instant::now()));
        let end = poll_fn(|cx| {
            loop {
                let deadline = match self.poll(key, cx) {
                    Ok(deadline) => deadline,
                    Err(end) => return Poll::Ready(end),
                };
                if poll_timer(timer.as_mut(), deadline, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        if let Some(connection) = served.end(&end) {
            // Boxed, so that open connections need no memory for it.
            Box::pin(close(connection, end)).await;
        }
    }

    /// Sends what is queued for a client, and passes what it has sent to its room. Returns the time of its
    /// next deadline, or how it is to end.
    fn poll(&self, key: ConnectionKey, cx: &mut Context<'_>) -> Result<Instant, End> {
        let mut rooms = self.rooms.borrow_mut();
        let rooms = &mut *rooms;
        let now = Instant::now();
        let connection = rooms.clients().get(key).ok_or(End::Lost)?;
        connection.set_waker(cx.waker());
        connection.flush(now);
        if let Some(end) = connection.take_end() {
            return Err(end);
        }
        if let Some((room, claim)) = connection.poll_turn(cx, now)? {
            join(rooms, key, &room, claim);
            self.work.notify_one();
        }
        let read = self.read(rooms, key, cx, now);
        let connection = rooms.clients().get(key).ok_or(End::Lost)?;
        match read {
            Ok(()) => {}
            Err(End::Lost) => return Err(End::Lost),
            Err(end) => {
                connection.defer_end(end);
                if let Some(member) = connection.member {
                    rooms.ending(member);
                    self.work.notify_one();
                }
            }
        }
        let connection = rooms.clients().get(key).ok_or(End::Lost)?;
        let deadline = connection.handle_timeout(now);
        let member = connection.member;
        if connection.take_ack_due(now)
            && let Some(member) = member
        {
            rooms.clients().acknowledge(member);
        }
        let connection = rooms.clients().get(key).ok_or(End::Lost)?;
        connection.flush(now);
        match connection.take_end() {
            Some(end) => Err(end),
            None => Ok(deadline),
        }
    }

    /// Passes what a client has sent to its room, up to the length of the buffer.
    fn read(
        &self,
        rooms: &mut R,
        key: ConnectionKey,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), End> {
        let mut buffer = self.buffer.borrow_mut();
        let unread = rooms.clients().get(key).ok_or(End::Lost)?.take_unread();
        let mut filled = unread.len();
        buffer[..filled].copy_from_slice(&unread);
        let mut total = 0;
        loop {
            let mut input = &buffer[..filled];
            let is_held = self.pass_on(rooms, key, &mut input, now)?;
            let connection = rooms.clients().get(key).ok_or(End::Lost)?;
            if is_held {
                connection.stop_reading(input, now);
                return Ok(());
            }
            // The beginning of a frame's header.
            let kept = input.len();
            buffer.copy_within(filled - kept..filled, 0);
            if total >= READ_BYTES {
                connection.keep_unread(&buffer[..kept]);
                // The others have their turn first.
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let Some(added) = connection.fill(cx, &mut buffer[kept..], now)? else {
                connection.keep_unread(&buffer[..kept]);
                return Ok(());
            };
            filled = kept + added.read;
            total += added.received;
        }
    }

    /// Passes messages to the client's room; returns whether the client is not read from for now.
    fn pass_on(
        &self,
        rooms: &mut R,
        key: ConnectionKey,
        input: &mut &[u8],
        now: Instant,
    ) -> Result<bool, End> {
        loop {
            let connection = rooms.clients().get(key).ok_or(End::Lost)?;
            let message = match connection.read(input, now)? {
                Step::Message(message) => message,
                Step::Other => continue,
                Step::Nothing => return Ok(connection.is_held(now)),
            };
            let resumes = connection.resumes();
            let payload = match &message {
                _ if resumes => match resume::receive(rooms, key, &message)? {
                    Passed::Message(payload) => payload,
                    Passed::Done => {
                        self.work.notify_one();
                        continue;
                    }
                },
                Message::Text(text) => MessagePayload::Text(text),
                Message::Binary(bytes) => MessagePayload::Bytes(bytes),
                // The reader returns no others.
                _ => continue,
            };
            let connection = rooms.clients().get(key).ok_or(End::Lost)?;
            let Some(member) = connection.member else {
                // It is about to be closed.
                return Ok(true);
            };
            if resumes && resume::is_duplicate(rooms, member) {
                continue;
            }
            self.work.notify_one();
            let bytes = payload.len() as u64;
            if rooms.message(key, member, payload).is_ok() {
                let metrics = &mut rooms.clients().metrics;
                metrics.messages_received += 1;
                metrics.bytes_received += bytes;
            } else {
                if let Some(connection) = rooms.clients().get(key) {
                    connection.refuse(message);
                }
                return Ok(true);
            }
        }
    }
}

/// Waits until a deadline, or less: the timer is reset when it has fired or must fire earlier, and not
/// for each message, which is cheaper.
pub(crate) fn poll_timer(
    mut timer: Pin<&mut Sleep>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if deadline < timer.deadline() || timer.is_elapsed() {
        timer.as_mut().reset(deadline);
    }
    timer.poll(cx)
}

/// Counts a connection's task until it ends, also if it panics: the thread ends after all of them.
struct ConnectionTask<R>(Rc<Worker<R>>);

impl<R> ConnectionTask<R> {
    fn new(worker: Rc<Worker<R>>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        Self(worker)
    }
}

impl<R> Drop for ConnectionTask<R> {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        if left == 0 {
            self.0.empty.notify_one();
        }
    }
}

/// A connection that is served. When it is dropped, the client leaves its room, also if its task panics.
struct Served<'w, R: Rooms> {
    worker: &'w Worker<R>,
    key: ConnectionKey,
}

impl<R: Rooms> Served<'_, R> {
    /// Takes the connection, which is about to be closed.
    fn end(self, end: &End) -> Option<Connection> {
        self.worker.with(|rooms| {
            rooms.clients().metrics.clients.count_end(end);
            leave(rooms, self.key)
        })
    }
}

impl<R: Rooms> Drop for Served<'_, R> {
    fn drop(&mut self) {
        self.worker.with(|rooms| leave(rooms, self.key));
        self.worker.work.notify_one();
    }
}

/// Lets a client join a room, or closes it.
pub(crate) fn join(rooms: &mut impl Rooms, key: ConnectionKey, room: &str, claim: Claim) {
    if let Err(rejection) = rooms.join(key, room, claim)
        && let Some(connection) = rooms.clients().get(key)
    {
        connection.close(rejection.code, &rejection.reason, true);
    }
}

/// Removes a connection, and its client from its room.
fn leave<R: Rooms>(rooms: &mut R, key: ConnectionKey) -> Option<Connection> {
    if let Some(member) = rooms.clients().get(key)?.member {
        rooms.leave(member);
    }
    rooms.clients().remove(key)
}
