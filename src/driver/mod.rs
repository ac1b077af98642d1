//! What feeds a host on a given platform.

#[cfg(feature = "embedded-hal")]
pub mod embedded_hal;
pub mod fixed_capacity;
#[cfg(feature = "tokio")]
pub mod tokio;
