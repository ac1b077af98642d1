//! Runs Stateroom rooms on the [wasmi](https://docs.rs/wasmi) interpreter.
//!
//! A *Stateroom room* is a small stateful WebAssembly module that serves a group of clients: it
//! handles connects, disconnects, messages and a timer, and sends messages back. The published host,
//! `stateroom-wasm-host`, compiles such modules with a JIT. This crate is the host for places that
//! allow no JIT, or have no operating system: iOS, game consoles, microcontrollers. A module made for
//! the JIT host runs here unchanged, whether it uses ABI 0.2 or 0.4, with or without WASI. The crate
//! is `no_std` and needs an allocator.
//!
//! # A room in twenty lines
//!
//! The core reads no clock and opens no socket: the driver implements [`Clock`] and [`Transport`].
//!
//! ```
//! use stateroom_wasmi_host::*;
//!
//! struct Print;
//!
//! impl Transport for Print {
//!     type Error = core::convert::Infallible;
//!
//!     fn send(
//!         &mut self,
//!         room: RoomKey,
//!         message: OutputMessage<'_>,
//!     ) -> Result<(), SendError<Self::Error>> {
//!         println!("room {room} sends {:?} to {:?}", message.payload, message.recipient);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../examples/rooms/wasm/counter-c.wasm");
//! let module = Module::load(wasm, &Limits::default())?;
//! let clock = ManualClock::new();
//! let mut host = Host::new(&clock, Print);
//! let room = host.open("lobby", &module)?;
//! host.enqueue(room, Event::Connect(ClientId(1)))?;
//! host.enqueue(room, Event::message(ClientId(1), "+"))?;
//! while let Some(wake_at) = host.poll(Budget::UNLIMITED) {
//!     clock.set(wake_at); // A real driver sleeps until then, or until there is input.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! ```text
//!     clients ──▶ driver (server · firmware loop · game engine)
//!                    │ Event                      ▲ Transport::send
//!                    ▼                            │
//!     ┌──────────────── Host: many rooms, one timer queue, a slice for each in turn ────┐
//!     │      Room: a state machine over one guest, without clock, socket or thread      │
//!     │      guest: an instance of a Module, which was compiled and checked once        │
//!     └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Module`] is the `.wasm`; [`Room`] is one instance of it with its clients; [`Host`] runs many
//! rooms. Use a `Room` by itself to drive one from your own event loop. `driver::tokio` (feature
//! `tokio`) runs a host in a task. A WebSocket server, and the protocol between rooms on a board and
//! their clients elsewhere, are crates of their own: see the repository.
//!
//! # Guarantees
//!
//! - **In through `handle_*` or `enqueue`, out through `poll_*`.** Spurious calls are no-ops. One
//!   event is one delivery to the guest. A room in the middle of an event is never re-entered:
//!   further events wait in its inbox, in order.
//! - **Time is an argument.** Deadlines count from the `now` of the event that sets them; a late
//!   timer fires once; time that runs backwards stands still; all arithmetic saturates. A room's
//!   time starts at its creation ([`Instant`]).
//! - **A guest's failure is a value.** Traps, wild pointers, endless loops, memory bombs, stack
//!   overflows and everything else that a guest may do become a [`Fault`] of its room, which closes,
//!   restarts, goes on as it is or undoes the event ([`FaultPolicy`]); no other room is affected. Panics of this crate
//!   are for its own broken invariants.
//! - **Everything has a limit**: see [`Limits`] and [`HostLimits`]. A guest that uses up its slice of
//!   fuel is paused, whatever it does, and resumed after the others had theirs.
//! - **Deterministic.** The same module, events, times and seed give the same outputs and the same
//!   fuel, however sliced, on every platform.
//! - **A module is checked when it is loaded**, and [`LoadError::Abi`] lists all that is wrong with
//!   it. Nothing is found out at the first message.
//!
//! # Features
//!
//! All but the first two are off by default. Each adds something and changes nothing else.
//!
//! | feature | adds |
//! | --- | --- |
//! | `validate` (default) | `Module::load`: modules are validated |
//! | `wasi` (default) | modules may import functions of WASI; without it those that do are refused |
//! | `unchecked` | `Module::load_unchecked` (unsafe): for firmware without space for the validator, with modules that were validated when it was built |
//! | `std` | `SystemClock` |
//! | `log` | what guests print, and what happens to rooms, goes to the `log` crate |
//! | `simd` | `LoadOptions::simd`: modules may use SIMD instructions, as under the JIT host |
//! | `wat` | modules in the text format |
//! | `trim` | `Room::trim`: memory that a guest does not use is returned to the operating system (Linux) |
//! | `snapshot` | `Room::save` and `Room::load`, `Room::replay`, `Room::fork`, `RewindBuffer`; `FaultPolicy::Rollback`: a room undoes the event that broke its guest |
//! | `embedded-hal` | `driver::embedded_hal`: a clock on a `DelayNs` |
//! | `tokio` | `driver::tokio`: a host in a task |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![cfg_attr(not(any(feature = "trim", feature = "unchecked")), forbid(unsafe_code))]
#![deny(unsafe_code)]
#![cfg_attr(
    not(any(feature = "validate", feature = "unchecked")),
    allow(
        dead_code,
        unused_imports,
        reason = "a library leaves it to the program how modules are loaded"
    )
)]

#[cfg(not(target_has_atomic = "ptr"))]
compile_error!(
    "stateroom-wasmi-host needs a target with atomic pointers, since the interpreter counts \
     references with them; thumbv6m and riscv32imc have none, thumbv7m and riscv32imac do"
);

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

/// Logs through the `log` crate if the feature is on, and else evaluates nothing.
macro_rules! log {
    ($level:ident, $($message:tt)+) => {
        #[cfg(feature = "log")]
        log::$level!($($message)+)
    };
}

#[macro_use]
mod setters;

pub mod abi;
pub mod driver;
mod error;
mod escape;
mod event;
mod fault_policy;
mod guest;
mod heap_estimate;
mod host;
mod limits;
mod load_options;
mod module;
#[cfg(feature = "snapshot")]
mod replay;
mod room;
#[cfg(feature = "snapshot")]
mod snapshot;
mod storage;
mod structure;
mod time;

#[cfg(feature = "std")]
pub use self::host::SystemClock;
pub use self::{
    error::{
        EngineError, EventError, Fault, FaultCause, LoadError, OpenError, ReplaceError, Trap,
        UnknownRoom, WithSources,
    },
    escape::Escaped,
    event::{
        ClientId, Event, EventHeader, MessagePayload, MessageRecipient, Output, OutputMessage,
        OwnedEvent, OwnedPayload,
    },
    fault_policy::{Backoff, FaultPolicy},
    heap_estimate::HeapEstimate,
    host::{
        Budget, Clock, ClosedRoom, Host, ManualClock, RecordingTransport, RoomKey, SendError,
        SentMessage, Slice, Transport,
    },
    limits::{HostLimits, Limits, LimitsError},
    load_options::{Compilation, LoadOptions, PayloadBuffer},
    module::Module,
    room::{Room, RoomOptions, RoomStats},
    time::Instant,
};
#[cfg(feature = "snapshot")]
pub use self::{
    replay::{EventRecord, RecordedEvent, ReplayError},
    room::RewindBuffer,
    snapshot::{
        EngineVersion, ModuleHash, SaveError, SnapshotError, SnapshotInfo, SnapshotOptions,
        StateHash, UpgradeError,
    },
};

/// The code of the README is tested as well.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of docs/embedding.md is tested, too.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;

/// And that of docs/snapshots.md.
#[cfg(all(doctest, feature = "tokio", feature = "snapshot"))]
#[doc = include_str!("../docs/snapshots.md")]
struct Snapshots;
