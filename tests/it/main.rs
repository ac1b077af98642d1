//! All integration tests in one binary; one file for each subject. They go through the public API
//! alone, in virtual time.

mod abi_0_2;
mod abi_0_4;
mod check;
#[cfg(feature = "embedded-hal")]
mod delay;
mod determinism;
mod estimate;
mod faults;
mod fixed;
mod host;
mod limits;
#[cfg(feature = "link")]
mod link;
mod published;
mod restart;
#[cfg(feature = "rollback")]
mod rollback;
#[cfg(feature = "cli")]
mod serve;
mod sim;
mod slices;
mod stack;
mod support;
mod timers;
#[cfg(feature = "tokio")]
mod tokio_driver;
mod transport;
#[cfg(feature = "trim")]
mod trim;
#[cfg(feature = "unchecked")]
mod unchecked;
mod wasi;
