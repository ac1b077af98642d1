//! Detects clients that are silent, and those that take nothing.

use core::time::Duration;
use tokio::time::Instant;

/// The times of one connection's pings.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    options: HeartbeatOptions,
    next_ping: Instant,
    /// When the client was last heard from, or could not be, since it was not read from.
    heard_at: Instant,
    /// Since when it has taken nothing of what is queued for it; none if nothing is queued.
    stalled_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct HeartbeatOptions {
    pub(crate) interval: Duration,
    /// Longer than the interval.
    pub(crate) timeout: Duration,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The client left a ping unanswered, and sent nothing else, for the timeout.
    Silent,
    /// The client took nothing of what was queued for it, for the timeout.
    Stalled,
}

impl Heartbeat {
    pub(crate) fn new(options: HeartbeatOptions, now: Instant) -> Self {
        Self {
            options,
            next_ping: now + options.interval,
            heard_at: now,
            stalled_since: None,
        }
    }

    /// The client was heard from, or is not read from.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The client took something of what is queued, or there was nothing; `is_empty` is whether nothing
    /// is queued now.
    pub(crate) fn taken(&mut self, is_empty: bool, now: Instant) {
        self.stalled_since = (!is_empty).then_some(now);
    }

    /// Something is queued that the client does not take at once.
    pub(crate) fn queued(&mut self, now: Instant) {
        self.stalled_since.get_or_insert(now);
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        let silent_at = self.heard_at + self.options.timeout;
        let stalled_at = self.stalled_since.map(|since| since + self.options.timeout);
        let deadline = self.next_ping.min(silent_at);
        stalled_at.map_or(deadline, |stalled_at| deadline.min(stalled_at))
    }

    /// What is due at `now`. What the client has sent must have been read before.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        /// More than a busy worker is late: the whole process was stopped, and so may the client's
        /// replies have been. It is pinged anew.
        const STOPPED: Duration = Duration::from_secs(1);
        let deadline = self.deadline();
        if now < deadline {
            return Due::Nothing;
        }
        if now - deadline > STOPPED {
            self.heard_at = now;
            self.stalled_since = self.stalled_since.map(|_| now);
        } else if now >= self.heard_at + self.options.timeout {
            return Due::Silent;
        } else if self
            .stalled_since
            .is_some_and(|since| now >= since + self.options.timeout)
        {
            return Due::Stalled;
        }
        self.next_ping = now + self.options.interval;
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: HeartbeatOptions = HeartbeatOptions {
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(100),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_is_pinged_at_each_interval_and_silent_after_the_timeout() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(OPTIONS, start);
        for ping in [30, 60, 90] {
            assert_eq!(heartbeat.due(start + seconds(ping - 1)), Due::Nothing);
            assert_eq!(heartbeat.deadline(), start + seconds(ping));
            assert_eq!(heartbeat.due(start + seconds(ping)), Due::Ping);
        }
        assert_eq!(heartbeat.deadline(), start + seconds(100));
        assert_eq!(heartbeat.due(start + seconds(100)), Due::Silent);
        heartbeat.heard(start + seconds(100));
        assert_eq!(heartbeat.due(start + seconds(100)), Due::Nothing);
    }

    #[test]
    fn a_client_that_sends_and_takes_nothing_is_stalled() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(OPTIONS, start);
        heartbeat.queued(start + seconds(10));
        for ping in [30, 60, 90] {
            heartbeat.heard(start + seconds(ping));
            assert_eq!(heartbeat.due(start + seconds(ping)), Due::Ping);
            heartbeat.queued(start + seconds(ping));
        }
        assert_eq!(heartbeat.due(start + seconds(110)), Due::Stalled);
        heartbeat.taken(false, start + seconds(110));
        assert_eq!(heartbeat.due(start + seconds(110)), Due::Nothing);
    }

    #[test]
    fn a_process_that_was_stopped_finds_nobody_silent() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(OPTIONS, start);
        heartbeat.queued(start);
        assert_eq!(heartbeat.due(start + seconds(3600)), Due::Ping);
        assert_eq!(heartbeat.due(start + seconds(3629)), Due::Nothing);
        assert_eq!(heartbeat.due(start + seconds(3630)), Due::Ping);
        assert_eq!(heartbeat.due(start + seconds(3660)), Due::Ping);
        assert_eq!(heartbeat.due(start + seconds(3690)), Due::Ping);
        assert_eq!(heartbeat.due(start + seconds(3700)), Due::Silent);
    }
}
