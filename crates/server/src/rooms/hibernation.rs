//! Rooms that do nothing give up their guests until they are needed.

use core::time::Duration;
use stateroom_wasmi_host::{Clock, Host, Instant, RoomKey, Transport};
use std::collections::VecDeque;

/// Finds the rooms that have done nothing for some time, and lets them hibernate.
///
/// What a room does is seen from the fuel that it has used, at intervals, so that its events cost
/// nothing for this.
pub(super) struct Hibernation {
    /// None: rooms do not hibernate.
    after: Option<Duration>,
    /// All rooms. In the order of their times, since the interval is constant.
    watched: VecDeque<Watched>,
    /// Rooms that hibernate as soon as they have nothing to do, unless somebody comes.
    left: VecDeque<RoomKey>,
    /// Whether more of those are to be looked at.
    has_more: bool,
}

struct Watched {
    /// When to look again.
    at: Instant,
    room: RoomKey,
    /// What it had used when it was looked at.
    fuel_used: u64,
}

/// Rooms that are looked at in one turn: a few of them may take a millisecond together.
const ROOMS_PER_TURN: usize = 32;

impl Hibernation {
    pub(super) const fn new(after: Option<Duration>) -> Self {
        Self {
            after,
            watched: VecDeque::new(),
            left: VecDeque::new(),
            has_more: false,
        }
    }

    /// Watches a room that was opened.
    pub(super) fn watch(&mut self, room: RoomKey, now: Instant) {
        if let Some(after) = self.after {
            self.watched.push_back(Watched {
                at: now + after,
                room,
                fuel_used: u64::MAX,
            });
        }
    }

    /// Lets a room hibernate as soon as it has done what there is to do, unless somebody comes: one that was restored,
    /// or whose client did not come back.
    pub(super) fn leave(&mut self, room: RoomKey) {
        self.left.push_back(room);
    }

    /// Whether there is something to look at now.
    pub(super) const fn has_work(&self) -> bool {
        self.has_more
    }

    /// When there is something to look at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.watched.front().map(|watched| watched.at)
    }

    /// Looks at the rooms whose time has come, and at those that were left.
    pub(super) fn turn<T: Transport>(
        &mut self,
        host: &mut Host<impl Clock, T>,
        now: Instant,
        is_attended: impl Fn(&T, RoomKey) -> bool,
    ) {
        self.look_at_left(host, is_attended);
        let Some(after) = self.after else {
            return;
        };
        for _ in 0..ROOMS_PER_TURN {
            if self.next().is_none_or(|at| at > now) {
                return;
            }
            let Some(watched) = self.watched.pop_front() else {
                return;
            };
            let Some(room) = host.room(watched.room) else {
                continue;
            };
            let fuel_used = room.fuel_used();
            if fuel_used == watched.fuel_used {
                // Not if something waits: then it is looked at again.
                let _ = host.hibernate(watched.room);
            }
            self.watched.push_back(Watched {
                at: now + after,
                fuel_used,
                ..watched
            });
        }
    }

    fn look_at_left<T: Transport>(
        &mut self,
        host: &mut Host<impl Clock, T>,
        is_attended: impl Fn(&T, RoomKey) -> bool,
    ) {
        let looked_at = self.left.len().min(ROOMS_PER_TURN);
        let mut busy = 0;
        for _ in 0..looked_at {
            let Some(key) = self.left.pop_front() else {
                return;
            };
            let Some(room) = host.room(key) else {
                continue;
            };
            if room.is_hibernating() || is_attended(host.transport(), key) {
                continue;
            }
            if host.has_work(key) || room.is_unfinished() {
                self.left.push_back(key);
                busy += 1;
            } else {
                // Fails if its module's state cannot be saved.
                let _ = host.hibernate(key);
            }
        }
        // Where all have something to do, there will be a turn for that.
        self.has_more = busy < looked_at && !self.left.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::echo;
    use stateroom_wasmi_host::{Budget, ManualClock, RecordingTransport};

    #[test]
    fn all_rooms_that_were_left_are_looked_at_without_another_reason() {
        let module = echo();
        let mut host = Host::new(ManualClock::new(), RecordingTransport::default());
        let mut hibernation = Hibernation::new(None);
        let rooms: Vec<_> = (0..3 * ROOMS_PER_TURN)
            .map(|n| host.open(&n.to_string(), &module).expect("it opens"))
            .collect();
        host.poll(Budget::UNLIMITED);
        // Most hibernate already, as restored rooms do; and one has a client.
        let (last, others) = rooms.split_last().expect("there are some");
        for room in others {
            host.hibernate(*room).expect("it is idle");
        }
        let attended = host.open("attended", &module).expect("it opens");
        host.poll(Budget::UNLIMITED);
        for room in others.iter().chain([&attended, last]) {
            hibernation.leave(*room);
        }
        let mut turns = 1;
        let mut turn = |hibernation: &mut Hibernation| {
            hibernation.turn(&mut host, Instant::ZERO, |_, room| room == attended);
        };
        turn(&mut hibernation);
        while hibernation.has_work() {
            turn(&mut hibernation);
            turns += 1;
        }
        assert_eq!(turns, 4);
        let is_hibernating = |room| host.room(room).is_some_and(|room| room.is_hibernating());
        assert!(is_hibernating(*last));
        assert!(!is_hibernating(attended));
    }
}
