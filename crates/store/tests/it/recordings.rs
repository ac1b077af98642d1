//! What rooms do, in files.

use crate::{
    TempDir, log, save, snapshot, stored,
    support::{assemble, echo},
    wait, write,
};
use stateroom_wasmi_host::{Limits, LoadOptions, Module, Room, RoomOptions};
use stateroom_wasmi_server::journal::{
    Journal, RoomFile, RoomNumber, RoomSnapshot, RoomWrite, Stored,
};
use stateroom_wasmi_store::{Recorder, Recording};
use std::{fs, path::PathBuf, sync::Arc};

fn recordings(folder: &TempDir) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.path()).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

fn read(path: &PathBuf) -> Recording {
    let bytes = fs::read(path).expect("a file");
    Recording::read(&bytes).expect("a recording")
}

#[test]
fn a_recording_has_the_room_and_what_it_did() {
    let folder = TempDir::new();
    let recorder = Recorder::open(&folder.path(), u64::MAX, None).expect("it opens");
    let Ok(Stored::New(number)) = wait(|done| recorder.load("lo/bby", done)) else {
        panic!("it keeps nothing");
    };
    write(&recorder, save(number, "lo/bby", snapshot(0, b"birth")));
    write(&recorder, log(number, 0..3));
    // A later snapshot is not needed.
    write(&recorder, save(number, "lo/bby", snapshot(3, b"later")));
    write(&recorder, log(number, 3..5));
    // Of no room that it knows.
    write(&recorder, log(RoomNumber(77), 0..5));
    drop(recorder);
    let [file] = &recordings(&folder)[..] else {
        panic!("there is one file");
    };
    assert!(
        file.to_str()
            .is_some_and(|name| name.ends_with("lo%2Fbby-1-1.recording"))
    );
    let Recording { room, is_cut } = read(file);
    assert!(!is_cut);
    assert_eq!(room.snapshot, snapshot(0, b"birth"));
    assert_eq!(room.tail, log(number, 0..5).events());
    // What is cut has what is whole, and junk is none.
    let bytes = fs::read(file).expect("a file");
    let mut last = 5;
    for length in (0..bytes.len()).rev() {
        match Recording::read(&bytes[..length]) {
            Some(recording) => {
                let events = crate::LogEntries::new(&recording.room.tail).count();
                assert!(events <= last, "{length}");
                last = events;
            }
            None => assert_eq!(last, 0, "{length}"),
        }
    }
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 0x40;
        let intact = Recording {
            room: room.clone(),
            is_cut: false,
        };
        assert_ne!(Recording::read(&damaged), Some(intact), "{index}");
    }
}

#[test]
fn a_snapshot_and_events_of_one_batch_are_in_order() {
    let folder = TempDir::new();
    let recorder = Recorder::open(&folder.path(), u64::MAX, None).expect("it opens");
    let number = RoomNumber(1);
    // Events before the first snapshot are in it, and those after it are not.
    let mut batch = log(number, 0..3);
    let first = snapshot(2, b"first");
    let write_of = |snapshot: &RoomSnapshot| RoomWrite::Snapshot {
        id: "lobby".into(),
        snapshot: snapshot.clone(),
    };
    batch.write(number, write_of(&first));
    write(&recorder, batch);
    let mut batch = log(number, 3..6);
    batch.write(number, write_of(&snapshot(4, b"second")));
    write(&recorder, batch);
    let mut batch = log(number, 6..7);
    batch.write(number, RoomWrite::Remove);
    write(&recorder, batch);
    write(&recorder, log(number, 7..8));
    drop(recorder);
    let [file] = &recordings(&folder)[..] else {
        panic!("there is one file");
    };
    let room = read(file).room;
    assert_eq!(
        (room.snapshot, room.tail),
        (first, log(number, 2..7).events().to_vec())
    );
}

#[test]
fn a_room_that_was_stored_is_recorded_from_there_on() {
    let (folder, rooms) = (TempDir::new(), TempDir::new());
    let store = Arc::new(rooms.open());
    let number = crate::new_room(&*store, "lobby");
    write(&*store, save(number, "lobby", snapshot(0, b"birth")));
    write(&*store, log(number, 0..3));
    let journal: Arc<dyn Journal> = store.clone();
    let recorder = Recorder::open(&folder.path(), u64::MAX, Some(journal)).expect("it opens");
    let room = stored(&recorder, "lobby");
    assert_eq!((room.number, crate::events(&room)), (number, vec![0, 1, 2]));
    write(&recorder, log(number, 3..4));
    assert_eq!(crate::events(&stored(&*store, "lobby")), [0, 1, 2, 3]);
    drop(recorder);
    let Recording { room, .. } = read(&recordings(&folder)[0]);
    assert_eq!(room.tail, log(number, 0..4).events());
}

#[test]
fn who_looks_at_a_room_does_not_cut_its_recording() {
    let (folder, rooms) = (TempDir::new(), TempDir::new());
    let journal: Arc<dyn Journal> = Arc::new(rooms.open());
    let recorder = Recorder::open(&folder.path(), u64::MAX, Some(journal)).expect("it opens");
    let number = crate::new_room(&recorder, "lobby");
    write(&recorder, save(number, "lobby", snapshot(0, b"birth")));
    write(&recorder, log(number, 0..2));
    let looked_at = wait(|done| recorder.peek("lobby", done)).expect("it is read");
    assert!(matches!(looked_at, Stored::Room(room) if crate::events(&room) == [0, 1]));
    write(&recorder, log(number, 2..3));
    drop(recorder);
    let [file] = &recordings(&folder)[..] else {
        panic!("there is one file");
    };
    assert_eq!(read(file).room.tail, log(number, 0..3).events());
}

#[test]
fn a_file_ends_with_its_module_or_its_length_and_the_oldest_go() {
    let folder = TempDir::new();
    let of_module = |more: &str| {
        let text = echo().replacen("(memory", &format!("{more} (memory"), 1);
        let options = LoadOptions::new().snapshots(true);
        let module = Module::load_with(&assemble(&text), &Limits::new(), options);
        let room = Room::new(&module.expect("it is a room"), "lobby", RoomOptions::new());
        RoomSnapshot {
            room: room.expect("it opens").save().expect("it is idle"),
            ..snapshot(0, b"")
        }
    };
    let number = RoomNumber(1);
    let recorder = Recorder::open(&folder.path(), u64::MAX, None).expect("it opens");
    let (first, second) = (of_module(""), of_module("(global i32 (i32.const 1))"));
    for snapshot in [&first, &first, &second, &second, &first] {
        write(&recorder, save(number, "lobby", snapshot.clone()));
        write(&recorder, log(number, 0..1));
    }
    drop(recorder);
    assert_eq!(recordings(&folder).len(), 3);
    let all: u64 = recordings(&folder)
        .iter()
        .map(|file| file.metadata().expect("a file").len())
        .sum();
    // There is space for one more byte, and the oldest file goes.
    let oldest = recordings(&folder)[0].clone();
    let other = fs::File::options()
        .append(true)
        .open(&oldest)
        .expect("a file");
    let past = std::time::SystemTime::UNIX_EPOCH;
    other.set_modified(past).expect("it is set");
    let recorder = Recorder::open(&folder.path(), all + 1, None).expect("it opens");
    write(&recorder, save(number, "lobby", first));
    drop(recorder);
    assert!(!oldest.exists());
    let left = recordings(&folder);
    assert!((1..=3).contains(&left.len()), "{left:?}");
    // A limit that is too small for one records nothing that stays.
    let recorder = Recorder::open(&folder.path(), 0, None).expect("it opens");
    write(&recorder, save(number, "lobby", second));
    write(&recorder, log(number, 0..100));
    drop(recorder);
    assert_eq!(recordings(&folder), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_written_harms_nobody() {
    let folder = TempDir::new();
    let recorder = Recorder::open(&folder.path(), u64::MAX, None).expect("it opens");
    fs::remove_dir_all(folder.path()).expect("it is there");
    write(
        &recorder,
        save(RoomNumber(1), "lobby", snapshot(0, b"birth")),
    );
    write(&recorder, log(RoomNumber(1), 0..3));
    fs::create_dir_all(folder.path()).expect("it is made");
    // Recorded from the next snapshot on.
    write(
        &recorder,
        save(RoomNumber(1), "lobby", snapshot(3, b"later")),
    );
    write(&recorder, log(RoomNumber(1), 3..4));
    drop(recorder);
    let Recording { room, .. } = read(&recordings(&folder)[0]);
    let expected = RoomFile {
        id: "lobby".into(),
        snapshot: snapshot(3, b"later"),
        tail: log(RoomNumber(1), 3..4).events().into(),
    };
    assert_eq!(room, expected);
}
