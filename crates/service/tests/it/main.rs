//! The services, behind the published traits. Each test names a difference from the published hosts,
//! or that there is none; docs/stateroom.md refers to them.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod clients;
mod faults;
mod loading;
mod rooms;
mod support;
mod timers;
