//! Tests of the C interface through its functions.

mod errors;
mod faults;
mod header;
mod hosts;
mod log;
mod misuse;
mod modules;
mod polling;
mod rooms;
mod snapshots;
mod structs;
mod support;
mod transports;
