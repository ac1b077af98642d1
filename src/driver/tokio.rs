//! A host in a tokio task, with bounded channels for events and outputs.
//!
//! ```
//! use stateroom_wasmi_host::{ClientId, Limits, Module, OwnedEvent, OwnedPayload, driver::tokio::*};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../../examples/rooms/wasm/echo-c.wasm");
//! let module = Module::load(wasm, &Limits::default())?;
//! let (host, mut outputs) = spawn(Options::new());
//!
//! let lobby = host.open("lobby", &module).await?;
//! host.enqueue(lobby, OwnedEvent::Connect(ClientId(1))).await?;
//! host.enqueue(lobby, OwnedEvent::message(ClientId(1), "hello")).await?;
//!
//! while let Some(output) = outputs.recv().await {
//!     if let RoomOutput::Message { payload, .. } = output {
//!         assert_eq!(payload, OwnedPayload::Text("hello".into()));
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! For a driver of your own, with other commands or another transport, [`wait`] and [`TokioClock`]
//! are the building blocks of this one.

#[cfg(feature = "snapshot")]
use crate::snapshot::{SaveError, SnapshotError, SnapshotOptions};
use crate::{
    error::{EventError, OpenError, UnknownRoom},
    event::{ClientId, MessageRecipient, OutputMessage, OwnedEvent, OwnedPayload},
    fault_policy::FaultPolicy,
    host::{Budget, Clock, ClosedRoom, Host, RoomKey, SendError, Transport},
    limits::HostLimits,
    module::Module,
    room::RoomOptions,
    time::Instant,
};
#[cfg(feature = "snapshot")]
use alloc::vec::Vec;
use core::{future::Future, time::Duration};
use std::{boxed::Box, time::SystemTime};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Options of a host task.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The limits of the host.
    pub limits: HostLimits,
    /// Seeds the random generators of the rooms ([`Host::with_seed`]). Default 0.
    pub seed: u64,
    /// What follows when a guest fails ([`Host::with_fault_policy`]). Default
    /// [`FaultPolicy::Close`].
    pub on_fault: FaultPolicy,
    /// The capacity of the channel of commands, and of that of outputs; at least 1. Default 256.
    pub channel_capacity: usize,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            limits: HostLimits::new(),
            seed: 0,
            on_fault: FaultPolicy::Close,
            channel_capacity: 256,
        }
    }

    setters! { limits: HostLimits, seed: u64, on_fault: FaultPolicy, channel_capacity: usize }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// An output of a room.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RoomOutput {
    /// The room handles the connect of this client: messages from here on may be for it.
    Joined {
        /// The room.
        room: RoomKey,
        /// The client.
        client: ClientId,
    },
    /// The room handles the disconnect of this client: messages from here on are not for it.
    Left {
        /// The room.
        room: RoomKey,
        /// The client.
        client: ClientId,
    },
    /// The room sends a message.
    Message {
        /// The room.
        room: RoomKey,
        /// The recipients.
        recipient: MessageRecipient,
        /// The payload.
        payload: OwnedPayload,
    },
    /// The room has ended; it has no further outputs.
    Closed(ClosedRoom),
}

/// A handle of the task that runs the rooms. When all clones of it are dropped, the rooms still
/// handle the events that they accepted, and their outputs can still be received; then the task
/// ends. Timers do not keep it alive.
#[derive(Clone, Debug)]
pub struct HostHandle {
    commands: mpsc::Sender<Command>,
}

type TaskHost = Host<TokioClock, ChannelTransport>;

/// What the task is to do with its host.
type Command = Box<dyn FnOnce(&mut TaskHost) + Send>;

/// Starts a task that runs rooms, in the current runtime. Their outputs wait in the returned channel;
/// while it is full, the rooms wait as well.
#[must_use]
pub fn spawn(options: Options) -> (HostHandle, mpsc::Receiver<RoomOutput>) {
    let capacity = options.channel_capacity.clamp(1, Semaphore::MAX_PERMITS);
    let (commands, receiver) = mpsc::channel(capacity);
    let (outputs, output_receiver) = mpsc::channel(capacity);
    let transport = ChannelTransport { outputs };
    let host = Host::with_limits(TokioClock::new(), transport, options.limits)
        .with_seed(options.seed)
        .with_fault_policy(options.on_fault);
    tokio::spawn(run(host, receiver));
    (HostHandle { commands }, output_receiver)
}

/// # Panics
///
/// All methods panic if the runtime of the task was shut down.
impl HostHandle {
    /// Opens a room with the host's defaults.
    ///
    /// # Errors
    ///
    /// As [`Host::open`].
    pub async fn open(&self, id: &str, module: &Module) -> Result<RoomKey, OpenError> {
        self.open_with(id, module, RoomOptions::new()).await
    }

    /// Opens a room. Options that are not set are the host's.
    ///
    /// # Errors
    ///
    /// As [`Host::open`].
    pub async fn open_with(
        &self,
        id: &str,
        module: &Module,
        options: RoomOptions,
    ) -> Result<RoomKey, OpenError> {
        let (id, module) = (Box::<str>::from(id), module.clone());
        self.call(move |host| host.open_with(&id, &module, options))
            .await
    }

    /// Puts an event into a room's inbox.
    ///
    /// # Errors
    ///
    /// As [`Host::enqueue`].
    pub async fn enqueue(&self, room: RoomKey, event: OwnedEvent) -> Result<(), EventError> {
        self.call(move |host| host.enqueue(room, event.as_event()))
            .await
    }

    /// Closes a room; [`RoomOutput::Closed`] follows its last output.
    ///
    /// # Errors
    ///
    /// If the host has no such room.
    pub async fn close(&self, room: RoomKey) -> Result<(), UnknownRoom> {
        self.call(move |host| host.close(room)).await
    }

    /// A room as bytes; see [`Host::save`].
    ///
    /// # Errors
    ///
    /// As [`Host::save`]. [`OutputsWaiting`](crate::SaveError::OutputsWaiting): the channel is full.
    #[cfg(feature = "snapshot")]
    pub async fn save(&self, room: RoomKey) -> Result<Vec<u8>, SaveError> {
        self.call(move |host| host.save(room)).await
    }

    /// Opens a room from a snapshot; see [`Host::load`].
    ///
    /// # Errors
    ///
    /// As [`Host::load`].
    #[cfg(feature = "snapshot")]
    pub async fn load(
        &self,
        module: &Module,
        snapshot: impl Into<Vec<u8>>,
        options: SnapshotOptions,
    ) -> Result<RoomKey, SnapshotError> {
        let (module, snapshot) = (module.clone(), snapshot.into());
        self.call(move |host| host.load(&module, &snapshot, options))
            .await
    }

    /// Replaces the guest of an idle room by its state; see [`Host::hibernate`].
    ///
    /// # Errors
    ///
    /// As [`Host::hibernate`].
    #[cfg(feature = "snapshot")]
    pub async fn hibernate(&self, room: RoomKey) -> Result<(), SaveError> {
        self.call(move |host| host.hibernate(room)).await
    }

    async fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut TaskHost) -> R + Send + 'static,
    ) -> R {
        let (reply, response) = oneshot::channel();
        let command: Command = Box::new(|host| {
            // A caller that was cancelled does not receive its reply.
            let _ = reply.send(command(host));
        });
        assert!(
            self.commands.send(command).await.is_ok(),
            "{HOST_TASK_GONE}"
        );
        response.await.expect(HOST_TASK_GONE)
    }
}

const HOST_TASK_GONE: &str = "the task that runs the rooms is gone with its runtime";

/// Fuel between two checks for commands: about ten milliseconds of work.
const FUEL_PER_POLL: u64 = 8_000_000;

async fn run(mut host: TaskHost, mut commands: mpsc::Receiver<Command>) {
    // A room that has ended and did not fit into the channel. Others that end wait behind it.
    let mut closed = None;
    let mut has_ended = false;
    loop {
        let wake_at = host.poll(Budget::fuel(FUEL_PER_POLL));
        send_closed(&mut host, &mut closed);
        let is_full = host.is_blocked() || closed.is_some();
        let has_work = wake_at.is_some_and(|at| at <= host.clock().now());
        // Its events wait for a fresh guest.
        let waits_for_restart = has_ended
            && host
                .rooms()
                .any(|(_, room)| room.is_restarting() && room.stats().waiting_events > 0);
        if has_ended && !is_full && !has_work && !waits_for_restart {
            return;
        }
        if has_work {
            // Other tasks of this thread get their turn.
            tokio::task::yield_now().await;
        }
        let outputs = host.transport().outputs.clone();
        let writable = async {
            match is_full {
                true => drop(outputs.reserve().await),
                false => core::future::pending().await,
            }
        };
        if has_ended {
            let restart = async {
                match wake_at.filter(|_| waits_for_restart) {
                    Some(at) => tokio::time::sleep_until(host.clock().at(at)).await,
                    None => core::future::pending().await,
                }
            };
            if !has_work {
                tokio::select! {
                    () = writable => {}
                    () = restart => {}
                }
            }
            continue;
        }
        match wait(&mut commands, wake_at, host.clock(), writable).await {
            Wake::Command(command) => command(&mut host),
            Wake::Time | Wake::Writable => {}
            Wake::Ended => has_ended = true,
        }
    }
}

/// Sends the rooms that have ended, as far as the channel has space.
fn send_closed(host: &mut TaskHost, next: &mut Option<ClosedRoom>) {
    while let Some(closed) = next.take().or_else(|| host.poll_closed()) {
        match host.transport().outputs.try_reserve() {
            Ok(permit) => permit.send(RoomOutput::Closed(closed)),
            Err(mpsc::error::TrySendError::Full(())) => {
                *next = Some(closed);
                return;
            }
            // The receiver was dropped; discard.
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
    }
}

/// Sends into a bounded channel, and applies backpressure while it is full.
struct ChannelTransport {
    outputs: mpsc::Sender<RoomOutput>,
}

impl ChannelTransport {
    fn try_send(&self, output: impl FnOnce() -> RoomOutput) -> Result<(), SendError<&'static str>> {
        // Reserve before copying the payload.
        let permit = self.outputs.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => SendError::WouldBlock,
            mpsc::error::TrySendError::Closed(()) => SendError::Failed("the receiver was dropped"),
        })?;
        permit.send(output());
        Ok(())
    }
}

impl Transport for ChannelTransport {
    type Error = &'static str;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Self::Error>> {
        let OutputMessage { recipient, payload } = message;
        self.try_send(|| RoomOutput::Message {
            room,
            recipient,
            payload: payload.to_owned(),
        })
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) -> Result<(), SendError<Self::Error>> {
        self.try_send(|| RoomOutput::Joined { room, client })
    }

    fn disconnected(
        &mut self,
        room: RoomKey,
        client: ClientId,
    ) -> Result<(), SendError<Self::Error>> {
        self.try_send(|| RoomOutput::Left { room, client })
    }
}

/// Why [`wait`] returned.
#[derive(Debug)]
pub enum Wake<M> {
    /// A command was received.
    Command(M),
    /// `wake_at` has come.
    Time,
    /// The transport has space again.
    Writable,
    /// All senders are gone.
    Ended,
}

/// Waits for a command, for `wake_at` (what [`Host::poll`] returned), or for the transport to become
/// writable (a future that stays pending unless an output was refused).
pub async fn wait<M>(
    commands: &mut mpsc::Receiver<M>,
    wake_at: Option<Instant>,
    clock: &TokioClock,
    writable: impl Future<Output = ()>,
) -> Wake<M> {
    let time = async {
        match wake_at {
            Some(at) => tokio::time::sleep_until(clock.at(at)).await,
            None => core::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        command = commands.recv() => command.map_or(Wake::Ended, Wake::Command),
        () = writable => Wake::Writable,
        () = time => Wake::Time,
    }
}

/// The clock of tokio, which tests can pause. Its origin is its creation.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    unix_time_at_origin: Duration,
}

impl TokioClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        let unix_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            origin: tokio::time::Instant::now(),
            unix_time_at_origin: unix_time.unwrap_or_default(),
        }
    }

    /// A point of this clock as tokio's type, clamped to its range.
    #[must_use]
    pub fn at(&self, at: Instant) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.origin
            + at.saturating_duration_since(Instant::ZERO)
                .min(self.origin.elapsed() + FAR)
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(self.unix_time_at_origin)
    }
}
