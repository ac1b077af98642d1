//! What `Journal` promises.

use crate::{TempDir, events, load, log, new_room, save, snapshot, stored, wait, write};
use core::time::Duration;
use stateroom_wasmi_server::journal::{
    Batch, Journal, JournalError, LogEntries, RoomFile, RoomNumber, RoomWrite, Stored,
    UnfinishedRoom,
};
use stateroom_wasmi_store::{Reader, RoomState, Store, StoreError};

#[test]
fn a_room_is_loaded_as_it_was_saved_with_its_events_since() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    write(&store, log(number, 0..3));
    let mut both = log(number, 3..5);
    let second = snapshot(4, b"second");
    both.write(
        number,
        RoomWrite::Snapshot {
            id: "lobby".into(),
            snapshot: second.clone(),
        },
    );
    write(&store, both);
    write(&store, log(number, 5..6));
    let check = |store: &Store| {
        let room = stored(store, "lobby");
        assert_eq!(room.number, number);
        assert_eq!(room.snapshot, second);
        assert_eq!(events(&room), [4, 5]);
    };
    check(&store);
    drop(store);
    check(&folder.open());
}

#[test]
fn a_load_finds_what_was_written_before_it() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    // Without waiting: both are in the queue.
    store.write(save(number, "lobby", snapshot(7, b"now")), Box::new(drop));
    assert_eq!(stored(&store, "lobby").snapshot, snapshot(7, b"now"));
}

#[test]
fn a_room_that_was_removed_is_new_and_has_another_number() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    write(&store, log(number, 0..3));
    let mut batch = Batch::default();
    batch.write(number, RoomWrite::Remove);
    write(&store, batch);
    assert_ne!(new_room(&store, "lobby"), number);
    drop(store);
    let store = folder.open();
    assert_eq!(store.unfinished(), []);
    let again = new_room(&store, "lobby");
    assert!(again > number, "{again:?} after {number:?}");
    // What is left of the first one's events is not this one's.
    write(&store, save(again, "lobby", snapshot(0, b"again")));
    drop(store);
    assert!(events(&stored(&folder.open(), "lobby")).is_empty());
}

#[test]
fn rooms_with_events_and_those_that_wake_are_unfinished() {
    let folder = TempDir::new();
    let store = folder.open();
    assert_eq!(store.unfinished(), []);
    let wake_at = Some(Duration::from_millis(1_700_000_000_123));
    for (id, wake_at, tail) in [
        ("busy", None, 2),
        ("done", None, 0),
        ("asleep", wake_at, 0),
        ("both", wake_at, 1),
    ] {
        let number = new_room(&store, id);
        let mut snapshot = snapshot(0, b"birth");
        snapshot.wake_at = wake_at;
        write(&store, save(number, id, snapshot));
        write(&store, log(number, 0..tail));
    }
    drop(store);
    let unfinished = |id: &str, wake_at| UnfinishedRoom {
        id: id.into(),
        wake_at,
    };
    let mut found = folder.open().unfinished();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let expected = [
        unfinished("asleep", wake_at),
        unfinished("both", None),
        unfinished("busy", None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_secret_stays() {
    let folder = TempDir::new();
    let secret = folder.open().secret();
    assert_eq!(folder.open().secret(), secret);
    assert_ne!(TempDir::new().open().secret(), secret);
}

#[test]
fn an_event_that_ends_the_process_again_and_again_brings_its_room_into_quarantine() {
    let folder = TempDir::new();
    let (culprit, innocent) = {
        let store = folder.open();
        ["culprit", "innocent"]
            .map(|id| {
                let number = new_room(&store, id);
                write(&store, save(number, id, snapshot(0, b"birth")));
                write(&store, log(number, 0..9));
                number
            })
            .into()
    };
    // A process that ends while a worker replays this event, after others.
    let dies_at = |event: (RoomNumber, u64)| {
        let store = folder.open();
        store.replaying(1, Some((culprit, 2)));
        store.replaying(1, None);
        for before in 0..event.1 {
            store.replaying(0, Some((event.0, before)));
        }
        store.replaying(0, Some(event));
        // Whatever is left undone, the note stays.
    };
    let is_restored = |id: &str| {
        let store = folder.open();
        match load(&store, id) {
            Stored::Room(room) => events(&room).len() == 9,
            Stored::Quarantined(reason) => {
                assert!(reason.contains("event 7"), "{reason}");
                false
            }
            Stored::New(_) => panic!("{id} is gone"),
        }
    };
    let state = |id: &str| {
        let rooms = Reader::open(&folder.path()).expect("it opens").rooms();
        let rooms = rooms.expect("it can be read");
        let room = rooms.into_iter().find(|room| &*room.id == id);
        room.expect("it is there").state
    };
    // Killed at different events, or with an attempt in between that got further.
    for event in [3, 4, 3, 3, 5, 3, 3] {
        dies_at((innocent, event));
    }
    assert!(is_restored("innocent"));
    dies_at((innocent, 8));
    dies_at((innocent, 3));
    dies_at((innocent, 3));
    assert!(is_restored("innocent"));

    for deaths in 1..=2 {
        dies_at((culprit, 7));
        assert!(is_restored("culprit"));
        assert_eq!(state("culprit"), RoomState::Suspect { event: 7, deaths });
    }
    dies_at((culprit, 7));
    assert!(!is_restored("culprit"));
    assert!(is_restored("innocent"));
    assert!(matches!(state("culprit"), RoomState::Quarantined(_)));
    let unfinished = folder.open().unfinished();
    assert!(unfinished.iter().all(|room| &*room.id == "innocent"));

    Store::release(&folder.path(), "culprit").expect("it is there");
    assert!(is_restored("culprit"));
    let unknown = Store::release(&folder.path(), "nobody");
    assert!(matches!(unknown, Err(StoreError::UnknownRoom)));
}

#[test]
fn what_cannot_be_replayed_is_kept_in_quarantine() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(0, b"birth")));
    let mut batch = Batch::default();
    batch.write(number, RoomWrite::Quarantine("it diverged".into()));
    write(&store, batch);
    drop(store);
    let store = folder.open();
    let expected = Stored::Quarantined("it diverged".into());
    assert_eq!(load(&store, "lobby"), expected);
    let exported = Reader::open(&folder.path())
        .expect("it opens")
        .export("lobby");
    assert_eq!(
        exported.expect("it is kept").snapshot,
        snapshot(0, b"birth")
    );
}

#[test]
fn one_process_writes_and_others_read() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    write(&store, save(number, "lobby", snapshot(3, b"now")));
    write(&store, log(number, 3..5));
    let second = Store::open(&folder.path());
    assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    let reader = Reader::open(&folder.path()).expect("it opens");
    for more in 5..8 {
        let rooms = reader.rooms().expect("it can be read");
        assert_eq!((rooms[0].events, rooms[0].events_since), (3, more - 3));
        write(&store, log(number, more..more + 1));
    }
}

#[test]
fn what_was_passed_to_a_store_that_is_dropped_is_written() {
    let folder = TempDir::new();
    let store = folder.open();
    let number = new_room(&store, "lobby");
    store.write(save(number, "lobby", snapshot(0, b"birth")), Box::new(drop));
    for event in 0..100 {
        store.write(log(number, event..event + 1), Box::new(drop));
    }
    drop(store);
    assert_eq!(events(&stored(&folder.open(), "lobby")).len(), 100);
}

#[test]
fn callbacks_may_call_the_store() {
    let folder = TempDir::new();
    let store = std::sync::Arc::new(folder.open());
    let again = store.clone();
    let number = wait(|done| {
        store.load(
            "lobby",
            Box::new(move |_| {
                again.load("hall", done);
            }),
        );
    });
    assert!(matches!(number, Ok(Stored::New(_))));
}

#[test]
fn a_room_is_replaced_in_whatever_state_it_is() {
    let folder = TempDir::new();
    let store = folder.open();
    let room = |name: &str, room: &[u8]| RoomFile {
        id: name.into(),
        snapshot: snapshot(5, room),
        tail: log(RoomNumber(77), 5..8).events().into(),
    };
    let numbers = ["hall", "lobby"].map(|id| {
        let number = new_room(&store, id);
        write(&store, save(number, id, snapshot(0, b"old")));
        write(&store, log(number, 0..20));
        number
    });
    let mut batch = Batch::default();
    batch.write(numbers[1], RoomWrite::Quarantine("it diverged".into()));
    write(&store, batch);
    // Also one that there is not, and one that was replaced before.
    for id in ["hall", "lobby", "attic", "lobby"] {
        store.replace(&room(id, b"new")).expect("it is written");
    }
    let check = |store: &Store| {
        for id in ["hall", "lobby", "attic"] {
            let found = stored(store, id);
            assert!(!numbers.contains(&found.number));
            assert_eq!(found.snapshot, snapshot(5, b"new"));
            let events: Vec<_> = LogEntries::new(&found.tail).flatten().collect();
            let numbers: Vec<_> = events.iter().map(|event| event.number).collect();
            assert_eq!(numbers, [5, 6, 7], "{id}");
        }
    };
    check(&store);
    drop(store);
    check(&folder.open());
}

#[test]
fn a_full_store_replaces_rooms_and_adds_none() {
    let folder = TempDir::new();
    let store = Store::open_with(&folder.path(), 1).expect("it opens");
    let room = |id: &str| RoomFile {
        id: id.into(),
        snapshot: snapshot(0, b"room"),
        tail: Vec::new(),
    };
    for _ in 0..2 {
        store.replace(&room("lobby")).expect("there is space");
    }
    let refused = store.replace(&room("hall"));
    assert!(
        matches!(
            refused,
            Err(StoreError::Journal(JournalError::TooManyRooms { limit: 1 }))
        ),
        "{refused:?}"
    );
    assert_eq!(stored(&store, "lobby").snapshot.room, b"room");
}
