//! The WebSocket subprotocol [`stateroom.resume.1`](SUBPROTOCOL): a client whose connection is lost
//! connects again and goes on, and each message arrives exactly once, both ways.
//!
//! `docs/resume.md` is the specification. This crate has what both ends share, without I/O: the
//! [frames](Frame), and a [window](Window) of messages that were not acknowledged; and the client's end,
//! [`ClientSession`]. The server's is in `stateroom-wasmi-server`, and a client in JavaScript in `js/`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod frame;
mod window;

pub use self::{
    client::{ClientError, ClientSession, Incoming, Message, MessageRef},
    frame::{Frame, InvalidFrame},
    window::{InvalidCount, Window, WindowFull},
};

/// The client in JavaScript, an ES module: for servers that serve it with their pages.
pub const JAVASCRIPT: &str = include_str!("../js/stateroom-resume.js");

/// The name of the subprotocol.
pub const SUBPROTOCOL: &str = "stateroom.resume.1";
