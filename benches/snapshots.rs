//! What snapshots cost: `cargo bench --bench snapshots --features snapshot` prints, for each bundled room
//! with ten clients after five hundred messages, how long its snapshot is, and how long it takes to save,
//! to load (with the guest made), to keep a state for rewinding, and to go back to it.
//!
//! Times are medians, and depend on the machine; each is also a multiple of an event of that room.
//!
//! With `-- --hibernate ROOMS CLIENTS [NAME]` it opens so many rooms of a host, each with so many clients, lets all
//! of them hibernate, and prints what they take of the process's resident memory (Linux), and how long it
//! takes to wake one by a message, until its reply.

use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, HostLimits, Instant, Limits, LoadOptions, ManualClock, Module,
    OutputMessage, RewindBuffer, Room, RoomKey, RoomOptions, SendError, SnapshotOptions, Transport,
};
use std::{
    convert::Infallible,
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    time::Instant as Time,
};

const CLIENTS: u32 = 10;
const MESSAGES: u32 = 500;
const ROUNDS: usize = 201;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments
        .iter()
        .position(|argument| argument == "--hibernate")
    {
        let count = |i: usize| arguments.get(at + i).and_then(|count| count.parse().ok());
        // Cargo adds an argument of its own.
        let name = arguments.get(at + 3).filter(|name| !name.starts_with('-'));
        let name = name.map_or("echo-rust-0.4", String::as_str);
        return hibernate(name, count(1).unwrap_or(100_000), count(2).unwrap_or(0));
    }
    let mut rooms: Vec<_> = fs::read_dir(folder())
        .expect("the folder of rooms exists")
        .map(|file| file.expect("a file").path())
        .collect();
    rooms.sort();
    println!("| room | memory | snapshot | event | save | load | keep | rewind | kept state |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for path in rooms {
        let name = path.file_stem().expect("a name").display().to_string();
        let wasm = fs::read(&path).expect("it can be read");
        println!("{}", row(&name, &wasm));
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rooms/wasm")
}

fn row(name: &str, wasm: &[u8]) -> String {
    let options = LoadOptions::new().snapshots(true);
    let module = Module::load_with(wasm, &Limits::new(), options).expect("it loads");
    let mut room = Room::new(&module, "bench", RoomOptions::new()).expect("it opens");
    let mut now = Instant::ZERO;
    drain(&mut room, now);
    for client in 1..=CLIENTS {
        handle(&mut room, now, Event::Connect(ClientId(client)));
    }
    let mut event = |room: &mut Room, number: u32| {
        now = Instant::from_millis(now.as_millis() + 10);
        let client = ClientId(1 + number % CLIENTS);
        room.handle_timeout(now);
        drain(room, now);
        handle(room, now, Event::message(client, message(name)));
        now
    };
    for number in 0..MESSAGES {
        event(&mut room, number);
    }
    let of_event = median(|round| {
        event(&mut room, round as u32);
    });
    let snapshot = room.save().expect("it can be saved");
    let of_save = median(|_| {
        black_box(room.save().expect("it can be saved"));
    });
    let of_load = median(|_| {
        let mut loaded = Room::load(&module, &snapshot, SnapshotOptions::new()).expect("it loads");
        // A fork is woken by its next event; making the guest is what this one waits for.
        handle(
            &mut loaded,
            Instant::ZERO,
            Event::message(ClientId(1), message(name)),
        );
        black_box(loaded);
    }) - of_event;
    let mut kept = RewindBuffer::new(8);
    let of_keep = median(|_| kept.push(&room).expect("it can be kept"));
    let at = *kept
        .times()
        .collect::<Vec<_>>()
        .last()
        .expect("one is kept");
    let of_rewind = median(|round| {
        event(&mut room, round as u32);
        kept.rewind(&mut room, at).expect("it is kept");
    }) - of_event;
    let mut asleep = room.fork().expect("it can be forked");
    asleep.hibernate().expect("it can hibernate");
    let state_bytes = asleep.stats().hibernated_bytes + size_of::<Room>();
    let micros = |time: f64| format!("{time:.1} µs ({:.1}×)", time / of_event);
    format!(
        "| {name} | {} KiB | {} | {of_event:.1} µs | {} | {} | {} | {} | {state_bytes} |",
        room.stats().memory_bytes / 1024,
        snapshot.len(),
        micros(of_save),
        micros(of_load),
        micros(of_keep),
        micros(of_rewind),
    )
}

fn message(room: &str) -> &'static str {
    match room.split('-').next() {
        Some("counter") => "+",
        Some("dice") => "2d6",
        Some("cursors") => "{\"x\":12,\"y\":7}",
        _ => "hello, everybody",
    }
}

fn handle(room: &mut Room, now: Instant, event: Event<'_>) {
    room.handle_event(now, event).expect("the room accepts it");
    drain(room, now);
}

fn drain(room: &mut Room, now: Instant) {
    loop {
        while let Some(output) = room.poll_output() {
            black_box(output);
        }
        if !room.has_work(now) {
            break;
        }
        room.resume(now);
    }
}

/// The median time of a call in microseconds.
fn median(mut call: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let start = Time::now();
            call(round);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// Counts what it is given.
struct Counting(u64);

impl Transport for Counting {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        self.0 += 1;
        Ok(())
    }
}

fn hibernate(name: &str, rooms: u32, clients: u32) {
    let wasm = fs::read(folder().join(format!("{name}.wasm"))).expect("a bundled room");
    let options = LoadOptions::new().snapshots(true);
    let module = Module::load_with(&wasm, &Limits::new(), options).expect("it loads");
    let limits = HostLimits::new().max_rooms(usize::MAX);
    let mut host = Host::with_limits(ManualClock::new(), Counting(0), limits);
    let before = resident_bytes();
    let start = Time::now();
    let keys: Vec<RoomKey> = (0..rooms)
        .map(|room| {
            let key = host
                .open(&format!("room {room}"), &module)
                .expect("it opens");
            for client in 1..=clients {
                host.enqueue(key, Event::Connect(ClientId(client)))
                    .expect("it is free");
            }
            host.poll(Budget::UNLIMITED);
            host.hibernate(key).expect("it is idle");
            key
        })
        .collect();
    let of_each = start.elapsed().as_secs_f64() * 1e6 / f64::from(rooms);
    let bytes = (resident_bytes() - before) / u64::from(rooms);
    println!(
        "{name}: {rooms} rooms of {clients} clients hibernate, {bytes} bytes each; to open one and let it \
             hibernate takes {of_each:.1} µs"
    );
    if clients == 0 {
        return;
    }
    let mut times: Vec<f64> = (0..10_000)
        .map(|i: u64| {
            // By turns, so that each is cold.
            let key = keys[(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % u64::from(rooms)) as usize];
            let replies = host.transport().0;
            let start = Time::now();
            host.enqueue(key, Event::message(ClientId(1), "hello"))
                .expect("it fits");
            host.poll(Budget::UNLIMITED);
            let time = start.elapsed().as_secs_f64() * 1e6;
            assert_eq!(host.transport().0, replies + 1, "it has replied");
            host.hibernate(key).expect("it is idle");
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{name}: waking one takes {:.1} µs (median), {:.1} µs (99 of 100)",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}

/// The resident memory of this process, by `/proc`.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("it is a number")
        * 1024
}
