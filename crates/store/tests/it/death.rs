//! What is left when the process is killed, or the machine loses its power.

use crate::{
    TempDir, copy, events, load, log, new_room, save, snapshot, stored, support::Random, write,
};
use stateroom_wasmi_server::journal::{Journal, LogEntries, Stored};
use stateroom_wasmi_store::Store;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

const ROOMS: usize = 4;
const FOLDER: &str = "STORE_OF_A_WRITER";

/// Not a test by itself: writes until it is killed, and prints what is durable.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = Store::open(folder.as_ref()).expect("it opens");
    let mut random = Random::of_seed(std::process::id().into());
    let mut rooms: Vec<_> = (0..ROOMS)
        .map(|index| {
            let id = format!("room {index}");
            match load(&store, &id) {
                Stored::New(number) => {
                    write(&store, save(number, &id, snapshot(0, b"birth")));
                    (id, number, 0)
                }
                Stored::Room(room) => {
                    let tail = LogEntries::new(&room.tail).count() as u64;
                    (id, room.number, room.snapshot.events + tail)
                }
                Stored::Quarantined(reason) => panic!("{reason}"),
            }
        })
        .collect();
    for _ in 0..1_000_000 {
        let (id, number, next) = &mut rooms[random.below(ROOMS)];
        let last = *next + 1 + random.below(5) as u64;
        let mut batch = log(*number, *next..last);
        if random.below(20) == 0 {
            let write = stateroom_wasmi_server::journal::RoomWrite::Snapshot {
                id: (**id).into(),
                snapshot: snapshot(last, &vec![1; random.below(10_000)]),
            };
            batch.write(*number, write);
        }
        *next = last;
        let name = id.clone();
        store.write(
            batch,
            Box::new(move |written| {
                written.expect("it is written");
                // Fails if the parent is gone.
                let _ = writeln!(std::io::stdout(), "durable: {last} of {name}");
            }),
        );
        if random.below(10) == 0 {
            sleep(Duration::from_millis(1));
        }
    }
}

/// How many events are known to be durable, of each room.
type Acknowledged = BTreeMap<String, u64>;

fn start_writer(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "death::writer", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// What a writer has printed until it was killed.
fn read(writer: &mut Child, acknowledged: &mut Acknowledged) {
    let stdout = writer.stdout.take().expect("it is piped");
    // The last line may be cut.
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Some(line) = line.strip_prefix("durable: ") else {
            continue;
        };
        if let Some((count, room)) = line.split_once(" of ")
            && room.len() == "room 0".len()
        {
            acknowledged.insert(room.into(), count.parse().expect("a number"));
        }
    }
}

/// All that was acknowledged is there, once and without gaps.
fn check(store: &impl Journal, acknowledged: &Acknowledged) {
    for (id, count) in acknowledged {
        let room = stored(store, id);
        let saved = room.snapshot.events;
        let events = events(&room);
        let expected: Vec<_> = (saved..saved + events.len() as u64).collect();
        assert_eq!(events, expected, "{id}: no gaps");
        assert!(
            saved + events.len() as u64 >= *count,
            "{id}: {count} events"
        );
    }
}

/// `KILLS` has how often.
#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let kills = std::env::var("KILLS").map_or(20, |kills| kills.parse().expect("a number"));
    let mut random = Random::new();
    let folder = TempDir::new();
    let mut acknowledged = Acknowledged::new();
    for _ in 0..kills {
        let mut writer = start_writer(&folder.path());
        let reader = std::thread::scope(|scope| {
            let mut found = acknowledged.clone();
            let process = writer.id().to_string();
            let reader = scope.spawn(|| {
                read(&mut writer, &mut found);
                found
            });
            sleep(Duration::from_millis(random.below(200) as u64));
            let killed = Command::new("kill").args(["-KILL", &process]).status();
            assert!(killed.expect("kill runs").success());
            reader.join().expect("no panic")
        });
        writer.wait().expect("it has ended");
        acknowledged = reader;
        check(&folder.open(), &acknowledged);
    }
    let total: u64 = acknowledged.values().sum();
    assert!(total > 100, "they were killed while they wrote: {total}");
}

/// Power is lost: of the write-ahead log, what was synchronised is left, and whatever of the rest.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut random = Random::new();
    let folder = TempDir::new();
    let store = folder.open();
    let mut rooms: Vec<_> = (0..ROOMS)
        .map(|index| {
            let id = format!("room {index}");
            let number = new_room(&store, &id);
            write(&store, save(number, &id, snapshot(0, b"birth")));
            (id, number, 0)
        })
        .collect();
    let wal = folder.path().join("rooms.sqlite-wal");
    let mut moments: Vec<(u64, Acknowledged)> = Vec::new();
    for _ in 0..60 {
        let (id, number, next) = &mut rooms[random.below(ROOMS)];
        let last = *next + 1 + random.below(20) as u64;
        let mut batch = log(*number, *next..last);
        *next = last;
        if random.below(5) == 0 {
            let write = stateroom_wasmi_server::journal::RoomWrite::Snapshot {
                id: (**id).into(),
                snapshot: snapshot(last, &random.bytes(3000)),
            };
            batch.write(*number, write);
        }
        write(&store, batch);
        let acknowledged = rooms
            .iter()
            .map(|(id, _, next)| (id.clone(), *next))
            .collect();
        let length = fs::metadata(&wal).expect("it is there").len();
        moments.push((length, acknowledged));
    }
    let whole = fs::read(&wal).expect("it is there");
    for (index, (length, acknowledged)) in moments.iter().enumerate() {
        let next = moments.get(index + 1).map_or(*length, |(next, _)| *next);
        assert!(next >= *length, "the log was not begun anew");
        for _ in 0..3 {
            let cut = TempDir::new();
            copy(&folder.path(), &cut.path());
            let unsynchronised = (next - length) as usize;
            let left = *length as usize + random.below(unsynchronised.max(1));
            let mut bytes = whole[..left].to_vec();
            // A part of the next transaction, with holes.
            for byte in &mut bytes[*length as usize..] {
                if random.below(50) == 0 {
                    *byte = 0;
                }
            }
            let garbage = random.below(5000);
            bytes.extend(random.bytes(garbage));
            fs::write(cut.path().join("rooms.sqlite-wal"), bytes).expect("written");
            // It is made anew from the log.
            let _ = fs::remove_file(cut.path().join("rooms.sqlite-shm"));
            check(&cut.open(), acknowledged);
        }
    }
}
