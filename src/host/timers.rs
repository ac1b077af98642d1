//! The timers of all rooms, by their deadlines.

use super::RoomKey;
use crate::time::Instant;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// The earliest deadline at hand, of rooms that each have at most one.
///
/// What a room sets is appended and what it had set before stays behind, to be skipped when its
/// time comes: whoever asks tells which entries still hold. When those that do not may be the
/// most, they are thrown out, so that a room which sets its timer again and again costs no memory.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, RoomKey)>>,
}

impl Timers {
    pub(super) fn insert(
        &mut self,
        deadline: Instant,
        room: RoomKey,
        rooms: usize,
        holds: impl Fn(Instant, RoomKey) -> bool,
    ) {
        self.heap.push(Reverse((deadline, room)));
        if self.heap.len() > 2 * rooms + 16 {
            self.heap
                .retain(|Reverse((deadline, room))| holds(*deadline, *room));
        }
    }

    /// The earliest deadline that holds.
    pub(super) fn first(&mut self, holds: impl Fn(Instant, RoomKey) -> bool) -> Option<Instant> {
        loop {
            let Reverse((deadline, room)) = *self.heap.peek()?;
            if holds(deadline, room) {
                return Some(deadline);
            }
            self.heap.pop();
        }
    }

    /// Takes the earliest deadline if it is not after `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, RoomKey)> {
        let Reverse((deadline, _)) = *self.heap.peek()?;
        if deadline > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
