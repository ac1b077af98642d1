//! Rooms that failed lately, for those who ask why one is gone.

use crate::http::FailedRoom;
use core::time::Duration;
use stateroom_wasmi_host::Escaped;
use std::collections::VecDeque;
use tokio::time::Instant;

/// The rooms of a worker that failed lately, oldest first.
#[derive(Debug, Default)]
pub(crate) struct FailedRooms(VecDeque<(Instant, FailedRoom)>);

impl FailedRooms {
    pub(crate) fn push(&mut self, id: &str, fault: &str, now: Instant) {
        /// Rooms that are remembered; a guest can fail often.
        const MAX_ROOMS: usize = 100;
        if self.0.len() >= MAX_ROOMS {
            self.0.pop_front();
        }
        let fault = Escaped::new(fault).at_most(1000).to_string();
        self.0.push_back((now, FailedRoom::new(id, fault)));
    }

    /// Those of the last minutes.
    pub(crate) fn list(&self, now: Instant) -> Vec<FailedRoom> {
        const LISTED_FOR: Duration = Duration::from_secs(300);
        let age = |failed: &Instant| now.saturating_duration_since(*failed);
        self.0
            .iter()
            .filter(|(failed, _)| age(failed) < LISTED_FOR)
            .map(|(failed, room)| room.clone().of_age(age(failed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_listed_for_some_minutes() {
        let start = Instant::now();
        let mut failed = FailedRooms::default();
        for number in 0..150 {
            failed.push(
                &number.to_string(),
                "why\n",
                start + Duration::from_secs(number),
            );
        }
        let listed = |at| failed.list(start + Duration::from_secs(at)).len();
        assert_eq!(listed(149), 100);
        assert_eq!(listed(400), 49);
        assert_eq!(listed(449), 0);
    }
}
