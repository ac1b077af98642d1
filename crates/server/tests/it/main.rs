//! Servers in the process of the test, with real WebSocket clients.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod cluster;
mod journaled;
mod resuming;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;
