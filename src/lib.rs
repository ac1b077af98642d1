//! Runs Stateroom rooms on the [wasmi](https://docs.rs/wasmi) interpreter.
//!
//! A *Stateroom room* is a small stateful WebAssembly module that serves a group of clients: it is
//! told of connects, disconnects, messages and timers, and it sends messages back. The published
//! host, `stateroom-wasm-host`, compiles such modules with a JIT. This crate is the host for places
//! that allow none, or have no operating system: iOS, game consoles, microcontrollers. A module
//! made for the JIT host runs here unchanged, whether it speaks ABI 0.2 or 0.4, with or without
//! WASI. The crate is `no_std` and needs an allocator.
//!
//! # A room in twenty lines
//!
//! The core reads no clock and opens no socket: the driver gives it a [`Clock`] and a [`Transport`].
//!
//! ```
//! use stateroom_wasmi_host::*;
//!
//! struct Print;
//!
//! impl Transport for Print {
//!     type Error = core::convert::Infallible;
//!
//!     fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Self::Error>> {
//!         println!("room {room} says {:?} to {:?}", output.payload, output.recipient);
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
//! host.handle_event(room, Event::Connect(ClientId(1)))?;
//! host.handle_event(room, Event::message(ClientId(1), "+"))?;
//! while let Some(wake_at) = host.poll(Budget::UNLIMITED) {
//!     clock.set(wake_at); // A real driver sleeps until then, or until something comes in.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The picture
//!
//! ```text
//!     clients ──▶ driver (tokio server · firmware loop · game engine)
//!                    │ Event                      ▲ Transport::send
//!                    ▼                            │
//!     ┌──────────────── Host: many rooms, one timer queue, a slice for each in turn ────┐
//!     │      Room: a state machine over one guest, without clock, socket or thread      │
//!     │      guest: an instance of a Module, which was compiled and checked once        │
//!     └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Module`] is the `.wasm`; [`Room`] is one instance of it with its clients; [`Host`] runs many
//! rooms. Use a `Room` by itself to drive one from an event loop of your own. On a desktop,
//! `driver::tokio` (feature `tokio`) runs a host in a task, and `driver::server` (feature `server`)
//! is a WebSocket server.
//!
//! # What holds
//!
//! - **In through `handle_*`, out through `poll_*`.** A call that is not called for does nothing.
//!   One event is one call of the guest. A room in the middle of an event is never entered again:
//!   further events wait in its inbox, in order.
//! - **Time is an argument.** Deadlines count from the `now` of the event that sets them; a late
//!   timer fires once; time that runs backwards stands still; all arithmetic saturates.
//! - **A guest's failure is a value.** Traps, wild pointers, endless loops, memory bombs, stack
//!   overflows and everything else that a guest may do become a [`Fault`] that closes its room (or
//!   restarts it, or is undone: [`FaultPolicy`]), and no other. Panics of this crate are for its own
//!   broken invariants.
//! - **Everything has a limit**, see [`Limits`] and [`HostLimits`]. A guest that uses up its slice
//!   of fuel is paused in the middle of whatever it does, and resumed after the others had theirs.
//! - **Same in, same out.** A module that is given the same events at the same times, with the same
//!   seed, sends the same bytes and uses the same fuel, however it was sliced, on every platform.
//! - **A module is checked when it is loaded**, and [`LoadError::Abi`] lists all that is wrong with
//!   it. Nothing is found out at the first message.
//!
//! # Features
//!
//! All but the first are off by default, and each adds something without changing the rest.
//!
//! | feature | what it brings |
//! | --- | --- |
//! | `validate` (default) | `Module::load`: modules are validated |
//! | `unchecked` | `Module::load_unchecked` (unsafe): for firmware that has no place for the validator, with modules that were validated when it was built |
//! | `std` | `SystemClock` |
//! | `log` | what guests print, and what becomes of rooms, through the `log` crate |
//! | `simd` | guests may use SIMD instructions, as the JIT host lets them |
//! | `wat` | modules in the text format |
//! | `trim` | `Room::trim`: memory that a guest does not use goes back to the operating system (Linux) |
//! | `rollback` | `FaultPolicy::Rollback`: a room undoes the event that broke its guest |
//! | `embedded-hal` | `driver::embedded_hal`: time and sleep by a `DelayNs` |
//! | `link` | `driver::link`: rooms on a board, their clients at the other end of a line |
//! | `embedded-io` | the same over what implements the traits of `embedded-io` |
//! | `tokio` | `driver::tokio`: a host in a task |
//! | `server` | `driver::server`: a WebSocket server with a page to play with the rooms |
//! | `attach` | `driver::server::Server::attach`: the same for the rooms of a board |
//! | `tool` | the tool `stateroom-wasmi` without `serve` and `attach` |
//! | `cli` | the whole tool |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![cfg_attr(not(any(feature = "trim", feature = "unchecked")), forbid(unsafe_code))]
#![deny(unsafe_code)]
#![cfg_attr(
    not(any(feature = "validate", feature = "unchecked")),
    allow(
        dead_code,
        unused_imports,
        reason = "a library may leave it to the program how modules are loaded"
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
mod event;
mod fault_policy;
mod guest;
mod heap_estimate;
mod host;
mod limits;
mod module;
mod room;
mod storage;
mod time;

#[cfg(feature = "std")]
pub use self::host::SystemClock;
pub use self::{
    error::{EngineError, EventError, Fault, FaultCause, LoadError, OpenError, Trap},
    event::{ClientId, Event, MessagePayload, MessageRecipient, Output},
    fault_policy::{Backoff, FaultPolicy},
    guest::Compilation,
    heap_estimate::HeapEstimate,
    host::{
        Budget, Clock, ClosedRoom, Host, HostLimits, ManualClock, RecordingTransport, RoomKey,
        SendError, Sent, SentPayload, Transport,
    },
    limits::Limits,
    module::{LoadOptions, Module},
    room::{Room, RoomOptions, RoomStats},
    time::Instant,
};

/// The code of the README is tested, too.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
