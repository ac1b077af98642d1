//! Measures rooms on this machine. Each figure is printed as a line: `figure`, its name, a number.

use crate::{
    heap::Heap,
    rooms::{self, Bundled},
    serial::{Port, ReceiveBuffer},
    serve::{self, Server},
    stack,
};
use alloc::boxed::Box;
use core::{fmt, fmt::Write};
use stateroom_wasmi_host::{
    ClientId, Clock, Event, Instant, Limits, MessagePayload, Module, Room, RoomOptions,
};

/// The environment of a self-test: its output, a clock, and the heap to measure.
pub struct TestBench<'a, C> {
    pub out: &'a mut dyn Write,
    pub clock: &'a C,
    pub heap: &'a Heap,
}

const CLIENT: ClientId = ClientId(1);
/// Number of events to average over.
const EVENTS: u32 = 1000;

/// Measures the rooms that fit into every board's memory.
pub fn rooms<C: Clock>(bench: &mut TestBench<'_, C>) -> fmt::Result {
    for bundled in [
        rooms::ECHO,
        rooms::ECHO_C,
        rooms::ECHO_WAT,
        rooms::CHAT,
        rooms::CLOCK,
    ] {
        room(bench, bundled)?;
    }
    #[cfg(feature = "snapshot")]
    for bundled in [rooms::ECHO, rooms::CHAT] {
        snapshots(bench, bundled)?;
    }
    long_loop(bench)
}

#[inline(never)]
fn room<C: Clock>(bench: &mut TestBench<'_, C>, bundled: Bundled) -> fmt::Result {
    let (name, limits) = (bundled.name, Limits::small());
    let start = bench.heap.live();

    bench.heap.reset_peak();
    let top = stack::paint();
    let module = bundled.load(&limits).map_err(|_| fmt::Error)?;
    let load_stack = stack::used_below(top);
    let loaded = bench.heap.live();
    figure(bench, name, "load-heap-peak", bench.heap.peak() - start)?;
    figure(bench, name, "load-heap-kept", loaded - start)?;
    figure(bench, name, "load-stack", load_stack)?;

    bench.heap.reset_peak();
    let top = stack::paint();
    let mut room = open(&module)?;
    let open_stack = stack::used_below(top);
    figure(bench, name, "open-heap-peak", bench.heap.peak() - start)?;
    figure(bench, name, "open-stack", open_stack)?;

    let now = bench.clock.now();
    warm_up(&mut room, now)?;
    bench.heap.reset_peak();
    let live = bench.heap.live();
    figure(bench, name, "running-heap", live - start)?;

    let allocations = bench.heap.allocations();
    let top = stack::paint();
    let began = bench.clock.now();
    for _ in 0..EVENTS {
        event(&mut room, began)?;
    }
    let nanos = nanos_since(began, bench.clock);
    let event_stack = stack::used_below(top);
    figure(bench, name, "event-stack", event_stack)?;
    figure(bench, name, "event-heap-peak", bench.heap.peak() - live)?;
    figure(
        bench,
        name,
        "event-allocations-of-1000",
        bench.heap.allocations() - allocations,
    )?;
    figure(bench, name, "event-nanos", (nanos / EVENTS) as usize)?;

    // Some boards have no memory for a second room.
    if bench
        .heap
        .free()
        .reserve(bundled.estimate(&limits))
        .is_err()
    {
        return Ok(());
    }
    let mut second = open(&module)?;
    warm_up(&mut second, now)?;
    figure(
        bench,
        name,
        "further-room-heap-beyond-memory",
        bench.heap.live() - live - second.stats().memory_bytes,
    )
}

/// Measures saving a room, and loading it again until it has handled its next event.
#[cfg(feature = "snapshot")]
#[inline(never)]
fn snapshots<C: Clock>(bench: &mut TestBench<'_, C>, bundled: Bundled) -> fmt::Result {
    /// How often each is done, to average over.
    const TIMES: u32 = 20;
    let (name, limits) = (bundled.name, Limits::small());
    let start = bench.heap.live();
    bench.heap.reset_peak();
    let top = stack::paint();
    let module = bundled
        .load_for_snapshots(&limits)
        .map_err(|_| fmt::Error)?;
    let load_stack = stack::used_below(top);
    let (peak, kept) = (bench.heap.peak() - start, bench.heap.live() - start);
    figure(bench, name, "with-snapshots.load-heap-peak", peak)?;
    figure(bench, name, "with-snapshots.load-heap-kept", kept)?;
    figure(bench, name, "with-snapshots.load-stack", load_stack)?;

    let mut room = open(&module)?;
    let now = bench.clock.now();
    warm_up(&mut room, now)?;
    let live = bench.heap.live();
    bench.heap.reset_peak();
    let top = stack::paint();
    let mut snapshot = room.save().map_err(|_| fmt::Error)?;
    let save_stack = stack::used_below(top);
    let began = bench.clock.now();
    for _ in 0..TIMES {
        snapshot = room.save().map_err(|_| fmt::Error)?;
    }
    let nanos = nanos_since(began, bench.clock) / TIMES;
    figure(bench, name, "snapshot-bytes", snapshot.len())?;
    figure(bench, name, "save-stack", save_stack)?;
    figure(bench, name, "save-heap-peak", bench.heap.peak() - live)?;
    figure(bench, name, "save-nanos", nanos as usize)?;

    drop(room);
    let top = stack::paint();
    let began = bench.clock.now();
    for _ in 0..TIMES {
        let loaded = Room::load(
            &module,
            &snapshot,
            stateroom_wasmi_host::SnapshotOptions::new(),
        );
        event(&mut loaded.map_err(|_| fmt::Error)?, now)?;
    }
    let nanos = nanos_since(began, bench.clock) / TIMES;
    let restore_stack = stack::used_below(top);
    figure(bench, name, "restore-stack", restore_stack)?;
    figure(bench, name, "restore-nanos", nanos as usize)
}

fn nanos_since(began: Instant, clock: &impl Clock) -> u32 {
    let time = clock.now().saturating_duration_since(began);
    time.as_nanos().try_into().unwrap_or(u32::MAX)
}

/// Connects a client and sends events until the room has allocated all that it needs.
fn warm_up(room: &mut Room, now: Instant) -> fmt::Result {
    room.handle_event(now, Event::Connect(CLIENT))
        .map_err(|_| fmt::Error)?;
    while room.poll_output().is_some() {}
    for _ in 0..4 {
        event(room, now)?;
    }
    Ok(())
}

/// Runs a guest until it is out of fuel: the host's stack must not grow with it.
#[inline(never)]
fn long_loop<C: Clock>(bench: &mut TestBench<'_, C>) -> fmt::Result {
    let module = rooms::HOSTILE
        .load(&Limits::small())
        .map_err(|_| fmt::Error)?;
    let now = bench.clock.now();
    let mut room = open(&module)?;
    room.handle_event(now, Event::Connect(CLIENT))
        .map_err(|_| fmt::Error)?;
    while room.poll_output().is_some() {}
    let top = stack::paint();
    room.handle_event(now, Event::message(CLIENT, "loop"))
        .map_err(|_| fmt::Error)?;
    while room.has_work(now) {
        room.resume(now);
    }
    let stack = stack::used_below(top);
    if room.fault().is_none() || room.fuel_used() < 1_000_000 {
        return Err(fmt::Error);
    }
    figure(bench, rooms::HOSTILE.name, "million-steps-stack", stack)
}

/// Measures the application with its rooms open and no clients.
pub fn application<C: Clock>(bench: &mut TestBench<'_, C>) -> fmt::Result {
    let start = bench.heap.live();
    bench.heap.reset_peak();
    let top = stack::paint();
    let live = heap_while_serving(bench)?;
    let stack = stack::used_below(top);
    figure(bench, "application", "heap-peak", bench.heap.peak() - start)?;
    figure(bench, "application", "running-heap", live - start)?;
    figure(bench, "application", "stack", stack)
}

/// Serves for a moment, and returns the heap in use then. Not inlined, so that its locals are not
/// in the caller's frame.
#[inline(never)]
fn heap_while_serving<C: Clock>(bench: &TestBench<'_, C>) -> Result<usize, fmt::Error> {
    let modules = serve::load(bench.heap.free()).map_err(|_| fmt::Error)?;
    let mut server = Server::new(bench.clock, Disconnected, modules);
    server.open_rooms().map_err(|_| fmt::Error)?;
    for _ in 0..8 {
        server.poll().map_err(|_| fmt::Error)?;
    }
    Ok(bench.heap.live())
}

/// A UART with nothing connected.
struct Disconnected;

impl Port for Disconnected {
    fn received(&self) -> &'static ReceiveBuffer {
        static EMPTY: ReceiveBuffer = ReceiveBuffer::empty();
        &EMPTY
    }

    fn can_send(&self) -> bool {
        true
    }

    fn send(&mut self, _: u8) {}
}

/// A room on the heap, as in a `Host`.
fn open(module: &Module) -> Result<Box<Room>, fmt::Error> {
    Room::new(module, "lab", RoomOptions::default())
        .map(Box::new)
        .map_err(|_| fmt::Error)
}

/// Sends a text of 16 bytes and takes the room's outputs.
fn event(room: &mut Room, now: Instant) -> fmt::Result {
    room.handle_event(
        now,
        Event::message(CLIENT, MessagePayload::Text("sixteen letters!")),
    )
    .map_err(|_| fmt::Error)?;
    while room.poll_output().is_some() {}
    if room.is_closed() {
        Err(fmt::Error)
    } else {
        Ok(())
    }
}

fn figure<C>(bench: &mut TestBench<'_, C>, room: &str, name: &str, number: usize) -> fmt::Result {
    writeln!(bench.out, "figure {room}.{name} {number}")
}
