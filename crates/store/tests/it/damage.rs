//! Damaged files are an error, or harm the rooms whose parts they are; nothing is overwritten.

use crate::{
    TempDir, copy, events, load, log, new_room, save, snapshot, stored, support::Random, wait,
    write,
};
use rusqlite::Connection;
use stateroom_wasmi_server::journal::{Journal, JournalError, Stored};
use stateroom_wasmi_store::{Reader, RoomFile, RoomState, Store, StoreError};
use std::fs;

/// A folder with rooms that are closed, some with events since their snapshots.
fn rooms() -> TempDir {
    let folder = TempDir::new();
    let store = folder.open();
    for index in 0..20 {
        let id = format!("room {index}");
        let number = new_room(&store, &id);
        let room = vec![index as u8; 300 * index as usize];
        write(&store, save(number, &id, snapshot(2, &room)));
        write(&store, log(number, 2..2 + index % 5));
    }
    drop(store);
    folder
}

fn change(folder: &TempDir, sql: &str) {
    let connection = Connection::open(folder.path().join("rooms.sqlite")).expect("it opens");
    connection.execute_batch(sql).expect("it is changed");
}

#[test]
fn a_damaged_row_harms_its_room_alone() {
    let folder = rooms();
    change(
        &folder,
        "UPDATE rooms SET snapshot = CAST(x'00' || substr(snapshot, 2) AS BLOB) WHERE id = 'room 7'",
    );
    let store = folder.open();
    let damaged = wait(|done| store.load("room 7", done));
    assert!(
        matches!(damaged, Err(JournalError::Damaged(_))),
        "{damaged:?}"
    );
    for index in (0..20).filter(|index| *index != 7) {
        let room = stored(&store, &format!("room {index}"));
        assert_eq!(room.snapshot.room.len(), 300 * index);
        assert_eq!(events(&room).len(), index % 5);
    }
}

#[test]
fn a_damaged_row_of_the_log_harms_the_rooms_in_it_alone() {
    let folder = rooms();
    // The row with the events of `room 9` alone.
    change(
        &folder,
        "UPDATE log SET events = CAST(x'00' || substr(events, 2) AS BLOB) WHERE n = 8",
    );
    let reader = Reader::open(&folder.path()).expect("it opens");
    let rooms = reader.rooms().expect("it can be read");
    let damaged: Vec<_> = rooms
        .iter()
        .filter(|room| room.state == RoomState::Damaged)
        .map(|room| &*room.id)
        .collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    let store = folder.open();
    for room in &rooms {
        let loaded = wait(|done| store.load(&room.id, done));
        assert_eq!(loaded.is_err(), *room.id == *damaged[0]);
    }
    assert!(matches!(
        reader.export(damaged[0]),
        Err(StoreError::Damaged(_))
    ));
}

#[test]
fn a_log_that_cannot_tell_what_is_damaged_is_refused() {
    let folder = rooms();
    change(
        &folder,
        "UPDATE log SET events = x'00', rooms = x'00' WHERE n = 3",
    );
    let opened = Store::open(&folder.path());
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
}

#[test]
fn other_databases_and_versions_are_refused_and_kept() {
    let folder = rooms();
    change(&folder, "PRAGMA user_version = 99");
    let file = folder.path().join("rooms.sqlite");
    let before = fs::read(&file).expect("it is there");
    let opened = Store::open(&folder.path());
    assert!(matches!(opened, Err(StoreError::Version(99))), "{opened:?}");
    let read = Reader::open(&folder.path());
    assert!(matches!(read, Err(StoreError::Version(99))), "{read:?}");
    assert_eq!(fs::read(&file).expect("it is there"), before);

    let other = TempDir::new();
    fs::create_dir_all(other.path()).expect("a folder");
    change(&other, "CREATE TABLE t (x)");
    let opened = Store::open(&other.path());
    assert!(matches!(opened, Err(StoreError::Foreign)), "{opened:?}");
    fs::write(other.path().join("rooms.sqlite"), "a text").expect("written");
    let opened = Store::open(&other.path());
    assert!(matches!(opened, Err(StoreError::Foreign)), "{opened:?}");
    assert!(matches!(
        Reader::open(&TempDir::new().path()),
        Err(StoreError::None)
    ));
}

#[test]
fn flipped_bits_and_cut_files_never_panic_and_give_no_wrong_room() {
    let mut random = Random::new();
    let intact = rooms();
    let bytes = fs::read(intact.path().join("rooms.sqlite")).expect("it is there");
    let (mut refused, mut served) = (0, 0);
    for _ in 0..150 {
        let damaged = TempDir::new();
        copy(&intact.path(), &damaged.path());
        let mut bytes = bytes.clone();
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len())),
            flips => {
                for _ in 0..flips {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
        }
        fs::write(damaged.path().join("rooms.sqlite"), bytes).expect("written");
        if let Ok(reader) = Reader::open(&damaged.path()) {
            let _ = reader.rooms();
            let _ = reader.export("room 3");
        }
        let Ok(store) = Store::open(&damaged.path()) else {
            refused += 1;
            continue;
        };
        for index in 0..20_usize {
            if let Ok(Stored::Room(room)) = wait(|done| store.load(&format!("room {index}"), done))
            {
                served += 1;
                assert_eq!(room.snapshot.room, vec![index as u8; 300 * index]);
                // A gap is found when it is replayed.
                assert!(events(&room).len() <= index % 5);
            }
        }
    }
    assert!(
        refused > 0 && served > 100,
        "{refused} refused, {served} served"
    );
}

#[test]
fn a_room_in_a_file_is_read_as_it_was_written_or_not_at_all() {
    let folder = rooms();
    let reader = Reader::open(&folder.path()).expect("it opens");
    let room = reader.export("room 13").expect("it is there");
    let bytes = room.encode();
    assert_eq!(RoomFile::decode(&bytes), Some(room.clone()));
    for length in 0..bytes.len() {
        assert_eq!(RoomFile::decode(&bytes[..length]), None);
    }
    let mut random = Random::new();
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        let at = random.below(damaged.len());
        damaged[at] ^= 1 << random.below(8);
        assert_eq!(RoomFile::decode(&damaged), None);
    }
    let other = TempDir::new();
    let store = other.open();
    // Its number there is another one.
    let _ = load(&store, "another");
    store.import(&room).expect("it is free");
    let imported = stored(&store, "room 13");
    assert_eq!(imported.snapshot, room.snapshot);
    assert_ne!(imported.number, stored(&folder.open(), "room 13").number);
    let again = store.import(&room);
    assert!(matches!(again, Err(StoreError::RoomExists)), "{again:?}");
}
