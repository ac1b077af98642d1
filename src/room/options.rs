//! Options of a room.

use crate::fault_policy::FaultPolicy;
use core::time::Duration;

/// Options of a room. What is not set comes from the [`Host`](crate::Host) that opens it, or, for a
/// [`Room`](crate::Room) by itself, is the default that the field names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomOptions {
    /// Seeds the guest's random generator. The same seed gives the same numbers; a secret seed gives
    /// numbers that cannot be predicted. Default: a different one for each room of a host
    /// ([`Host::with_seed`](crate::Host::with_seed)); 0 without a host.
    pub seed: Option<u64>,
    /// The wall time when the room is created, since the Unix epoch, for guests that ask WASI for
    /// it. Default: what the host's clock says; 0 (1970) without a host.
    pub unix_time_at_zero: Option<Duration>,
    /// What follows when the guest fails. Default: the host's policy
    /// ([`Host::with_fault_policy`](crate::Host::with_fault_policy)); [`FaultPolicy::Close`] without
    /// a host.
    pub on_fault: Option<FaultPolicy>,
}

impl RoomOptions {
    /// Options that set nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seed: None,
            unix_time_at_zero: None,
            on_fault: None,
        }
    }

    /// Sets [`seed`](#structfield.seed).
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`unix_time_at_zero`](#structfield.unix_time_at_zero).
    #[must_use]
    pub const fn unix_time_at_zero(mut self, since_epoch: Duration) -> Self {
        self.unix_time_at_zero = Some(since_epoch);
        self
    }

    /// Sets [`on_fault`](#structfield.on_fault).
    #[must_use]
    pub const fn on_fault(mut self, policy: FaultPolicy) -> Self {
        self.on_fault = Some(policy);
        self
    }
}
