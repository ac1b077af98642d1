//! The published servers run the same rooms by the JIT hosts and by this project's service, which is
//! the only thing that differs between two programs; what WebSocket clients see must be the same.
#![cfg(feature = "server")]

mod aper;
mod client;
mod programs;
mod rooms;
