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

    /// When there is something to look at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.watched.front().map(|watched| watched.at)
    }

    /// Looks at the rooms whose time has come.
    pub(super) fn turn(&mut self, host: &mut Host<impl Clock, impl Transport>, now: Instant) {
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
}
