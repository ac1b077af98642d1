//! The interface to all hosts under comparison: events into a room, outputs to a sink.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A host under comparison.
pub trait Runtime {
    /// Compiles a module from its bytes, with nothing cached.
    fn load(&self, wasm: &[u8]) -> anyhow::Result<Box<dyn Module>>;
}

pub trait Module {
    /// Opens a room whose outputs go to `sink`.
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>>;
}

pub trait Room {
    /// Runs an event to its end. Hosts that panic because of a guest do so here.
    fn handle(&mut self, event: Event<'_>);

    /// Returns unused memory of the room to the operating system, if the host can.
    fn trim(&mut self) {}

    /// Why the room was closed, if the host reports it.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// An event of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Connect(u32),
    Disconnect(u32),
    Message(u32, Payload<'a>),
    Timer,
}

impl<'a> Event<'a> {
    pub const fn text(client: u32, text: &'a str) -> Self {
        Self::Message(client, Payload::Text(text))
    }

    pub const fn binary(client: u32, bytes: &'a [u8]) -> Self {
        Self::Message(client, Payload::Binary(bytes))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl Payload<'_> {
    pub const fn len(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    Everyone,
    Client(u32),
    EveryoneExcept(u32),
}

/// Receives a room's outputs, in order.
pub trait OutputSink: Send + Sync {
    fn message(&self, to: Recipient, payload: Payload<'_>);

    /// The room's timer fires after this many milliseconds, or no more.
    fn timer(&self, ms: Option<u32>);
}

/// An output, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomOutput {
    Text(Recipient, String),
    Binary(Recipient, Vec<u8>),
    Timer(Option<u32>),
}

/// A sink that keeps all outputs.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<RoomOutput>>);

impl Recorder {
    /// The outputs since the last call.
    pub fn take(&self) -> Vec<RoomOutput> {
        std::mem::take(&mut *self.outputs())
    }

    fn outputs(&self) -> std::sync::MutexGuard<'_, Vec<RoomOutput>> {
        // The list is valid even if a host panicked in the middle of an event.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl OutputSink for Recorder {
    fn message(&self, to: Recipient, payload: Payload<'_>) {
        self.outputs().push(match payload {
            Payload::Text(text) => RoomOutput::Text(to, text.to_owned()),
            Payload::Binary(bytes) => RoomOutput::Binary(to, bytes.to_owned()),
        });
    }

    fn timer(&self, ms: Option<u32>) {
        self.outputs().push(RoomOutput::Timer(ms));
    }
}

/// A sink that only counts, for measurements. Rooms that share one must be on one thread.
#[derive(Default)]
pub struct OutputCounter {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl OutputCounter {
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }
}

impl OutputSink for OutputCounter {
    fn message(&self, _: Recipient, payload: Payload<'_>) {
        // Not an atomic addition, which would cost as much as a small import.
        self.messages
            .store(self.messages.load(Relaxed) + 1, Relaxed);
        self.bytes
            .store(self.bytes.load(Relaxed) + payload.len() as u64, Relaxed);
    }

    fn timer(&self, _: Option<u32>) {}
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        let (kind, len) = match self {
            Self::Text(_) => ("text", self.len()),
            Self::Binary(_) => ("binary", self.len()),
        };
        let start = match self {
            Self::Text(text) => text.chars().take(SHOWN).collect::<String>(),
            Self::Binary(bytes) => format!("{:?}", &bytes[..len.min(SHOWN / 4)]),
        };
        write!(f, "{kind} of {len} bytes, {start:?}")
    }
}
