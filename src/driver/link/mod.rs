//! Rooms on a board, their clients at the other end of a line: a UART, USB, a socket.
//!
//! ```
//! use stateroom_wasmi_host::{driver::link::*, *};
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
//! # What goes over the line
//!
//! Version 1 of the format; [`VERSION`]. Numbers have their least byte first.
//!
//! A **frame** is `kind` (1 byte), `number` (1 byte), a body, and the CRC-32 (ISO HDLC, as zip has it)
//! of these, 4 bytes. It is encoded with [COBS](https://doi.org/10.1109/90.769765), which leaves it
//! without zeros, and goes over the line between two zeros. What does not decode, or has another
//! checksum, is noise, and is thrown away; what comes after the next zero is a frame again.
//!
//! *Board* is the side that has the rooms; *bridge* the side that has the clients.
//!
//! | kind | name | from | body |
//! | --- | --- | --- | --- |
//! | `01` | hello | both | version (1), session (4), longest body that the sender takes (4), bytes that it takes before it answers (4) |
//! | `02` | ack | both | |
//! | `03` | resend | both | |
//! | `04` | busy | both | |
//! | `05` | ping | bridge | |
//! | `10` | connect | bridge | room (1), client (4) |
//! | `11` | disconnect | bridge | room (1), client (4) |
//! | `12` | text | bridge | room (1), client (4), UTF-8 |
//! | `13` | bytes | bridge | room (1), client (4), bytes |
//! | `20` | room | board | room (1), longest message that it takes (4), its id in UTF-8 |
//! | `21` | closed | board | room (1), 1 if its guest has failed or else 0 (1), how in UTF-8 |
//! | `22` | joined | board | room (1), client (4) |
//! | `23` | refused | board | room (1), client (4), reason (1) |
//! | `24` | text | board | room (1), recipient (1), client (4), UTF-8 |
//! | `25` | bytes | board | room (1), recipient (1), client (4), bytes |
//!
//! Kinds from `10` on are *numbered*. Others, whoever does not know them throws away. A recipient is 0:
//! everybody, 1: the client, 2: everybody but the client. The reasons are 1: there is no such room,
//! 2: the room is full, 3: the message is too long, 4: not a number that a client may have (1 to
//! 2³¹ − 1), 5: the client is connected already, 6: the text is not UTF-8.
//!
//! **Sessions.** The bridge says hello with a session of its choice, any number but 0 and not the one
//! before, until it hears a hello with the same session. Then the board has forgotten what was before,
//! all clients have left, and on both sides the next numbered frame is number 0. A board without a
//! session answers whatever else it hears with a hello of session 0, and sends one when it starts: the
//! bridge, if it thought that there was a session, begins a new one. A board that does not know the
//! version answers likewise. A bridge that leaves says hello with session 0. The bridge sends a ping when it has sent nothing for a second. A board
//! that hears nothing for ten ends the session.
//!
//! **Numbers.** Each side counts the numbered frames that it sends, modulo 256, and takes those of the
//! other in their order. The `number` of an ack, a resend, a busy and a ping is that of the frame that
//! their sender takes next: it has all before. A frame that was taken is answered by an ack (one for
//! several will do), and so is a ping. A frame that was taken before is answered by an ack again. If
//! there is noise, or a number is ahead of the next, the answer is one resend: go back to that number.
//! If there is no place for a frame now, it is not taken and the answer is a busy; a resend follows
//! when there is. Whoever hears no answer for half a second goes back by itself, after twice the time
//! for each time that it is in vain. No more bytes than the other side's hello says go unanswered, or
//! one frame if that is longer, and no more than 64 frames.
//!
//! **Rooms.** After the hello the board tells of its rooms and their numbers, and then of those that
//! are opened and closed. A connect is answered by joined when its turn has come, or by refused. What
//! a room says to everybody is for those whose joined came before it. A closed room has no clients any
//! more.

#[cfg(feature = "attach")]
mod bridge;
mod carrier;
mod device;
#[cfg(feature = "embedded-io")]
mod embedded;
mod framing;
mod transport;
mod wire;
mod wire_format;

#[cfg(feature = "embedded-io")]
pub use self::embedded::{NonBlocking, Ready, ReadyHalves, WireError};
#[cfg(feature = "attach")]
pub(crate) use self::{
    bridge::{Bridge, Lost, Told},
    wire_format::Reason,
};
pub use self::{
    device::{CarryError, Link, LinkOptions},
    transport::{LinkSendError, LinkTransport, MAX_ROOM_ID_BYTES, MAX_ROOMS},
    wire::Wire,
    wire_format::VERSION,
};

/// The buffer that a link needs for messages of this length; at least 256 bytes.
#[must_use]
pub const fn buffer_bytes(message_bytes: usize) -> usize {
    // One more, where the frame's length is a multiple of 254.
    let bytes = framing::wire_bytes(message_bytes + wire_format::OUTPUT_HEAD) + 1;
    if bytes < 256 { 256 } else { bytes }
}
