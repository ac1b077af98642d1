//! Rooms on a board, their clients at the other end of a line: a UART, USB, a socket.
//!
//! ```
//! use stateroom_wasmi_host::*;
//! use stateroom_wasmi_link::*;
//! # use std::convert::Infallible;
//! # struct Uart;
//! # impl Wire for Uart {
//! #     type Error = Infallible;
//! #     fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> { Ok(0) }
//! #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> { Ok(bytes.len()) }
//! # }
//! # struct Timer;
//! # impl Clock for Timer {
//! #     fn now(&self) -> Instant { Instant::ZERO }
//! # }
//! # fn sleep_until_interrupt_or(_: Option<Instant>) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm = include_bytes!("../../../examples/rooms/wasm/echo-c.wasm");
//! /// For messages of up to a kilobyte.
//! const BUFFER: usize = buffer_bytes(1024);
//!
//! let module = Module::load(wasm, &Limits::small())?;
//! let mut host = Host::new(Timer, LinkTransport::<BUFFER>::new());
//! let mut link = Link::new(Uart);
//! let room = host.open("chat", &module)?;
//! link.carry(&mut host, room)?;
//! loop {
//!     let wake_at = link.poll(&mut host, Budget::fuel(100_000))?;
//!     while let Some(closed) = link.poll_closed(&mut host) {
//!         // Its guest has failed: open it anew, or leave it.
//!         # drop(closed);
//!     }
//!     sleep_until_interrupt_or(wake_at);
//!     # break Ok(());
//! }
//! # }
//! ```
//!
//! After start-up nothing is allocated; a link and its transport together take about twice the buffer.
//!
//! On the other end, `stateroom-wasmi attach PORT` makes WebSockets of the line.
//!
#![doc = include_str!("../PROTOCOL.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "bridge")]
extern crate alloc;

/// Logs through the `log` crate if the feature is on, and else evaluates nothing.
macro_rules! log {
    ($level:ident, $($message:tt)+) => {
        #[cfg(feature = "log")]
        log::$level!($($message)+)
    };
}

mod arq;
mod board;
#[cfg(feature = "bridge")]
mod bridge;
#[cfg(feature = "embedded-io")]
mod embedded_io;
mod framing;
mod messages;
mod transport;
mod wire;

#[cfg(feature = "bridge")]
pub use self::bridge::{BoardMessage, Bridge, SessionError};
#[cfg(feature = "embedded-io")]
pub use self::embedded_io::{NonBlocking, Ready, ReadyHalves, WireError};
pub use self::{
    board::{CarryError, Link, LinkOptions},
    messages::{Reason, VERSION},
    transport::{LinkSendError, LinkTransport, MAX_ROOM_ID_BYTES, MAX_ROOMS},
    wire::Wire,
};

/// The buffer that a link needs for messages of this length; at least 256 bytes.
#[must_use]
pub const fn buffer_bytes(message_bytes: usize) -> usize {
    // One more, where the frame's length is a multiple of 254.
    let bytes = framing::wire_bytes(message_bytes + messages::OUTPUT_HEAD) + 1;
    if bytes < 256 { 256 } else { bytes }
}
