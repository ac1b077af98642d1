//! Keeps what a room does, event by event.

use super::event_kind::EventKind;
use crate::{
    event::{Event, EventHeader, MessagePayload},
    replay::{EventRecord, RecordedEvent},
    storage::PayloadQueue,
    time::Instant,
};
use alloc::boxed::Box;

/// The events that a room has begun and whose records were not taken, if it keeps them.
///
/// A room begins an event only when its outputs were taken, so a driver that takes the records as well
/// never leaves more than one here, or a few of a restart.
#[derive(Default)]
pub(super) struct Recorder(Option<Box<PayloadQueue<Stamp>>>);

#[derive(Clone, Copy, Debug)]
struct Stamp {
    event: EventKind,
    at: Instant,
    fuel_used: u64,
}

impl Recorder {
    pub(super) const fn off() -> Self {
        Self(None)
    }

    pub(super) fn set(&mut self, is_on: bool) {
        match is_on {
            true => drop(self.0.get_or_insert_default()),
            false => self.0 = None,
        }
    }

    /// Keeps an event that begins. That of a fresh guest is kept when that is about to be made
    /// ([`EventKind::Init`]), which may fail. `fuel_used` is only called if it is needed.
    #[inline]
    pub(super) fn record(
        &mut self,
        event: EventKind,
        payload: MessagePayload<'_>,
        at: Instant,
        fuel_used: impl FnOnce() -> u64,
    ) {
        if let Some(records) = &mut self.0 {
            let fuel_used = fuel_used();
            let stamp = Stamp {
                event,
                at,
                fuel_used,
            };
            records.push(stamp, payload);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|records| records.is_empty())
    }

    pub(super) fn poll(&mut self) -> Option<EventRecord<'_>> {
        let (stamp, payload) = self.0.as_mut()?.pop()?;
        Some(EventRecord {
            at: stamp.at,
            fuel_used: stamp.fuel_used,
            event: match stamp.event {
                EventKind::Init => RecordedEvent::Start,
                EventKind::Rejoin(client) => RecordedEvent::Rejoin(client),
                EventKind::Timer => RecordedEvent::Timer,
                EventKind::Outside(header) => RecordedEvent::Outside(match header {
                    EventHeader::Connect(client) => Event::Connect(client),
                    EventHeader::Disconnect(client) => Event::Disconnect(client),
                    EventHeader::Message(client) => Event::Message(client, payload),
                }),
            },
        })
    }
}
