//! Runs Stateroom rooms, small stateful WebAssembly modules that talk to a group of clients, on the
//! [wasmi](https://docs.rs/wasmi) interpreter.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

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

pub mod abi;
#[cfg(feature = "tokio")]
pub mod driver;
mod error;
mod event;
mod guest;
mod host;
mod limits;
mod module;
mod queue;
mod room;
mod time;

#[cfg(feature = "std")]
pub use self::host::SystemClock;
pub use self::{
    error::{EventError, Fault, FaultCause, LoadError, OpenError, Trap},
    event::{ClientId, Event, MessagePayload, MessageRecipient, Output},
    guest::EngineError,
    host::{
        Budget, Clock, ClosedRoom, Host, HostLimits, ManualClock, RecordingTransport, RoomKey, SendError,
        Sent, SentPayload, Transport,
    },
    limits::Limits,
    module::{Compilation, Module},
    room::{Room, RoomOptions, RoomStats},
    time::Instant,
};
