//! What feeds a host on a given platform.

#[cfg(feature = "embedded-hal")]
pub mod delay;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "tokio")]
pub mod tokio;
