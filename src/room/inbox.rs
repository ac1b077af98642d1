//! The events of a room that wait, and the one that runs.

use super::event_kind::EventKind;
use crate::{event::MessagePayload, limits::Limits, storage::PayloadQueue};

/// A queue of events whose first entry may be *pinned*: the event that the guest is in the middle
/// of. It stays until it ends, since its payload is needed when its delivery is resumed, and is not
/// counted as waiting.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    queue: PayloadQueue<EventKind>,
    is_first_pinned: bool,
}

impl Inbox {
    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() - usize::from(self.is_first_pinned)
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more event with a payload of this length may wait.
    pub(super) fn fits(&self, payload_len: usize, limits: &Limits) -> bool {
        let pinned = self.running().map_or(0, |(_, payload)| payload.len());
        let waiting_bytes = self.payload_bytes() - pinned;
        self.len() < limits.max_inbox_events
            && waiting_bytes.saturating_add(payload_len) <= limits.max_inbox_bytes
    }

    /// The length of all payloads in bytes, the pinned event's included.
    pub(super) fn payload_bytes(&self) -> usize {
        self.queue.payload_bytes()
    }

    pub(super) fn push(&mut self, event: EventKind, payload: MessagePayload<'_>) {
        self.queue.push(event, payload);
    }

    /// Puts an event without a payload before those that wait. None may be pinned.
    pub(super) fn push_first(&mut self, event: EventKind) {
        debug_assert!(!self.is_first_pinned, "the running event stays first");
        self.queue.push_first(event, MessagePayload::EMPTY);
    }

    /// The event that waits longest. None while one is pinned.
    pub(super) fn next(&self) -> Option<(EventKind, MessagePayload<'_>)> {
        self.queue.front().filter(|_| !self.is_first_pinned)
    }

    /// The pinned event.
    pub(super) fn running(&self) -> Option<(EventKind, MessagePayload<'_>)> {
        self.queue.front().filter(|_| self.is_first_pinned)
    }

    /// Pins the event that [`next`](Self::next) returns.
    pub(super) fn pin_next(&mut self) {
        debug_assert!(
            !self.queue.is_empty() && !self.is_first_pinned,
            "there is an event to pin"
        );
        self.is_first_pinned = true;
    }

    /// Pins an event that did not wait. Only an empty inbox takes one with a payload.
    pub(super) fn push_pinned(&mut self, event: EventKind, payload: MessagePayload<'_>) {
        debug_assert!(!self.is_first_pinned, "one event runs at a time");
        self.queue.push_first(event, payload);
        self.is_first_pinned = true;
    }

    /// Drops the first event, pinned or not: it has ended.
    pub(super) fn drop_first(&mut self) {
        self.queue.drop_front();
        self.is_first_pinned = false;
    }

    /// All events in order, the pinned one included.
    pub(super) fn kinds(&self) -> impl DoubleEndedIterator<Item = EventKind> {
        self.queue.headers()
    }

    /// All events with their payloads, in order.
    #[cfg(feature = "snapshot")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (EventKind, MessagePayload<'_>)> {
        self.queue.iter()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.is_first_pinned = false;
    }
}
