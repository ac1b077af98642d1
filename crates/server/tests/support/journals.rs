//! What tests of journals have in common: rooms that are bytes.

use core::{ops::Range, time::Duration};
use stateroom_wasmi_server::journal::{
    Batch, Done, JournalError, LogEntries, RoomNumber, RoomSnapshot, RoomWrite, StoredRoom,
};
use std::sync::mpsc;

/// The upper bound on every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits for what a journal calls back with.
pub(crate) fn wait<T: Send + 'static>(submit: impl FnOnce(Done<T>)) -> Result<T, JournalError> {
    let (send, receive) = mpsc::channel();
    submit(Box::new(move |result| drop(send.send(result))));
    receive.recv_timeout(TIMEOUT).expect("it calls back")
}

/// A snapshot that holds these bytes in place of a room.
pub(crate) fn snapshot(events: u64, room: &[u8]) -> RoomSnapshot {
    RoomSnapshot {
        events,
        room: room.into(),
        clients: b"clients".into(),
        wake_at: None,
    }
}

/// A batch that saves a room.
pub(crate) fn save(number: RoomNumber, id: &str, snapshot: RoomSnapshot) -> Batch {
    let mut batch = Batch::default();
    let id = id.into();
    batch.write(number, RoomWrite::Snapshot { id, snapshot });
    batch
}

/// A batch with these events of a room.
pub(crate) fn log(number: RoomNumber, events: Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for event in events {
        batch.log(number, event, &event_bytes(number, event));
    }
    batch
}

/// What is logged of an event.
pub(crate) fn event_bytes(number: RoomNumber, event: u64) -> Vec<u8> {
    format!("event {event} of {}", number.0).into_bytes()
}

/// The numbers of the events in a tail, whose bytes must be those of [`event_bytes`].
pub(crate) fn events(room: &StoredRoom) -> Vec<u64> {
    LogEntries::new(&room.tail)
        .map(|entry| {
            let entry = entry.expect("well-formed");
            assert_eq!(entry.room, room.number);
            assert_eq!(entry.event, event_bytes(room.number, entry.number));
            entry.number
        })
        .collect()
}
