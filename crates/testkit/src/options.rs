//! How a room under test is opened.

use stateroom_wasmi_host::{FaultPolicy, Limits};
use std::time::Duration;

/// How a room under test is opened.
///
/// ```
/// use stateroom_wasmi_testkit::{FaultPolicy, TestOptions};
///
/// const OPTIONS: TestOptions = TestOptions::new().seed(7).on_fault(FaultPolicy::Continue);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestOptions {
    /// The room's id. Default `test`.
    pub room_id: &'static str,
    /// The limits of the module and the room. Default those of a server. Without a limit on the fuel of
    /// an event, the default one applies, so that each event ends.
    pub limits: Limits,
    /// Seeds the room's random generator. Default 0.
    pub seed: u64,
    /// The wall time when the room is created, since the Unix epoch. Default 0 (1970).
    pub unix_time_at_zero: Duration,
    /// What follows a fault. Default [`FaultPolicy::Close`].
    pub on_fault: FaultPolicy,
    /// Fuel that the room may use in all; beyond it the test fails. One unit is about one simple
    /// instruction. Default 2 billion: twenty events without an end, or some seconds with optimisation.
    pub max_fuel: u64,
}

impl Default for TestOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl TestOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            room_id: "test",
            limits: Limits::new(),
            seed: 0,
            unix_time_at_zero: Duration::ZERO,
            on_fault: FaultPolicy::Close,
            max_fuel: 2_000_000_000,
        }
    }

    stateroom_wasmi_host::setters! {
        room_id: &'static str,
        limits: Limits,
        seed: u64,
        unix_time_at_zero: Duration,
        on_fault: FaultPolicy,
        max_fuel: u64,
    }
}
