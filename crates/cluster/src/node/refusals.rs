//! Whether NATS refuses what it should not.

use core::time::Duration;
use std::time::Instant;

/// Writes that were refused for no reason.
#[derive(Default)]
pub(super) struct Refusals {
    count: u32,
    since: Option<Instant>,
}

impl Refusals {
    /// Whether there have been so many that the leader should be another one.
    pub(super) fn count(&mut self) -> bool {
        const COUNT: u32 = 20;
        const TIME: Duration = Duration::from_secs(5);
        /// After which those before do not count any more.
        const LONG_AGO: Duration = Duration::from_secs(30);
        if self.since.is_some_and(|since| since.elapsed() > LONG_AGO) {
            *self = Self::default();
        }
        self.count += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_stuck = self.count >= COUNT && since.elapsed() >= TIME;
        if is_stuck {
            *self = Self::default();
        }
        is_stuck
    }
}
