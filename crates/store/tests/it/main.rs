//! A store on a real disk: its contract, what a crash, a full disk and damage leave of it.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod contract;
mod damage;
mod death;
mod model;
mod modules;
#[cfg(unix)]
mod power_cut;
mod recordings;
#[cfg(unix)]
mod simulated_disk;
mod space;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;

use core::time::Duration;
use stateroom_wasmi_server::journal::{
    Batch, Done, Journal, JournalError, LogEntries, RoomNumber, RoomSnapshot, RoomWrite, Stored,
    StoredRoom,
};
use stateroom_wasmi_store::Store;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

/// A folder that is removed on drop.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stateroom-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("cannot create a folder");
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("rooms")
    }

    fn open(&self) -> Store {
        Store::open(&self.path()).expect("it opens")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The upper bound on every wait.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits for what a journal calls back with.
fn wait<T: Send + 'static>(submit: impl FnOnce(Done<T>)) -> Result<T, JournalError> {
    let (send, receive) = mpsc::channel();
    submit(Box::new(move |result| drop(send.send(result))));
    receive.recv_timeout(TIMEOUT).expect("it calls back")
}

fn write(journal: &impl Journal, batch: Batch) {
    wait(|done| journal.write(batch, done)).expect("it is written");
}

fn load(journal: &impl Journal, id: &str) -> Stored {
    wait(|done| journal.load(id, done)).expect("it is loaded")
}

/// The number of a new room.
fn new_room(journal: &impl Journal, id: &str) -> RoomNumber {
    match load(journal, id) {
        Stored::New(number) => number,
        other => panic!("it is there: {other:?}"),
    }
}

fn stored(journal: &impl Journal, id: &str) -> StoredRoom {
    match load(journal, id) {
        Stored::Room(room) => room,
        other => panic!("no room: {other:?}"),
    }
}

fn snapshot(events: u64, room: &[u8]) -> RoomSnapshot {
    RoomSnapshot {
        events,
        room: room.into(),
        clients: b"clients".into(),
        wake_at: None,
    }
}

/// A batch that saves a room.
fn save(number: RoomNumber, id: &str, snapshot: RoomSnapshot) -> Batch {
    let mut batch = Batch::default();
    let id = id.into();
    batch.write(number, RoomWrite::Snapshot { id, snapshot });
    batch
}

/// A batch with these events of a room.
fn log(number: RoomNumber, events: core::ops::Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for event in events {
        batch.log(number, event, &event_bytes(number, event));
    }
    batch
}

/// What is logged of an event.
fn event_bytes(number: RoomNumber, event: u64) -> Vec<u8> {
    format!("event {event} of {}", number.0).into_bytes()
}

/// The numbers of the events in a tail, whose bytes must be those of [`event_bytes`].
fn events(room: &StoredRoom) -> Vec<u64> {
    LogEntries::new(&room.tail)
        .map(|entry| {
            let entry = entry.expect("well-formed");
            assert_eq!(entry.room, room.number);
            assert_eq!(entry.event, event_bytes(room.number, entry.number));
            entry.number
        })
        .collect()
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("cannot create a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("cannot copy");
    }
}
