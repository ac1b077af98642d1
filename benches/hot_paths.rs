//! Benchmarks of the crate's hot paths: `cargo bench --bench hot_paths`.
//!
//! `benches/vs-jit` compares the crate with other hosts.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Instant, Limits, ManualClock, Module, OutputMessage, Room,
    RoomKey, RoomOptions, SendError, Transport,
};
use std::{convert::Infallible, hint::black_box, time::Duration};

const ECHO_C: &[u8] = include_bytes!("../examples/rooms/wasm/echo-c.wasm");
const ECHO_RUST: &[u8] = include_bytes!("../examples/rooms/wasm/echo-rust-0.4.wasm");
const CLOCK: &[u8] = include_bytes!("../examples/rooms/wasm/clock-rust-0.2.wasm");
const CLIENT: ClientId = ClientId(1);

struct NullTransport;

impl Transport for NullTransport {
    type Error = Infallible;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        black_box(message);
        Ok(())
    }
}

fn module(wasm: &[u8]) -> Module {
    module_with(wasm, &Limits::default())
}

fn module_with(wasm: &[u8], limits: &Limits) -> Module {
    Module::load(wasm, limits).expect("the module loads")
}

fn room(module: &Module) -> Room {
    let mut room = Room::new(module, "bench", RoomOptions::default()).expect("the room opens");
    room.handle_event(Instant::ZERO, Event::Connect(CLIENT))
        .expect("the client may connect");
    while room.poll_output().is_some() {}
    room
}

/// A host with `rooms` rooms, each with a client.
fn host(
    module: &Module,
    clock: &'static ManualClock,
    rooms: usize,
) -> (Host<&'static ManualClock, NullTransport>, Vec<RoomKey>) {
    let mut host = Host::new(clock, NullTransport);
    let keys: Vec<_> = (0..rooms)
        .map(|i| host.open(&i.to_string(), module).expect("the room opens"))
        .collect();
    for key in &keys {
        host.enqueue(*key, Event::Connect(CLIENT))
            .expect("the client may connect");
    }
    host.poll(Budget::UNLIMITED);
    (host, keys)
}

fn clock() -> &'static ManualClock {
    // Leaked: a run needs only a handful of clocks.
    Box::leak(Box::default())
}

fn start(c: &mut Criterion) {
    let mut group = c.benchmark_group("start");
    for (name, wasm) in [("C", ECHO_C), ("SDK 0.4", ECHO_RUST)] {
        group.bench_function(format!("load, {name}"), |b| b.iter(|| module(wasm)));
        let module = module(wasm);
        group.bench_function(format!("open, {name}"), |b| {
            b.iter(|| Room::new(&module, "bench", RoomOptions::default()).expect("the room opens"));
        });
    }
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    for len in [16_usize, 4 << 10, 60 << 10] {
        let text = "x".repeat(len);
        group.throughput(Throughput::Bytes(len as u64));
        for (name, wasm) in [("C", ECHO_C), ("SDK 0.4", ECHO_RUST)] {
            let module = module(wasm);
            let mut room = room(&module);
            group.bench_function(format!("room, {name}, {len} B"), |b| {
                b.iter(|| {
                    let event = Event::message(CLIENT, text.as_str());
                    room.handle_event(Instant::ZERO, event)
                        .expect("the room is idle");
                    while let Some(output) = room.poll_output() {
                        black_box(output);
                    }
                });
            });
            let (mut host, keys) = host(&module, clock(), 1);
            group.bench_function(format!("host, {name}, {len} B"), |b| {
                b.iter(|| {
                    host.enqueue(keys[0], Event::message(CLIENT, text.as_str()))
                        .expect("the room is idle");
                    host.poll(Budget::UNLIMITED)
                });
            });
        }
    }
}

/// The cost of metering, and of pausing and resuming.
fn fuel(c: &mut Criterion) {
    let mut group = c.benchmark_group("fuel");
    let text = "x".repeat(4 << 10);
    for (name, fuel_per_event, fuel_per_slice) in [
        ("off", None, u64::MAX),
        ("on, in one slice", Some(u64::MAX), u64::MAX),
        ("on, slices of 1,000", Some(u64::MAX), 1_000),
    ] {
        let mut limits = Limits::default();
        limits.max_fuel_per_event = fuel_per_event;
        limits.fuel_per_slice = fuel_per_slice;
        let (mut host, keys) = host(&module_with(ECHO_RUST, &limits), clock(), 1);
        group.bench_function(name, |b| {
            b.iter(|| {
                host.enqueue(keys[0], Event::message(CLIENT, text.as_str()))
                    .expect("the room is idle");
                host.poll(Budget::UNLIMITED)
            });
        });
    }
}

/// The cost of keeping a history, and of a rollback.
#[cfg(feature = "snapshot")]
fn rollback(c: &mut Criterion) {
    use stateroom_wasmi_host::{FaultPolicy, LoadOptions};
    let mut group = c.benchmark_group("rollback");
    let mut limits = Limits::default();
    limits.max_fuel_per_event = Some(20_000);
    let mut load = LoadOptions::default();
    load.snapshots = true;
    let module = Module::load_with(ECHO_RUST, &limits, load).expect("the module loads");
    for on_fault in [FaultPolicy::Close, FaultPolicy::Rollback] {
        let options = RoomOptions::new().on_fault(on_fault);
        let mut room = Room::new(&module, "bench", options).expect("the room opens");
        room.handle_event(Instant::ZERO, Event::Connect(CLIENT))
            .expect("the client may connect");
        let mut send = move |text: &str| {
            room.handle_event(Instant::ZERO, Event::message(CLIENT, text))
                .expect("the room is open");
            while room.has_work(Instant::ZERO) || room.peek_output().is_some() {
                while let Some(output) = room.poll_output() {
                    black_box(output);
                }
                room.resume(Instant::ZERO);
            }
        };
        group.bench_function(format!("an event, {on_fault}"), |b| {
            b.iter(|| send("0123456789abcdef"))
        });
        if on_fault == FaultPolicy::Rollback {
            // Exceeds the fuel limit of an event.
            let long = "x".repeat(100_000);
            group.bench_function("an event that is rolled back", |b| b.iter(|| send(&long)));
        }
    }
}

#[cfg(not(feature = "snapshot"))]
const fn rollback(_: &mut Criterion) {}

fn many_rooms(c: &mut Criterion) {
    let mut group = c.benchmark_group("1,000 rooms");
    group.throughput(Throughput::Elements(1000));
    let (mut echoes, keys) = host(&module(ECHO_C), clock(), 1000);
    group.bench_function("an event each", |b| {
        b.iter(|| {
            for key in &keys {
                echoes
                    .enqueue(*key, Event::message(CLIENT, "hello"))
                    .expect("the room is idle");
            }
            echoes.poll(Budget::UNLIMITED)
        });
    });
    let time = clock();
    let (mut clocks, _) = host(&module(CLOCK), time, 1000);
    group.bench_function("a timer each", |b| {
        b.iter(|| {
            time.advance(Duration::from_secs(1));
            clocks.poll(Budget::UNLIMITED)
        });
    });
    group.bench_function("opened and closed", |b| {
        let module = module(ECHO_C);
        b.iter_batched(
            || host(&module, clock(), 1000),
            |(host, _)| drop(host),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, start, events, fuel, rollback, many_rooms);
criterion_main!(benches);
