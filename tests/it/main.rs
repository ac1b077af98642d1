//! All integration tests in one binary, one file per subject. They use only the public API, in
//! virtual time. Without the feature `wasi` those are left out whose guests import something of it.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![cfg_attr(
    not(feature = "wasi"),
    allow(
        dead_code,
        unused_imports,
        reason = "the tests that are left out use them"
    )
)]

mod abi_0_2;
mod abi_0_4;
mod api;
#[cfg(feature = "log")]
mod captured_log;
mod check;
mod continue_after_fault;
mod determinism;
#[cfg(feature = "embedded-hal")]
mod embedded_hal;
mod escaping;
mod events_handled;
mod far_stores;
mod faults;
mod fixed_capacity;
mod heap_estimate;
mod host;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod host_snapshots;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod hostile_snapshots;
#[path = "../support/instructions.rs"]
mod instructions;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod instrumented;
mod limits;
#[cfg(feature = "log")]
mod log_limits;
#[cfg(not(feature = "wasi"))]
mod no_wasi;
mod outputs;
mod payload_buffer;
#[cfg(feature = "wasi")]
mod poll_oneoff;
mod published;
mod replace_module;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod replays;
mod restart;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod rollback;
#[cfg(feature = "wasi")]
mod sim;
#[cfg(feature = "simd")]
mod simd;
mod slices;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod snapshots;
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod timers;
#[cfg(feature = "tokio")]
mod tokio_driver;
mod transport;
#[cfg(feature = "trim")]
mod trim;
#[cfg(feature = "unchecked")]
mod unchecked;
mod unmanaged;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod unsealed;
#[cfg(all(feature = "snapshot", feature = "wasi"))]
mod upgrade;
#[cfg(feature = "wasi")]
mod wasi;
