//! Damaged files are an error, or harm the rooms whose parts they are; nothing is overwritten.

use crate::{
    TempDir, copy, events, load, log, new_room, save, snapshot, stored, support::Random, wait,
    write,
};
use rusqlite::Connection;
use stateroom_wasmi_server::journal::{Batch, Journal, JournalError, RoomFile, RoomNumber, Stored};
use stateroom_wasmi_store::{Reader, RoomState, Store, StoreError};
use std::{fs, time::Duration};

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
    // It can be replaced.
    let room = RoomFile {
        id: "room 7".into(),
        snapshot: snapshot(9, b"from a backup"),
        tail: Vec::new(),
    };
    store.replace(&room).expect("it is written");
    drop(store);
    assert_eq!(stored(&folder.open(), "room 7").snapshot, room.snapshot);
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
        .filter(|room| matches!(room.state, RoomState::Damaged(_)))
        .map(|room| &*room.id)
        .collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    let store = folder.open();
    for room in &rooms {
        let loaded = wait(|done| store.load(&room.id, done));
        assert_eq!(loaded.is_err(), *room.id == *damaged[0]);
    }
    drop(store);
    // The log of the next process is another one.
    let store = folder.open();
    let loaded = wait(|done| store.load(damaged[0], done));
    assert!(
        matches!(loaded, Err(JournalError::Damaged(_))),
        "{loaded:?}"
    );
    drop(store);
    assert!(matches!(
        reader.export(damaged[0]),
        Err(StoreError::Damaged(_))
    ));
    // Accepts the loss.
    Store::release(&folder.path(), damaged[0]).expect("it is there");
    assert!(events(&stored(&folder.open(), damaged[0])).is_empty());
}

#[test]
fn a_room_is_released_also_if_nothing_has_opened_the_store_since_it_was_damaged() {
    let folder = rooms();
    let id = "room 9";
    // Its row of the log is still there.
    change(
        &folder,
        "UPDATE log SET events = CAST(x'00' || substr(events, 2) AS BLOB)
         WHERE substr(rooms, 1, 1) = (SELECT CAST(char(number) AS BLOB) FROM rooms WHERE id = 'room 9')",
    );
    let state = || {
        let rooms = Reader::open(&folder.path()).expect("it opens").rooms();
        let mut rooms = rooms.expect("it can be read").into_iter();
        rooms
            .find(|room| &*room.id == id)
            .expect("it is there")
            .state
    };
    assert!(matches!(state(), RoomState::Damaged(_)), "{:?}", state());
    Store::release(&folder.path(), id).expect("it is there");
    assert_eq!(state(), RoomState::Stored);
    let store = folder.open();
    assert!(events(&stored(&store, id)).is_empty());
    check_others(&store, 9);
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
    let mut room = reader.export("room 13").expect("it is there");
    room.snapshot.wake_at = Some(Duration::from_millis(1_900_000_000_123));
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

/// Changes what the tables do not allow.
fn change_types(folder: &TempDir, sql: &str) {
    let schema = |from, to| {
        let sql = format!(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name IN ('rooms', 'log')"
        );
        change(folder, &sql);
    };
    schema("STRICT", "/**/");
    change(folder, sql);
    schema("/**/", "STRICT");
}

/// All rooms but one are served.
fn check_others(store: &Store, damaged: usize) {
    for index in (0..20).filter(|index| *index != damaged) {
        let room = stored(store, &format!("room {index}"));
        assert_eq!(room.snapshot.room.len(), 300 * index);
        assert_eq!(events(&room).len(), index % 5);
    }
}

#[test]
fn a_row_of_other_types_harms_its_room_alone() {
    for sql in [
        "UPDATE rooms SET snapshot = 'a text' WHERE id = 'room 7'",
        "UPDATE rooms SET snapshot = 7 WHERE id = 'room 7'",
        "UPDATE rooms SET clients = 1.5 WHERE id = 'room 7'",
        "UPDATE rooms SET checksum = x'00' WHERE id = 'room 7'",
        "UPDATE rooms SET wake_at = 'never' WHERE id = 'room 7'",
        "UPDATE rooms SET events = 'many' WHERE id = 'room 7'",
        "UPDATE rooms SET deaths = -1, fatal_event = 'x' WHERE id = 'room 7'",
        "UPDATE rooms SET saved_at = 'yesterday' WHERE id = 'room 7'",
        "UPDATE rooms SET quarantine = x'ff' WHERE id = 'room 7'",
    ] {
        let folder = rooms();
        change_types(&folder, sql);
        let reader = Reader::open(&folder.path()).expect("it opens");
        assert_eq!(reader.rooms().expect("it can be read").len(), 20, "{sql}");
        let store = Store::open(&folder.path());
        let store = store.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        // A room without its rarer columns may be served, but as it was.
        if let Ok(Stored::Room(room)) = wait(|done| store.load("room 7", done)) {
            assert_eq!(room.snapshot.room.len(), 300 * 7, "{sql}");
            assert_eq!(events(&room).len(), 2, "{sql}");
        }
        check_others(&store, 7);
        // And what comes is written.
        let number = new_room(&store, "another");
        write(&store, save(number, "another", snapshot(0, b"birth")));
    }
}

#[test]
fn an_id_that_is_no_text_harms_its_room_alone() {
    let folder = rooms();
    change(
        &folder,
        "UPDATE rooms SET id = CAST(x'72ff' AS TEXT) WHERE id = 'room 7'",
    );
    let reader = Reader::open(&folder.path()).expect("it opens");
    assert_eq!(reader.rooms().expect("it can be read").len(), 20);
    let store = folder.open();
    check_others(&store, 7);
}

#[test]
fn a_room_whose_events_were_lost_is_not_restored_without_them_later() {
    let folder = rooms();
    change(
        &folder,
        "UPDATE log SET events = CAST(x'00' || substr(events, 2) AS BLOB) WHERE n = 8",
    );
    let damaged = {
        let rooms = Reader::open(&folder.path()).expect("it opens").rooms();
        let mut rooms = rooms.expect("it can be read").into_iter();
        let damaged = rooms.find(|room| matches!(room.state, RoomState::Damaged(_)));
        damaged.expect("it is found").id
    };
    for _ in 0..3 {
        let store = folder.open();
        let loaded = wait(|done| store.load(&damaged, done));
        let is_kept = matches!(
            loaded,
            Err(JournalError::Damaged(_)) | Ok(Stored::Quarantined(_))
        );
        assert!(is_kept, "{loaded:?}");
        // The others are saved, so the log's rows are not needed.
        for index in 0..20 {
            let id = format!("room {index}");
            if *id != *damaged
                && let Stored::Room(room) = load(&store, &id)
            {
                let events = room.snapshot.events + events(&room).len() as u64;
                write(&store, save(room.number, &id, snapshot(events, b"saved")));
            }
        }
    }
}

#[test]
fn a_room_that_the_index_has_lost_is_not_taken_for_a_new_one() {
    let folder = rooms();
    let file = folder.path().join("rooms.sqlite");
    let (page, size): (usize, usize) = {
        let connection = Connection::open(&file).expect("it opens");
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_rooms_1'";
        let page = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let size = connection.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0));
        let page = page.expect("a page") as usize;
        (page, size.expect("a size") as usize)
    };
    let mut bytes = fs::read(&file).expect("it is there");
    let index = &mut bytes[(page - 1) * size..page * size];
    let at = index.windows(6).position(|bytes| bytes == b"room 7");
    index[at.expect("it is in the index") + 5] = b'8';
    fs::write(&file, bytes).expect("written");
    let store = folder.open();
    let loaded = wait(|done| store.load("room 7", done));
    assert!(
        matches!(loaded, Err(JournalError::Damaged(_))),
        "{loaded:?}"
    );
    let mut served = 0;
    for index in 0..20 {
        // Its neighbours in the index may be refused, too, but none is new or another one.
        match wait(|done| store.load(&format!("room {index}"), done)) {
            Ok(Stored::Room(room)) => {
                served += 1;
                assert_eq!(room.snapshot.room.len(), 300 * index);
            }
            Err(JournalError::Damaged(_)) => {}
            other => panic!("room {index}: {other:?}"),
        }
    }
    assert!(served >= 15, "{served} served");
}

#[test]
fn an_empty_database_beside_a_write_ahead_log_is_refused_and_kept() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    let torn = TempDir::new();
    copy(&folder.path(), &torn.path());
    let wal = torn.path().join("rooms.sqlite-wal");
    let before = fs::read(&wal).expect("it is there");
    assert!(!before.is_empty());
    for is_there in [true, false] {
        let file = torn.path().join("rooms.sqlite");
        match is_there {
            true => fs::write(&file, "").expect("written"),
            false => fs::remove_file(&file).expect("it is there"),
        }
        let opened = Store::open(&torn.path());
        assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
        assert_eq!(fs::read(&wal).expect("it is kept"), before);
    }
}

#[test]
fn an_imported_room_with_absurd_numbers_harms_nobody() {
    let folder = rooms();
    let store = folder.open();
    let mut tail = Batch::default();
    for number in [u64::MAX, 0, u64::MAX - 1, u64::MAX] {
        tail.log(RoomNumber(u64::MAX), number, b"event");
    }
    let room = RoomFile {
        id: "absurd".into(),
        snapshot: snapshot(u64::MAX - 1, b"room"),
        tail: tail.events().into(),
    };
    let _ = store.import(&room);
    check_others(&store, 100);
    drop(store);
    check_others(&folder.open(), 100);
}

#[test]
fn a_row_with_another_number_or_time_is_damaged() {
    for sql in [
        "UPDATE rooms SET number = 4711 WHERE id = 'room 7'",
        "UPDATE rooms SET wake_at = 1 WHERE id = 'room 7'",
        "UPDATE rooms SET events = 9999 WHERE id = 'room 7'",
    ] {
        let folder = rooms();
        change(&folder, sql);
        let store = folder.open();
        let loaded = wait(|done| store.load("room 7", done));
        assert!(
            matches!(loaded, Err(JournalError::Damaged(_))),
            "{sql}: {loaded:?}"
        );
        check_others(&store, 7);
        drop(store);
        let rooms = Reader::open(&folder.path()).expect("it opens").rooms();
        let rooms = rooms.expect("it can be read");
        for room in rooms {
            let is_damaged = matches!(room.state, RoomState::Damaged(_));
            assert_eq!(is_damaged, &*room.id == "room 7", "{sql}: {room:?}");
        }
    }
}

#[test]
fn damaged_events_of_an_earlier_process_harm_their_room_alone_and_stay() {
    let folder = rooms();
    // Moves them out of the log.
    drop(folder.open());
    change(
        &folder,
        "UPDATE tails SET events = CAST(x'00' || substr(events, 2) AS BLOB)
         WHERE room = (SELECT number FROM rooms WHERE id = 'room 9')",
    );
    let row = || {
        let connection = Connection::open(folder.path().join("rooms.sqlite")).expect("it opens");
        let sql = "SELECT tails.events FROM tails JOIN rooms ON room = number WHERE id = 'room 9'";
        let row = connection.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0));
        row.expect("it is there")
    };
    let damaged = row();
    for _ in 0..2 {
        let store = folder.open();
        let loaded = wait(|done| store.load("room 9", done));
        assert!(
            matches!(loaded, Err(JournalError::Damaged(_))),
            "{loaded:?}"
        );
        check_others(&store, 9);
        drop(store);
        // Releasing it does not make it whole.
        let released = Store::release(&folder.path(), "room 9");
        assert!(
            matches!(released, Err(StoreError::Damaged(_))),
            "{released:?}"
        );
        assert_eq!(row(), damaged);
    }
}
