//! The machine loses its power, or the process is killed, at each moment at which the store changes a file:
//! what was acknowledged is there, once, and the store opens.

use crate::{
    TempDir, event_bytes, events,
    simulated_disk::{Disk, Note, Recorder, Step},
    stored,
    support::Random,
    wait,
};
use rusqlite::Connection;
use stateroom_wasmi_host::WithSources;
use stateroom_wasmi_server::journal::{
    Batch, Journal, LogEntries, RoomFile, RoomNumber, RoomSnapshot, RoomWrite, Stored,
};
use stateroom_wasmi_store::{Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, mpsc},
};

const IDS: [&str; 5] = ["attic", "cellar", "hall", "kitchen", "lobby"];

/// The rooms of a store.
type State = BTreeMap<&'static str, Room>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    number: RoomNumber,
    /// None if it is in quarantine.
    content: Option<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    snapshot: Arc<RoomSnapshot>,
    next_event: u64,
}

/// A machine with a disk of which it has lost nothing yet.
struct Machine {
    folder: TempDir,
    recorder: Recorder,
}

impl Machine {
    fn boot(disk: &Disk, random: &mut Random) -> Self {
        let folder = TempDir::new();
        fs::create_dir_all(folder.path()).expect("a folder");
        for (name, bytes) in disk.files() {
            fs::write(folder.path().join(name), bytes).expect("it is written");
        }
        // SQLite never relies on what is in this file when nobody has it open.
        if random.below(4) == 0 {
            let length = random.below(70_000);
            let garbage = random.bytes(length);
            fs::write(folder.path().join("rooms.sqlite-shm"), garbage).expect("it is written");
        }
        let recorder = Recorder::new(&folder.path());
        Self { folder, recorder }
    }

    fn note(&self, note: Note) {
        self.recorder.push(Step::Note(note));
    }

    fn open(&self) -> Result<Store, StoreError> {
        let store = Store::open(&self.folder.path())?;
        // What the store does itself, without SQLite.
        self.recorder.push(Step::SyncFolder);
        self.note(Note::Opened);
        Ok(store)
    }

    /// The number of a room that is not there yet.
    fn number(&self, store: &Store, id: &str) -> RoomNumber {
        let loaded = wait(|done| store.load(id, done));
        let Ok(Stored::New(number)) = loaded else {
            panic!("{id} is not new");
        };
        self.note(Note::Numbered(number.0));
        number
    }
}

/// What a store was given while a machine ran.
struct Life {
    /// What is stored after each batch, and before the first.
    states: Vec<State>,
    secret: [u8; 32],
    steps: Vec<Step>,
}

/// What must be there after a crash.
struct Expected<'a> {
    /// One of these.
    states: &'a [State],
    /// The rooms that are looked at.
    ids: &'static [&'static str],
    /// Numbers that are not given to other rooms.
    numbers: BTreeSet<u64>,
    secret: Option<[u8; 32]>,
}

/// Opens the store a few times, and writes random batches, in transactions of one or more.
fn live(machine: &Machine, state: State, random: &mut Random) -> Life {
    let mut states = vec![state];
    let mut secret = None;
    for _ in 0..3 {
        let store = machine.open().expect("it opens");
        assert_eq!(*secret.get_or_insert(store.secret()), store.secret());
        for _ in 0..4 {
            let mut group = Vec::new();
            let mut ended = BTreeSet::new();
            for _ in 0..=random.below(3) {
                let mut state = states.last().expect("the first").clone();
                group.push(batch(machine, &store, &mut state, &mut ended, random));
                states.push(state);
            }
            write_at_once(machine, &store, group, states.len());
            if random.below(5) == 0 {
                checkpoint(machine, random);
            }
        }
    }
    Life {
        states,
        secret: secret.expect("it was opened"),
        steps: machine.recorder.take_steps(),
    }
}

/// A random batch, after which the store is in this state. Rooms that have ended in the same transaction do not
/// begin anew in it: nobody knows their new numbers yet.
fn batch(
    machine: &Machine,
    store: &Store,
    state: &mut State,
    ended: &mut BTreeSet<&str>,
    random: &mut Random,
) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..=random.below(3) {
        let id = IDS[random.below(IDS.len())];
        if ended.contains(id) {
            continue;
        }
        let room = state.entry(id).or_insert_with(|| {
            let number = machine.number(store, id);
            let snapshot = snapshot(random, 0);
            batch.write(number, save(id, &snapshot));
            Room {
                number,
                content: Some(Content {
                    snapshot,
                    next_event: 0,
                }),
            }
        });
        let number = room.number;
        let Some(content) = &mut room.content else {
            continue;
        };
        for _ in 0..random.below(20) {
            let event = event_bytes(number, content.next_event);
            batch.log(number, content.next_event, &event);
            content.next_event += 1;
        }
        match random.below(16) {
            0..=4 => {
                content.snapshot = snapshot(random, content.next_event);
                batch.write(number, save(id, &content.snapshot));
            }
            5 => {
                let end = [RoomWrite::Remove, RoomWrite::Discard][random.below(2)].clone();
                batch.write(number, end);
                state.remove(id);
                ended.insert(id);
            }
            6 if random.below(4) == 0 => {
                batch.write(number, RoomWrite::Quarantine("it diverged".into()));
                room.content = None;
            }
            _ => {}
        }
    }
    batch
}

fn snapshot(random: &mut Random, events: u64) -> Arc<RoomSnapshot> {
    let length = [50, 3000, 30_000][random.below(3)];
    let (room, clients) = (random.below(length), random.below(50));
    Arc::new(RoomSnapshot {
        events,
        room: random.bytes(room),
        clients: random.bytes(clients),
        wake_at: None,
    })
}

fn save(id: &str, snapshot: &RoomSnapshot) -> RoomWrite {
    RoomWrite::Snapshot {
        id: id.into(),
        snapshot: snapshot.clone(),
    }
}

/// Writes batches in one transaction, and waits for it.
fn write_at_once(machine: &Machine, store: &Store, group: Vec<Batch>, states: usize) {
    // Holds up the thread that writes until all are there, by a look-up.
    let (open_gate, gate) = mpsc::channel::<()>();
    let wait_at_gate = move |_| gate.recv().unwrap_or_default();
    store.load(IDS[0], Box::new(wait_at_gate));
    let (send, receive) = mpsc::channel();
    let first = states - group.len();
    for (index, batch) in group.into_iter().enumerate() {
        let (send, record) = (send.clone(), machine.recorder.handle());
        let done = move |written: Result<(), _>| {
            record(Step::Note(Note::Acknowledged(first + index)));
            let _ = send.send(written.is_ok());
        };
        store.write(batch, Box::new(done));
    }
    drop((send, open_gate));
    assert!(receive.iter().all(|is_ok| is_ok), "it is written");
}

/// What SQLite does when its write-ahead log has become long.
fn checkpoint(machine: &Machine, random: &mut Random) {
    let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][random.below(4)];
    let file = machine.folder.path().join("rooms.sqlite");
    let connection = Connection::open(file).expect("it opens");
    let pragma = "checkpoint_fullfsync";
    let set = connection.pragma_update(None, pragma, true);
    set.expect("it is set");
    connection
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
        .expect("it is done");
}

/// Opens a store and reads all of it; returns which state it is in.
fn observe(machine: &Machine, expected: &Expected<'_>) -> Result<usize, String> {
    let store = machine
        .open()
        .map_err(|error| format!("it does not open: {}", WithSources(&error)))?;
    if expected
        .secret
        .is_some_and(|secret| secret != store.secret())
    {
        return Err("its secret is another one".into());
    }
    let (mut found, mut quarantined) = (State::new(), BTreeSet::new());
    // All at once, which is faster.
    let (send, receive) = mpsc::channel();
    for &id in expected.ids {
        let send = send.clone();
        store.load(id, Box::new(move |loaded| drop(send.send((id, loaded)))));
    }
    for (id, loaded) in receive.iter().take(expected.ids.len()) {
        match loaded {
            Ok(Stored::New(number)) if expected.numbers.contains(&number.0) => {
                return Err(format!("the number {} is given again", number.0));
            }
            Ok(Stored::New(_)) => {}
            Ok(Stored::Room(room)) => {
                let (first, events) = (room.snapshot.events, events(&room));
                let next_event = first + events.len() as u64;
                if !events.iter().copied().eq(first..next_event) {
                    return Err(format!("{id} has the events {events:?} since {first}"));
                }
                let content = Some(Content {
                    snapshot: Arc::new(room.snapshot),
                    next_event,
                });
                let number = room.number;
                found.insert(id, Room { number, content });
            }
            Ok(Stored::Quarantined(_)) => {
                quarantined.insert(id);
            }
            Err(error) => return Err(format!("{id}: {}", WithSources(&error))),
        }
    }
    machine.note(Note::Observed);
    let unfinished: BTreeSet<_> = store
        .unfinished()
        .into_iter()
        .map(|room| room.id.to_string())
        .collect();
    let is_found = |state: &State| {
        let mut rooms = state.iter();
        let are_there = rooms.all(|(id, room)| match room.content {
            Some(_) => found.get(id) == Some(room),
            None => quarantined.contains(id),
        });
        are_there && state.len() == found.len() + quarantined.len()
    };
    let state = expected.states.iter().rposition(is_found);
    let state = state.ok_or_else(|| {
        let rooms: Vec<_> = found
            .iter()
            .map(|(id, room)| {
                (
                    id,
                    room.number.0,
                    room.content.as_ref().map(|it| it.next_event),
                )
            })
            .collect();
        let states = expected.states.len();
        format!("none of {states} states has the rooms {rooms:?} and {quarantined:?}")
    })?;
    let has_tail = |content: &Content| content.next_event > content.snapshot.events;
    let with_tails = found
        .iter()
        .filter(|(_, room)| room.content.as_ref().is_some_and(has_tail))
        .map(|(id, _)| (*id).to_owned())
        .collect();
    if unfinished != with_tails {
        return Err(format!("unfinished are {unfinished:?}, not {with_tails:?}"));
    }
    Ok(state)
}

/// What a crash leaves.
struct Left {
    disk: Disk,
    /// The state that it is in.
    state: usize,
    secret: Option<[u8; 32]>,
}

/// Crashes, and maybe again while the store is opened; returns what is left at last.
fn crash(
    disk: &Disk,
    expected: &Expected<'_>,
    random: &mut Random,
    depth: usize,
) -> Result<Left, String> {
    // A process that is killed loses nothing by itself, and leaves unsynchronised what was.
    let is_killed = random.below(4) == 0;
    let disk = match is_killed {
        true => disk.clone(),
        false => Disk::of(disk.lose_power(random)),
    };
    let machine = Machine::boot(&disk, random);
    let what = if is_killed { "killed" } else { "power lost" };
    let state = observe(&machine, expected).map_err(|error| format!("{what}: {error}"))?;
    if depth == 0 || random.below(3) != 0 {
        let secret = expected.secret;
        return Ok(Left {
            disk,
            state,
            secret,
        });
    }
    let steps = machine.recorder.take_steps();
    let moment = random.below(steps.len() + 1);
    let mut again = disk;
    let mut expected = Expected {
        states: &expected.states[..=state],
        ids: expected.ids,
        numbers: expected.numbers.clone(),
        secret: expected.secret,
    };
    let mut skipped = 0;
    for step in &steps[..moment] {
        again.apply(step);
        // Somebody has seen it.
        if matches!(step, Step::Note(Note::Observed)) {
            expected.states = &expected.states[state..];
            skipped = state;
        }
    }
    let left = crash(&again, &expected, random, depth - 1);
    left.map(|left| Left {
        state: left.state + skipped,
        ..left
    })
    .map_err(|error| {
        format!(
            "{what}, and after {moment} of {} steps {error}",
            steps.len()
        )
    })
}

/// Crashes before and after each step of a life, so often; returns what one of the crashes leaves.
fn sweep(
    start: &Disk,
    life: &Life,
    known: (BTreeSet<u64>, Option<[u8; 32]>),
    cuts: usize,
    seed: u64,
) -> Result<Left, String> {
    let mut disk = start.clone();
    let (numbers, secret) = known;
    let mut expected = Expected {
        states: &life.states,
        ids: &IDS,
        numbers,
        secret,
    };
    let mut acknowledged = 0;
    let mut choice = Random::of_seed(seed);
    let chosen = choice.below(life.steps.len());
    let mut left = None;
    for (index, step) in life.steps.iter().enumerate() {
        disk.apply(step);
        match step {
            Step::Note(Note::Opened) => expected.secret = Some(life.secret),
            Step::Note(Note::Numbered(number)) => drop(expected.numbers.insert(*number)),
            Step::Note(Note::Acknowledged(state)) => {
                acknowledged = *state;
                expected.states = &life.states[acknowledged..];
            }
            Step::Note(Note::Observed) => {}
            _ => {
                for cut in 0..cuts {
                    let mut random = Random::of_seed(seed ^ ((index * cuts + cut) as u64) << 20);
                    let found = crash(&disk, &expected, &mut random, 3);
                    let found = found.map_err(|error| {
                        let steps = life.steps.len();
                        format!("crash {cut} after step {index} of {steps}: {error}")
                    })?;
                    if index >= chosen && left.is_none() {
                        let state = found.state + acknowledged;
                        left = Some(Left { state, ..found });
                    }
                }
            }
        }
    }
    left.ok_or_else(|| "there was no step".into())
}

/// `POWER_CUTS` has how many lives of a store are cut at each step.
#[test]
fn nothing_that_was_acknowledged_is_lost_at_any_step() {
    let lives = std::env::var("POWER_CUTS").map_or(1, |lives| lives.parse().expect("a number"));
    let first_seed = Random::given_seed().unwrap_or(1);
    for seed in (first_seed..).take(lives) {
        let mut random = Random::of_seed(seed);
        let machine = Machine::boot(&Disk::default(), &mut random);
        let life = live(&machine, State::new(), &mut random);
        let known = (BTreeSet::new(), None);
        let left = sweep(&Disk::default(), &life, known, 1, seed);
        let left = left.unwrap_or_else(|error| panic!("TEST_SEED={seed}: {error}"));
        // A store goes on after a crash.
        let machine = Machine::boot(&left.disk, &mut random);
        let state = life.states[left.state].clone();
        let numbers = state.values().map(|room| room.number.0).collect();
        let next = live(&machine, state, &mut random);
        let left = sweep(&left.disk, &next, (numbers, left.secret), 1, seed);
        left.unwrap_or_else(|error| panic!("TEST_SEED={seed}, after a crash: {error}"));
        let steps = life.steps.len() + next.steps.len();
        println!("TEST_SEED={seed}: {steps} steps");
    }
}

/// A process that is killed leaves what it has written and not synchronised to the next one, whose clients see it.
#[test]
fn what_a_killed_process_left_is_synchronised_before_it_is_seen() {
    let mut random = Random::of_seed(1);
    let machine = Machine::boot(&Disk::default(), &mut random);
    let store = machine.open().expect("it opens");
    let number = machine.number(&store, "lobby");
    let mut states = vec![State::new()];
    // Snapshots alone: events would be moved to another table when the store is opened, in a transaction.
    for _ in 0..4 {
        let snapshot = snapshot(&mut random, 0);
        let mut batch = Batch::default();
        batch.write(number, save("lobby", &snapshot));
        let content = Some(Content {
            snapshot,
            next_event: 0,
        });
        states.push(State::from([("lobby", Room { number, content })]));
        write_at_once(&machine, &store, vec![batch], states.len());
    }
    let (mut disk, mut acknowledged) = (Disk::default(), 0);
    for step in machine.recorder.take_steps() {
        disk.apply(&step);
        if let Step::Note(Note::Acknowledged(state)) = step {
            acknowledged = state;
        }
        let machine = Machine::boot(&disk, &mut random);
        let expected = |states| Expected {
            states,
            // Others would be given numbers, which is a change.
            ids: &["lobby"],
            numbers: BTreeSet::new(),
            secret: None,
        };
        let seen = observe(&machine, &expected(&states[acknowledged..])).expect("it is there");
        let seen = &states[acknowledged + seen..][..1];
        let mut left = disk.clone();
        let mut steps = machine.recorder.take_steps().into_iter();
        while !matches!(
            steps.next().inspect(|step| left.apply(step)),
            Some(Step::Note(Note::Observed)) | None
        ) {}
        for _ in 0..4 {
            let left = Disk::of(left.lose_power(&mut random));
            let machine = Machine::boot(&left, &mut random);
            observe(&machine, &expected(seen)).expect("it was seen");
        }
    }
}

#[test]
fn a_room_is_replaced_as_a_whole_or_not_at_all() {
    let mut random = Random::of_seed(1);
    let machine = Machine::boot(&Disk::default(), &mut random);
    let store = machine.open().expect("it opens");
    let number = machine.number(&store, "lobby");
    let [old, new] = [20, 30].map(|events| snapshot(&mut random, events));
    let mut batch = crate::log(number, 20..40);
    batch.write(number, save("lobby", &old));
    write_at_once(&machine, &store, vec![batch], 1);
    let mut disk = Disk::default();
    for step in machine.recorder.take_steps() {
        disk.apply(&step);
    }
    let room = RoomFile {
        id: "lobby".into(),
        snapshot: (*new).clone(),
        tail: Vec::new(),
    };
    store.replace(&room).expect("it is written");
    machine.note(Note::Acknowledged(1));
    drop(store);
    let mut is_replaced = false;
    for step in machine.recorder.take_steps() {
        disk.apply(&step);
        is_replaced |= matches!(step, Step::Note(_));
        for _ in 0..4 {
            let left = Disk::of(disk.lose_power(&mut random));
            let machine = Machine::boot(&left, &mut random);
            let found = stored(&machine.open().expect("it opens"), "lobby");
            let events = LogEntries::new(&found.tail).count();
            match found.snapshot == *new {
                true => assert_eq!(events, 0),
                false => {
                    assert!(!is_replaced, "it was acknowledged");
                    assert_eq!((&found.snapshot, events), (&*old, 20));
                }
            }
        }
    }
    assert!(is_replaced);
}

/// The test of each step can fail.
#[test]
fn a_disk_that_synchronises_nothing_is_found_out() {
    let mut random = Random::of_seed(1);
    let machine = Machine::boot(&Disk::default(), &mut random);
    let mut life = live(&machine, State::new(), &mut random);
    life.steps.retain(|step| !matches!(step, Step::Sync { .. }));
    let found = sweep(&Disk::default(), &life, Default::default(), 1, 1);
    assert!(found.is_err());
}
