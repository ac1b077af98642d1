//! What became of clients, in sums for the log and the metrics: a line for each could be caused at will.

use crate::ws::connection::End;
use core::{fmt, ops::AddAssign};
use std::collections::BTreeMap;

/// What became of clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientCounts {
    joined: u64,
    left: u64,
    /// Those that the server closed, by close code.
    closed: BTreeMap<u16, u64>,
}

impl ClientCounts {
    pub(crate) fn count_join(&mut self) {
        self.joined += 1;
    }

    pub(crate) fn count_end(&mut self, end: &End) {
        match end {
            End::ByServer { frame, .. } => *self.closed.entry(frame.code.into()).or_default() += 1,
            End::Lost | End::ByClient => self.left += 1,
        }
    }

    pub(crate) const fn joined(&self) -> u64 {
        self.joined
    }

    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// Those that the server closed, by close code.
    pub(crate) const fn closed(&self) -> &BTreeMap<u16, u64> {
        &self.closed
    }

    /// What became of clients after these were counted.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let closed = self.closed.iter().map(|(code, count)| {
            let before = earlier.closed.get(code).copied().unwrap_or(0);
            (*code, count - before)
        });
        Self {
            joined: self.joined - earlier.joined,
            left: self.left - earlier.left,
            closed: closed.filter(|(_, count)| *count > 0).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.joined == 0 && self.left == 0 && self.closed.is_empty()
    }
}

impl AddAssign for ClientCounts {
    fn add_assign(&mut self, other: Self) {
        self.joined += other.joined;
        self.left += other.left;
        for (code, count) in other.closed {
            *self.closed.entry(code).or_default() += count;
        }
    }
}

impl fmt::Display for ClientCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients joined, {} left", self.joined, self.left)?;
        for (index, (code, count)) in self.closed.iter().enumerate() {
            let separator = if index == 0 { ", closed" } else { "," };
            write!(f, "{separator} {count} with {code}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::message_reader::close_frame;

    #[test]
    fn counts_are_a_line() {
        let mut counts = ClientCounts::default();
        assert!(counts.is_empty());
        for _ in 0..3 {
            counts.count_join();
        }
        counts.count_end(&End::Lost);
        assert_eq!(counts.to_string(), "3 clients joined, 1 left");
        for code in [1013, 1008, 1013] {
            let frame = close_frame(code, "");
            counts.count_end(&End::ByServer { frame, drain: true });
        }
        let line = "3 clients joined, 1 left, closed 1 with 1008, 2 with 1013";
        assert_eq!(counts.to_string(), line);
        assert!(!counts.is_empty());
        let earlier = counts.clone();
        assert!(counts.since(&earlier).is_empty());
        counts.count_join();
        let line = "1 clients joined, 0 left";
        assert_eq!(counts.since(&earlier).to_string(), line);
    }
}
