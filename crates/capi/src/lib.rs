//! The C interface of `stateroom-wasmi-host`: what `include/stateroom.h` declares, which is generated
//! from here. The items have the names that they have in C, and their documentation is the header's.
//!
//! The crate's README is the manual: building, linking, ownership, threads, errors, allocators.
//!
//! # Safety
//!
//! C cannot state what a pointer is good for; the header states it in words. Each function is `unsafe`
//! for that reason alone, and begins by making a `Caller`, which stands for the promise that its
//! pointers are what the header says. Everything after that is safe code: `ffi/` turns pointers into
//! references, slices and handles, and checks what can be checked.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the rules are the header's, stated once"
)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod allocator;
mod buffer;
mod callbacks;
mod clock;
mod failure;
mod fault;
mod ffi;
mod host;
mod limits;
mod log_line;
#[cfg_attr(not(feature = "log"), path = "log_sink_off.rs")]
mod log_sink;
mod module;
mod number;
#[cfg(not(feature = "std"))]
mod panic_handler;
mod room;
mod snapshot;
mod stats;
mod status;
mod version;

pub use self::{
    allocator::*, buffer::*, callbacks::*, fault::*, host::*, limits::*, log_line::*, module::*,
    number::*, room::*, snapshot::*, stats::*, status::*, version::*,
};
