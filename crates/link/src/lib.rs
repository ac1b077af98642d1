//! Stateroom rooms on a microcontroller, with their clients at the other end of a UART, of USB or of a
//! socket: a reliable message protocol over a byte stream that may lose bytes, for both ends.
//!
//! The *board* runs a [`Host`](stateroom_wasmi_host::Host) and a [`Link`]. The *bridge* is the end
//! where the clients are: `stateroom-wasmi attach PORT`, which serves the board's rooms over
//! WebSockets, or a program of your own with [`Bridge`]. [`protocol`] specifies what goes over the
//! line.
//!
//! # Run loop
//!
//! The transport of the host is a [`LinkTransport`]; a [`Wire`] reads and writes the line.
//! [`Link::poll`] reads, runs the host, and writes, none of which blocks.
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
//! link.add_room(&mut host, room)?;
//! loop {
//!     let wake_at = link.poll(&mut host, Budget::fuel(100_000))?;
//!     while let Some(closed) = link.poll_closed(&mut host) {
//!         // The guest failed: open the room again, or leave it closed.
//!         # drop(closed);
//!     }
//!     if !link.wants_write(&mut host) {
//!         sleep_until_interrupt_or(wake_at);
//!     }
//!     # break Ok(());
//! }
//! # }
//! ```
//!
//! # The wire
//!
//! [`Wire`] is a few lines over the registers of a UART; the feature `embedded-io` has it for drivers
//! with the traits of that crate. Its reads and writes must not block, since the host would stand
//! still.
//!
//! Bytes that the hardware drops because nobody reads them in time cost a retransmission, but no
//! message. A UART buffers a few bytes at most, and a guest's slice takes as long as its fuel, so use
//! an interrupt or DMA that fills a queue, and set [`LinkOptions::receive_buffer_bytes`] to its length.
//! With hardware flow control or over USB no bytes are dropped.
//!
//! # Memory and limits
//!
//! A link and its transport each have a buffer of `N` bytes and take some hundred bytes besides.
//! After start-up, nothing is allocated for frames in either direction.
//!
//! | limit | value |
//! | --- | --- |
//! | `N`, see [`buffer_bytes`] | 256 to 65,535 bytes |
//! | rooms of a link ([`MAX_ROOMS`]) | 8 |
//! | length of a room's id ([`MAX_ROOM_ID_BYTES`]) | 64 bytes |
//! | frames without an acknowledgement | 64 |
//! | bytes that one poll reads | about `N` |
//! | silence after which a session ends ([`LinkOptions::session_timeout`]) | 10 s |
//!
//! When the send buffer is full, outputs stay with the host ([`SendError::WouldBlock`]); an output that
//! is longer than the buffer is dropped ([`LinkSendError::TooLong`]). When a room's inbox is full, the
//! bridge is told to wait.
//!
//! [`SendError::WouldBlock`]: stateroom_wasmi_host::SendError::WouldBlock
//!
//! # Panics
//!
//! Nothing here panics, whatever comes over the line.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what |
//! | --- | --- |
//! | `bridge` | [`Bridge`], the computer's end; needs `alloc` |
//! | `embedded-io` | `Ready`, `ReadyHalves` and `NonBlocking`: wires of `embedded-io` drivers |
//! | `log` | ends of sessions go to the `log` facade |
//! | `snapshot` | rooms go to the bridge and come from it, if [`LinkOptions`] allow it; needs `alloc` |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(feature = "bridge", feature = "snapshot"))]
extern crate alloc;

/// Logs through the `log` crate if the feature is on; expands to nothing otherwise.
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
#[cfg(any(feature = "bridge", feature = "snapshot"))]
mod incoming;
mod messages;
#[cfg(feature = "snapshot")]
mod transfer;
mod transport;
mod wire;

#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {
    pub use crate::messages::VERSION;
}

#[cfg(feature = "bridge")]
pub use self::bridge::{BoardMessage, Bridge, BridgeSendError, SessionError};
#[cfg(feature = "embedded-io")]
pub use self::embedded_io::{NonBlocking, Ready, ReadyHalves, WireError};
#[cfg(any(feature = "bridge", feature = "snapshot"))]
pub use self::incoming::{IncomingSnapshot, WrongPiece};
#[cfg(feature = "snapshot")]
pub use self::transfer::LoadRoomError;
pub use self::{
    board::{AddRoomError, Link, LinkOptions},
    messages::{RefusalReason, TransferReason},
    transport::{LinkSendError, LinkTransport, MAX_ROOM_ID_BYTES, MAX_ROOMS},
    wire::Wire,
};

/// The buffer that a link needs for messages of this length, in bytes; at least 256.
#[must_use]
pub const fn buffer_bytes(max_message_bytes: usize) -> usize {
    // `max_body_bytes` rounds down where the length of a frame is a multiple of 254.
    let bytes = framing::max_wire_bytes(max_message_bytes + messages::OUTPUT_HEADER_BYTES) + 1;
    if bytes < 256 { 256 } else { bytes }
}

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
