//! The words that all hosts of the comparison are spoken to in: what happens to a room, and what it
//! says.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A host under comparison.
pub trait Runtime {
    /// Compiles a module, from its bytes and with nothing prepared before.
    fn load(&self, wasm: &[u8]) -> anyhow::Result<Box<dyn Module>>;
}

pub trait Module {
    /// Opens a room, whose outputs go to `ears`.
    fn open(&self, id: &str, ears: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>>;
}

pub trait Room {
    /// Lets an event happen to its end. The hosts that panic over a guest do so here.
    fn handle(&mut self, event: Event<'_>);

    /// Gives back memory that the room does not use, where the host can.
    fn trim(&mut self) {}

    /// Why the room no longer lives, as far as the host can tell.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// What happens to a room.
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
    Everybody,
    Client(u32),
    EverybodyBut(u32),
}

/// Who hears what a room says, in order.
pub trait OutputSink: Send + Sync {
    fn message(&self, to: Recipient, payload: Payload<'_>);

    /// The timer was set to run off after so many milliseconds; 0 takes it away.
    fn timer(&self, ms: u32);
}

/// What a room said, to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(Recipient, String),
    Binary(Recipient, Vec<u8>),
    Timer(u32),
}

/// OutputSink that write everything down.
#[derive(Default)]
pub struct Notebook(Mutex<Vec<Said>>);

impl Notebook {
    /// What was said since the last time.
    pub fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.lines())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Said>> {
        // A host that panicked in the middle of an event does not make the notes wrong.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl OutputSink for Notebook {
    fn message(&self, to: Recipient, payload: Payload<'_>) {
        self.lines().push(match payload {
            Payload::Text(text) => Said::Text(to, text.to_owned()),
            Payload::Binary(bytes) => Said::Binary(to, bytes.to_owned()),
        });
    }

    fn timer(&self, ms: u32) {
        self.lines().push(Said::Timer(ms));
    }
}

/// OutputSink that only count, for figures. Rooms that share one belong to one thread.
#[derive(Default)]
pub struct Tally {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }
}

impl OutputSink for Tally {
    fn message(&self, _: Recipient, payload: Payload<'_>) {
        // Not one atomic addition, which would cost as much as a small import.
        self.messages
            .store(self.messages.load(Relaxed) + 1, Relaxed);
        self.bytes
            .store(self.bytes.load(Relaxed) + payload.len() as u64, Relaxed);
    }

    fn timer(&self, _: u32) {}
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
