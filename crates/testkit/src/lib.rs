//! Tests for Stateroom rooms.
//!
//! A test loads a room's module, plays clients that connect, send and disconnect, lets virtual time
//! pass, and compares what each client receives. Nothing is served, nothing waits, and a test does the
//! same each time: the only inputs of a room are its events, their times and a seed.
//!
//! # In Rust
//!
//! ```
//! use std::time::Duration;
//! use stateroom_wasmi_testkit::TestRoom;
//!
//! let mut room = TestRoom::open(include_bytes!("../../../examples/rooms/wasm/clock-rust-0.4.wasm"));
//! room.connect(1);
//! room.expect_nothing();
//! room.advance(Duration::from_millis(999));
//! room.expect_nothing();
//! room.advance(Duration::from_millis(1));
//! room.expect(1, "tick 1");
//! ```
//!
//! What a test expects and does not get is a panic that shows both. So is a fault of the room that
//! [`TestRoom::expect_fault`] does not take, together with what the room printed before.
//!
//! # As a script
//!
//! A [`Script`] is the same as text, which people who do not write Rust can read and write.
//! [`assert_script`] runs one in `cargo test`, and `stateroom-wasmi test` runs them without Rust.
//! `docs/testing.md` of the repository has the format.
//!
//! ```
//! use stateroom_wasmi_testkit::{Script, TestOptions};
//!
//! let script = Script::parse("clock.test", "
//! connect 1
//! @ 1 s
//!   1 < \"tick 1\"
//! ")?;
//! let wasm = include_bytes!("../../../examples/rooms/wasm/clock-rust-0.4.wasm");
//! assert!(script.run(wasm, &TestOptions::new()).is_ok());
//! # Ok::<(), stateroom_wasmi_testkit::ScriptError>(())
//! ```
//!
//! # What ends a test
//!
//! Each event is bounded by [`Limits`], so a guest that runs without end
//! has a fault. A room as a whole is bounded, too: in fuel ([`TestOptions::max_fuel`]), in how often its
//! timer fires, and in what it sends and nobody takes. A test that runs into one of these fails and says so.
//!
//! # What a room prints
//!
//! It is shown where a test fails, and [`TestRoom::printed`] returns it. The first room that is opened
//! installs a logger for that. If the test has installed one already, printed lines go there instead, with
//! the target `guest`.

#![forbid(unsafe_code)]

mod display;
mod driver;
mod options;
mod printed;
mod script;
mod test_room;

pub use self::{
    options::TestOptions,
    script::{Outcome, Script, ScriptError, assert_script},
    test_room::{Received, TestRoom},
};

/// What the items of this crate take and return of the core.
pub use stateroom_wasmi_host::{
    Backoff, Fault, FaultCause, FaultPolicy, Instant, Limits, MessagePayload, OwnedPayload, Room,
    Trap,
};

/// The code of docs/testing.md is tested.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Testing;
