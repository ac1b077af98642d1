//! A host in a tokio task: events go in and messages come out through bounded channels.
//!
//! ```
//! use stateroom_wasmi_host::{ClientId, Limits, Module, driver::tokio::*};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../../examples/rooms/wasm/echo-c.wasm");
//! let module = Module::load(wasm, &Limits::default())?;
//! let (rooms, mut said) = spawn(Options::default());
//!
//! let lobby = rooms.open("lobby", &module).await?;
//! rooms.handle_event(lobby, OwnedEvent::Connect(ClientId(1))).await?;
//! rooms.handle_event(lobby, OwnedEvent::Text(ClientId(1), "hello".into())).await?;
//!
//! let Some(Said::Text { text, .. }) = said.recv().await else { panic!("an echo answers") };
//! assert_eq!(text, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! For a driver of your own, with other commands or another transport, [`wait`] and [`TokioClock`]
//! are what this one is made of.

use crate::{
    error::{EventError, OpenError},
    event::{ClientId, Event, MessagePayload, MessageRecipient, Output},
    host::{Budget, Clock, ClosedRoom, Host, HostLimits, RoomKey, SendError, Transport},
    module::Module,
    time::Instant,
};
use core::{future::Future, time::Duration};
use std::{borrow::ToOwned, boxed::Box, string::String, time::SystemTime, vec::Vec};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What a task of rooms is started with.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The limits of the host.
    pub limits: HostLimits,
    /// Seeds the random generators of the rooms.
    pub seed: u64,
    /// Events, and messages, that wait in their channel at most; at least one of each. Default 256.
    pub channel_capacity: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: HostLimits::default(),
            seed: 0,
            channel_capacity: 256,
        }
    }
}

/// An event that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedEvent {
    /// A client joined.
    Connect(ClientId),
    /// A client left.
    Disconnect(ClientId),
    /// A client sent a text.
    Text(ClientId, String),
    /// A client sent bytes.
    Bytes(ClientId, Vec<u8>),
}

impl OwnedEvent {
    /// The event, borrowed.
    #[must_use]
    pub fn as_event(&self) -> Event<'_> {
        match self {
            Self::Connect(client) => Event::Connect(*client),
            Self::Disconnect(client) => Event::Disconnect(*client),
            Self::Text(client, text) => Event::message(*client, text.as_str()),
            Self::Bytes(client, bytes) => Event::message(*client, bytes.as_slice()),
        }
    }
}

/// What comes from the rooms.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Said {
    /// A room sends a text.
    Text {
        /// The room.
        room: RoomKey,
        /// To whom.
        recipient: MessageRecipient,
        /// What.
        text: String,
    },
    /// A room sends bytes.
    Bytes {
        /// The room.
        room: RoomKey,
        /// To whom.
        recipient: MessageRecipient,
        /// What.
        bytes: Vec<u8>,
    },
    /// A room has ended; nothing follows from it.
    Closed(ClosedRoom),
}

/// Speaks to the task that runs the rooms. When all clones of this are gone, the rooms still handle
/// what they were given, and what they say to that is still to be received; then the task ends. Their
/// timers do not keep it.
#[derive(Clone, Debug)]
pub struct Rooms {
    commands: mpsc::Sender<Command>,
}

enum Command {
    Open {
        id: Box<str>,
        module: Module,
        reply: oneshot::Sender<Result<RoomKey, OpenError>>,
    },
    Event {
        room: RoomKey,
        event: OwnedEvent,
        reply: oneshot::Sender<Result<(), EventError>>,
    },
    Close {
        room: RoomKey,
    },
}

/// Starts a task that runs rooms, in the current runtime. What they send waits in the second half
/// until it is received; a full channel makes the rooms wait, too.
#[must_use]
pub fn spawn(options: Options) -> (Rooms, mpsc::Receiver<Said>) {
    let capacity = options.channel_capacity.clamp(1, Semaphore::MAX_PERMITS);
    let (commands, received) = mpsc::channel(capacity);
    let (said, receiver) = mpsc::channel(capacity);
    let host = Host::with_limits(TokioClock::new(), ChannelTransport { said }, options.limits)
        .with_seed(options.seed);
    tokio::spawn(run(host, received));
    (Rooms { commands }, receiver)
}

impl Rooms {
    /// Opens a room.
    ///
    /// # Errors
    ///
    /// As [`Host::open`].
    ///
    /// # Panics
    ///
    /// If the runtime of the task was shut down, as all methods of this type.
    pub async fn open(&self, id: &str, module: &Module) -> Result<RoomKey, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Open {
            id: id.into(),
            module: module.clone(),
            reply,
        })
        .await;
        answer.await.expect(GONE)
    }

    /// Gives a room an event.
    ///
    /// # Errors
    ///
    /// As [`Host::handle_event`].
    pub async fn handle_event(&self, room: RoomKey, event: OwnedEvent) -> Result<(), EventError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Event { room, event, reply }).await;
        answer.await.expect(GONE)
    }

    /// Closes a room; [`Said::Closed`] follows the last that it sends.
    pub async fn close(&self, room: RoomKey) {
        self.send(Command::Close { room }).await;
    }

    async fn send(&self, command: Command) {
        assert!(self.commands.send(command).await.is_ok(), "{GONE}");
    }
}

const GONE: &str = "the task that runs the rooms is gone with its runtime";

/// Fuel between two looks at what has come in: about ten milliseconds of work.
const FUEL_PER_POLL: u64 = 8_000_000;

async fn run(mut host: Host<TokioClock, ChannelTransport>, mut commands: mpsc::Receiver<Command>) {
    // A room that has ended and is yet to be told of; nothing follows from the others before it.
    let mut closed = None;
    // Whether nothing can come in any more.
    let mut ended = false;
    loop {
        let wake_at = host.poll(Budget::fuel(FUEL_PER_POLL));
        tell_closed(&mut host, &mut closed);
        let is_full = host.is_blocked() || closed.is_some();
        let has_work = wake_at.is_some_and(|at| at <= host.clock().now());
        if ended && !is_full && !has_work {
            return;
        }
        if has_work {
            // Others in this thread want to go on, too.
            tokio::task::yield_now().await;
        }
        let said = host.transport().said.clone();
        let writable = async {
            match is_full {
                true => drop(said.reserve().await),
                false => core::future::pending().await,
            }
        };
        if ended {
            if !has_work {
                writable.await;
            }
            continue;
        }
        match wait(&mut commands, wake_at, host.clock(), writable).await {
            Wake::Command(command) => command.apply(&mut host),
            Wake::Time | Wake::Writable => {}
            Wake::Ended => ended = true,
        }
    }
}

/// Tells of rooms that have ended, as far as the channel has room.
fn tell_closed(host: &mut Host<TokioClock, ChannelTransport>, next: &mut Option<ClosedRoom>) {
    while let Some(closed) = next.take().or_else(|| host.poll_closed()) {
        match host.transport().said.try_reserve() {
            Ok(place) => place.send(Said::Closed(closed)),
            Err(mpsc::error::TrySendError::Full(())) => {
                *next = Some(closed);
                return;
            }
            // Whoever does not listen does not care.
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
    }
}

impl Command {
    fn apply(self, host: &mut Host<TokioClock, ChannelTransport>) {
        match self {
            // Whoever does not wait for the answer does not care.
            Self::Open { id, module, reply } => {
                let _ = reply.send(host.open(&id, &module));
            }
            Self::Event { room, event, reply } => {
                let _ = reply.send(host.handle_event(room, event.as_event()));
            }
            Self::Close { room } => host.close(room),
        }
    }
}

/// Sends into a bounded channel, and refuses while that is full.
struct ChannelTransport {
    said: mpsc::Sender<Said>,
}

impl Transport for ChannelTransport {
    type Error = &'static str;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
        // Look before copying the payload.
        let place = self.said.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => SendError::WouldBlock,
            mpsc::error::TrySendError::Closed(()) => SendError::Failed("nobody receives any more"),
        })?;
        let recipient = output.recipient;
        place.send(match output.payload {
            MessagePayload::Text(text) => Said::Text {
                room,
                recipient,
                text: text.to_owned(),
            },
            MessagePayload::Bytes(bytes) => Said::Bytes {
                room,
                recipient,
                bytes: bytes.to_owned(),
            },
        });
        Ok(())
    }
}

/// Why [`wait`] has returned.
#[derive(Debug)]
pub enum Wake<M> {
    /// Something came in.
    Command(M),
    /// The time has come.
    Time,
    /// The transport has room again.
    Writable,
    /// Nothing can come in any more.
    Ended,
}

/// Waits until something comes in, until `wake_at` (what [`Host::poll`] answered), or until the
/// transport is writable (a future that stays pending while nothing was refused).
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

/// The clock of tokio, which tests can pause; its origin is when it was made.
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

    /// A point of this clock as tokio has it; far away ones are brought within its range.
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
