//! Adapters of a host to runtimes and HALs.

#[cfg(feature = "embedded-hal")]
pub mod embedded_hal;
pub mod fixed_capacity;
#[cfg(feature = "tokio")]
pub mod tokio;
