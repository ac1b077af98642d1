//! Drop-in for `stateroom-wasm-host`: services of the published `stateroom` crate from WebAssembly
//! modules, on the wasmi interpreter instead of a JIT.
//!
//! A program on `stateroom-wasm-host` 0.4.4 changes its `use` line:
//!
//! ```
//! # #[cfg(feature = "v0_4")] {
//! // use stateroom_wasm_host::WasmHostFactory;
//! use stateroom_wasmi_service::WasmHostFactory;
//! # }
//! ```
//!
//! One on 0.2.9 turns on the feature `v0_2` and uses `v0_2::WasmHostFactory`. A module may be of
//! either version of the ABI behind either version of the traits.
//!
//! # What the traits leave open
//!
//! The traits of `stateroom` have no errors and no clock: an event cannot be refused, and nobody asks
//! a service whether it has something to do. So this is decided here:
//!
//! - **A guest's failure** is never a panic. It is logged, and the factory's
//!   [fault policy](WasmHostFactory::on_fault) decides what follows. By default the room goes on with
//!   the state that is left, as under the published host 0.2.9. Only a guest that cannot be
//!   initialised makes `build` return an error.
//! - **A guest that runs long** holds up its caller, as under the published host, but only until its
//!   event has used up its fuel ([`Limits::max_fuel_per_event`]) or its
//!   [time](WasmHostFactory::max_event_time). Then it has failed.
//! - **A guest that sends too much** within one event ([`Limits::max_outbox_messages`],
//!   [`Limits::max_outbox_bytes`]) has failed. What it sent before that is sent.
//! - **The timer** is the context's. A room that is to restart uses it for its delay.
//! - **A message that is too long** ([`Limits::max_message_bytes`]) is dropped, and so is what comes
//!   when a room that waits for its restart has no more space for it. The log says so now and then.
//! - **A closed room** handles nothing more; `WasmHost::room` tells why it is closed.
//!
//! The log is that of the `log` crate.

#![forbid(unsafe_code)]

#[cfg(not(any(feature = "v0_2", feature = "v0_4")))]
compile_error!("stateroom-wasmi-service implements nothing without the feature `v0_4` or `v0_2`");

mod context;
mod error;
mod factory;
mod service;
#[cfg(feature = "v0_2")]
pub mod v0_2;
#[cfg(feature = "v0_4")]
pub mod v0_4;

#[cfg(feature = "v0_4")]
pub use self::v0_4::WasmHost;
pub use self::{error::WasmRuntimeError, factory::WasmHostFactory};
/// What a factory is configured with, and what it returns.
pub use stateroom_wasmi_host::{
    Backoff, Fault, FaultPolicy, Limits, LoadError, LoadOptions, Module, OpenError, Room, RoomStats,
};
