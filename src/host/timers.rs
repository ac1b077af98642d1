//! The timers of all rooms, by their deadlines.

use super::RoomKey;
use crate::time::Instant;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// A priority queue of deadlines; each room has at most one that is current.
///
/// Deletion is lazy: a deadline that its room has replaced stays in the heap and is skipped when it
/// comes up; the caller's `is_current` tells which entries those are. When they may outnumber the
/// current ones they are removed, so that a room which sets its timer again and again costs no memory.
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
        is_current: impl Fn(Instant, RoomKey) -> bool,
    ) {
        self.heap.push(Reverse((deadline, room)));
        if self.heap.len() > 2 * rooms + 16 {
            self.heap
                .retain(|Reverse((deadline, room))| is_current(*deadline, *room));
        }
    }

    /// The earliest current deadline.
    pub(super) fn first(
        &mut self,
        is_current: impl Fn(Instant, RoomKey) -> bool,
    ) -> Option<Instant> {
        loop {
            let Reverse((deadline, room)) = *self.heap.peek()?;
            if is_current(deadline, room) {
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
