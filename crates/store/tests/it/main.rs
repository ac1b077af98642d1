//! A store on a real disk: its contract, what a crash, a full disk and damage leave of it.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod contract;
mod damage;
mod death;
#[path = "../../../server/tests/support/journals.rs"]
mod journals;
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

use journals::{TIMEOUT, event_bytes, events, log, save, snapshot, wait};
use stateroom_wasmi_server::journal::{Batch, Journal, LogEntries, RoomNumber, Stored, StoredRoom};
use stateroom_wasmi_store::Store;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
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

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("cannot create a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("cannot copy");
    }
}
