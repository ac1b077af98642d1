//! How long it takes to open a store with many rooms, none of which has events since its snapshot.
//!
//! `cargo bench -p stateroom-wasmi-store --bench opening [-- ROOMS]`

use stateroom_wasmi_server::journal::{
    Batch, Done, Journal, JournalError, RoomSnapshot, RoomWrite, Stored,
};
use stateroom_wasmi_store::Store;
use std::{fs, path::PathBuf, sync::mpsc, time::Instant};

const ROUNDS: usize = 5;
const SNAPSHOT_BYTES: usize = 400;
/// Rooms that are written together.
const TOGETHER: u64 = 10_000;

fn main() {
    let rooms = std::env::args().skip(1).find_map(|it| it.parse().ok());
    let rooms: u64 = rooms.unwrap_or(1_000_000);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.join(format!("opening-{}", std::process::id()));
    let store = Store::open_with(&folder, rooms).expect("it opens");
    for first in (0..rooms).step_by(TOGETHER as usize) {
        fill(&store, first..rooms.min(first + TOGETHER));
    }
    drop(store);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let store = Store::open_with(&folder, rooms).expect("it opens");
        println!("{rooms} rooms: {:.2?}", started.elapsed());
        assert!(store.unfinished().is_empty());
    }
    let _ = fs::remove_dir_all(&folder);
}

fn fill(store: &Store, rooms: core::ops::Range<u64>) {
    // In no order, as those of strangers are.
    let mixed = |room: u64| room.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let ids: Vec<_> = rooms.map(|room| format!("{:016x}", mixed(room))).collect();
    let stored = wait_all(ids.len(), |send| {
        for (index, id) in ids.iter().enumerate() {
            let send = send.clone();
            store.load(id, Box::new(move |stored| drop(send.send((index, stored)))));
        }
    });
    let mut batch = Batch::default();
    for (index, stored) in stored {
        let Ok(Stored::New(number)) = stored else {
            panic!("the store is new");
        };
        let snapshot = RoomSnapshot {
            events: number.0,
            room: vec![1; SNAPSHOT_BYTES],
            clients: Vec::new(),
            wake_at: None,
        };
        let id = (*ids[index]).into();
        batch.write(number, RoomWrite::Snapshot { id, snapshot });
    }
    let written = wait_all(1, |send| {
        let done: Done<()> = Box::new(move |written| drop(send.send(written)));
        store.write(batch, done);
    });
    let written: Result<Vec<()>, JournalError> = written.into_iter().collect();
    written.expect("it is written");
}

fn wait_all<T>(count: usize, submit: impl FnOnce(mpsc::Sender<T>)) -> Vec<T> {
    let (send, receive) = mpsc::channel();
    submit(send);
    receive.iter().take(count).collect()
}
