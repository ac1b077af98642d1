//! What snapshots cost: `cargo bench --bench snapshots --features snapshot` prints, for each bundled room
//! with ten clients after five hundred messages, how long its snapshot is, and how long it takes to save,
//! to load (with the guest made), to keep a state for rewinding, and to go back to it.
//!
//! Times are medians, and depend on the machine; each is also a multiple of an event of that room.

use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, LoadOptions, Module, RewindBuffer, Room, RoomOptions,
    SnapshotOptions,
};
use std::{fs, hint::black_box, path::Path, time::Instant as Time};

const CLIENTS: u32 = 10;
const MESSAGES: u32 = 500;
const ROUNDS: usize = 201;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rooms/wasm");
    let mut rooms: Vec<_> = fs::read_dir(folder)
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
