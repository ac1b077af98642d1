//! How much disk a store takes, and what happens when there is no more.

use crate::{TempDir, events, load, log, new_room, save, snapshot, stored, write};
use stateroom_wasmi_server::journal::{Batch, Journal, RoomNumber, RoomWrite, Stored};
use stateroom_wasmi_store::Store;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    time::Duration,
};

fn bytes(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .and_then(|entry| entry.metadata())
                .map_or(0, |meta| meta.len())
        })
        .sum()
}

#[test]
fn what_no_room_needs_is_deleted() {
    let folder = TempDir::new();
    let store = folder.open();
    let rooms: Vec<(String, RoomNumber)> = (0..10)
        .map(|index| {
            let id = format!("room {index}");
            let number = new_room(&store, &id);
            write(&store, save(number, &id, snapshot(0, b"birth")));
            (id, number)
        })
        .collect();
    let mut store = Some(store);
    let mut sizes = Vec::new();
    for rounds in [0..30_u64, 30..60] {
        let open = store.take().unwrap_or_else(|| folder.open());
        for round in rounds {
            for (id, number) in &rooms {
                for step in 0..10 {
                    let first = round * 100 + step * 10;
                    open.write(log(*number, first..first + 10), Box::new(drop));
                }
                let snapshot = snapshot(round * 100 + 100, &[7; 2000]);
                write(&open, save(*number, id, snapshot));
            }
        }
        drop(open);
        sizes.push(bytes(&folder.path()));
    }
    assert!(sizes[1] <= sizes[0] + sizes[0] / 4, "{sizes:?} bytes");

    let store = folder.open();
    // One room that is never saved keeps all that comes after its first event.
    write(&store, log(rooms[0].1, 6000..6001));
    for event in 6000..6500 {
        store.write(log(rooms[1].1, event..event + 1), Box::new(drop));
    }
    write(&store, save(rooms[1].1, &rooms[1].0, snapshot(6500, b"")));
    drop(store);
    let store = folder.open();
    assert_eq!(events(&stored(&store, "room 0")), [6000]);
    assert!(events(&stored(&store, "room 1")).is_empty());
}

/// A file system of a megabyte; none if it cannot be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = TempDir::new();
        fs::create_dir_all(folder.path()).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(folder))
    }

    /// Takes all the space, by a file.
    fn fill(&self) -> PathBuf {
        let filler = self.0.path().join("filler");
        let mut size = 1 << 20;
        // As much as fits.
        while size > 0 && fs::write(&filler, vec![1; size]).is_err() {
            size -= 4096;
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn what_does_not_fit_waits_until_there_is_space() {
    let Some(disk) = SmallDisk::new() else {
        println!("skipped: a file system cannot be mounted");
        return;
    };
    let store = disk.0.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    let filler = disk.fill();
    let (send, receive) = mpsc::channel();
    for event in 0..200 {
        let send = send.clone();
        let done = move |result: Result<(), _>| {
            let _ = send.send(result.is_ok());
        };
        store.write(log(number, event..event + 1), Box::new(done));
    }
    let filled = receive.recv_timeout(Duration::from_millis(500));
    assert!(filled.is_err(), "there is no space: {filled:?}");
    fs::remove_file(&filler).expect("it is there");
    for _ in 0..200 {
        let written = receive.recv_timeout(Duration::from_secs(120));
        assert!(written.expect("there is space"));
    }
    drop(store);
    let expected: Vec<_> = (0..200).collect();
    assert_eq!(events(&stored(&disk.0.open(), "lobby")), expected);
}

/// What is written is found by an index, which also takes space, though of another kind.
#[cfg(unix)]
#[test]
fn what_the_index_of_the_log_has_no_space_for_waits_too() {
    let folder = TempDir::new();
    fs::create_dir_all(folder.path()).expect("a folder");
    let recorder = crate::simulated_disk::Recorder::new(&folder.path());
    let store = folder.open();
    let number = new_room(&store, "lobby");
    recorder.set_index_full(true);
    let (send, receive) = mpsc::channel();
    // More than the index has space for when it is made.
    let large = snapshot(0, &vec![7; 20 << 20]);
    let done = move |result: Result<(), _>| {
        let _ = send.send(result.is_ok());
    };
    store.write(save(number, "lobby", large), Box::new(done));
    // It is tried again.
    recorder.wait_until_refused(2);
    assert!(receive.try_recv().is_err(), "there is no space");
    recorder.set_index_full(false);
    let written = receive.recv_timeout(Duration::from_secs(120));
    assert!(written.expect("there is space"));
    drop(store);
    let store = folder.open();
    assert_eq!(stored(&store, "lobby").snapshot.room.len(), 20 << 20);
}

#[test]
fn a_store_on_a_full_disk_can_be_dropped() {
    let Some(disk) = SmallDisk::new() else {
        println!("skipped: a file system cannot be mounted");
        return;
    };
    let store = disk.0.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    let (send, receive) = mpsc::channel();
    for event in 0..200_000 {
        let send = send.clone();
        let done = move |result: Result<(), _>| {
            let _ = send.send(result.is_ok());
        };
        store.write(log(number, event..event + 1), Box::new(done));
    }
    drop(send);
    drop(store);
    let written: Vec<_> = receive.into_iter().collect();
    let acknowledged = written.iter().take_while(|is_ok| **is_ok).count();
    assert!(written[acknowledged..].iter().all(|is_ok| !is_ok));
    fs::write(disk.0.path().join("note"), "").expect("an empty file fits");
}

#[test]
fn a_number_that_was_given_while_the_disk_was_full_is_not_given_again() {
    let Some(disk) = SmallDisk::new() else {
        println!("skipped: a file system cannot be mounted");
        return;
    };
    let store = disk.0.open();
    let filler = disk.fill();
    let (send, receive) = mpsc::channel();
    let done = move |loaded| drop(send.send(loaded));
    store.load("lobby", Box::new(done));
    let early = receive.recv_timeout(Duration::from_millis(1500));
    assert!(early.is_err(), "there is no space: {early:?}");
    fs::remove_file(&filler).expect("it is there");
    let loaded = receive.recv_timeout(Duration::from_secs(120));
    let Ok(Ok(Stored::New(number))) = loaded else {
        panic!("a new room: {loaded:?}");
    };
    write(&store, save(number, "lobby", snapshot(0, b"lobby")));
    drop(store);
    let store = disk.0.open();
    for index in 0..4 {
        let id = format!("hall {index}");
        let other = new_room(&store, &id);
        write(&store, save(other, &id, snapshot(0, b"hall")));
        assert_ne!(other, number);
        assert_eq!(stored(&store, "lobby").snapshot.room, b"lobby");
    }
}

/// Rows of the log.
fn rows(folder: &Path) -> u64 {
    let connection = rusqlite::Connection::open(folder.join("rooms.sqlite")).expect("it opens");
    let rows = connection.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0));
    rows.expect("it can be read").cast_unsigned()
}

#[test]
fn the_log_is_short_however_many_batches_become_one_transaction() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    const BATCHES: u64 = 3000;
    for round in 0..8 {
        let first = round * BATCHES;
        for event in first..first + BATCHES {
            store.write(log(number, event..event + 1), Box::new(drop));
        }
        write(
            &store,
            save(number, "lobby", snapshot(first + BATCHES, b"")),
        );
    }
    // What was not needed when the last round began is gone.
    let rows = rows(&folder.path());
    assert!(rows <= 2 * BATCHES, "{rows} rows");
}

#[test]
fn a_room_that_is_not_restored_does_not_keep_the_log_of_others() {
    let folder = TempDir::new();
    let store = folder.open();
    let ids = ["in quarantine", "not loaded", "busy"];
    let [quarantined, not_loaded, busy] = ids.map(|id| {
        let number = new_room(&store, id);
        write(&store, save(number, id, snapshot(0, b"birth")));
        write(&store, log(number, 0..5));
        number
    });
    drop(store);
    let mut next = 5;
    for open in 0..3 {
        let store = folder.open();
        if open == 0 {
            let _ = load(&store, "in quarantine");
            let mut batch = Batch::default();
            batch.write(quarantined, RoomWrite::Quarantine("it diverged".into()));
            write(&store, batch);
        }
        for _ in 0..30 {
            for _ in 0..1000 {
                store.write(log(busy, next..next + 1), Box::new(drop));
                next += 1;
            }
            write(&store, save(busy, "busy", snapshot(next, b"")));
        }
        drop(store);
        let rows = rows(&folder.path());
        assert!(rows <= 2_000, "{rows} rows");
    }
    Store::release(&folder.path(), "in quarantine").expect("it is there");
    let store = folder.open();
    for (id, number) in [("in quarantine", quarantined), ("not loaded", not_loaded)] {
        let room = stored(&store, id);
        assert_eq!((room.number, events(&room)), (number, vec![0, 1, 2, 3, 4]));
    }
    // Events that come after those that were moved.
    write(&store, log(not_loaded, 5..8));
    drop(store);
    let room = stored(&folder.open(), "not loaded");
    assert_eq!(events(&room), [0, 1, 2, 3, 4, 5, 6, 7]);
}
