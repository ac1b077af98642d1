//! Rooms on a microcontroller, independent of the board, which provides a clock, a UART and a way
//! to sleep.
#![no_std]

extern crate alloc;

pub mod heap;
pub mod low_memory;
pub mod measure;
#[cfg(feature = "snapshot")]
pub mod recordings;
pub mod replay;
#[cfg(feature = "snapshot")]
mod room_file;
pub mod rooms;
pub mod selftest;
pub mod serial;
pub mod serve;
pub mod stack;
