//! How much a host works at once.

use crate::time::Instant;

/// How much [`Host::poll`](super::Host::poll) may do before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub(super) fuel: u64,
    pub(super) until: Instant,
}

impl Budget {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        fuel: u64::MAX,
        until: Instant::MAX,
    };

    /// Until this much fuel was used. The last slice may exceed it.
    #[must_use]
    pub const fn fuel(fuel: u64) -> Self {
        Self {
            fuel,
            until: Instant::MAX,
        }
    }

    /// Until this time of the host's clock. The last slice may exceed it.
    #[must_use]
    pub const fn until(deadline: Instant) -> Self {
        Self {
            fuel: u64::MAX,
            until: deadline,
        }
    }

    /// The same budget of fuel, but no longer than until this time of the host's clock.
    #[must_use]
    pub const fn and_until(self, deadline: Instant) -> Self {
        Self {
            fuel: self.fuel,
            until: deadline,
        }
    }
}
