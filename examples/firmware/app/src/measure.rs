//! What rooms cost on this machine. Each figure is a line: `figure`, its name, a number.

use crate::{
    heap::Heap,
    rooms::{self, Bundled},
    serial::{Port, Received},
    serve::{self, Server},
    stack,
};
use alloc::boxed::Box;
use core::{fmt, fmt::Write};
use stateroom_wasmi_host::{
    ClientId, Clock, Event, Instant, Limits, MessagePayload, Module, Room, RoomOptions,
};

/// What a self-test has: where it prints, the time, and the heap that it looks at.
pub struct Lab<'a, C> {
    pub out: &'a mut dyn Write,
    pub clock: &'a C,
    pub heap: &'a Heap,
}

const CLIENT: ClientId = ClientId(1);
/// How many events are averaged.
const EVENTS: u32 = 1000;

/// Measures the rooms that a board of any size has memory for.
pub fn rooms<C: Clock>(lab: &mut Lab<'_, C>) -> fmt::Result {
    for bundled in [
        rooms::ECHO,
        rooms::ECHO_C,
        rooms::ECHO_WAT,
        rooms::CHAT,
        rooms::CLOCK,
    ] {
        room(lab, bundled)?;
    }
    long_loop(lab)
}

#[inline(never)]
fn room<C: Clock>(lab: &mut Lab<'_, C>, bundled: Bundled) -> fmt::Result {
    let (name, limits) = (bundled.name, Limits::small());
    let start = lab.heap.live();

    lab.heap.reset_peak();
    let top = stack::paint();
    let module = bundled.load(&limits).map_err(|_| fmt::Error)?;
    let load_stack = stack::used_below(top);
    let loaded = lab.heap.live();
    figure(lab, name, "load-heap-peak", lab.heap.peak() - start)?;
    figure(lab, name, "load-heap-kept", loaded - start)?;
    figure(lab, name, "load-stack", load_stack)?;

    lab.heap.reset_peak();
    let top = stack::paint();
    let mut room = open(&module, lab.clock.now())?;
    let open_stack = stack::used_below(top);
    figure(lab, name, "open-heap-peak", lab.heap.peak() - start)?;
    figure(lab, name, "open-stack", open_stack)?;

    let now = lab.clock.now();
    warm(&mut room, now)?;
    lab.heap.reset_peak();
    let live = lab.heap.live();
    figure(lab, name, "running-heap", live - start)?;

    let allocations = lab.heap.allocations();
    let top = stack::paint();
    let began = lab.clock.now();
    for _ in 0..EVENTS {
        event(&mut room, began)?;
    }
    let nanos = lab.clock.now().saturating_duration_since(began).as_nanos() as usize;
    let event_stack = stack::used_below(top);
    figure(lab, name, "event-stack", event_stack)?;
    figure(lab, name, "event-heap-peak", lab.heap.peak() - live)?;
    figure(
        lab,
        name,
        "event-allocations-of-1000",
        lab.heap.allocations() - allocations,
    )?;
    figure(lab, name, "event-nanos", nanos / EVENTS as usize)?;

    // A board has not always the memory for two.
    if lab.heap.free().less(bundled.estimate(&limits)).is_err() {
        return Ok(());
    }
    let mut further = open(&module, now)?;
    warm(&mut further, now)?;
    figure(
        lab,
        name,
        "further-room-heap-beyond-memory",
        lab.heap.live() - live - further.stats().memory_bytes,
    )
}

/// Lets the room see a client, and what makes it take all that it will need.
fn warm(room: &mut Room, now: Instant) -> fmt::Result {
    room.handle_event(now, Event::Connect(CLIENT))
        .map_err(|_| fmt::Error)?;
    while room.poll_output().is_some() {}
    for _ in 0..4 {
        event(room, now)?;
    }
    Ok(())
}

/// A guest that runs until its fuel is used up: the host's stack must not grow with it.
#[inline(never)]
fn long_loop<C: Clock>(lab: &mut Lab<'_, C>) -> fmt::Result {
    let module = rooms::HOSTILE
        .load(&Limits::small())
        .map_err(|_| fmt::Error)?;
    let now = lab.clock.now();
    let mut room = open(&module, now)?;
    room.handle_event(now, Event::Connect(CLIENT))
        .map_err(|_| fmt::Error)?;
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
    figure(lab, rooms::HOSTILE.name, "million-steps-stack", stack)
}

/// What the application itself takes when its rooms are open and nobody is there.
pub fn application<C: Clock>(lab: &mut Lab<'_, C>) -> fmt::Result {
    let start = lab.heap.live();
    lab.heap.reset_peak();
    let top = stack::paint();
    let live = serve_for_a_moment(lab)?;
    let stack = stack::used_below(top);
    figure(lab, "application", "heap-peak", lab.heap.peak() - start)?;
    figure(lab, "application", "running-heap", live - start)?;
    figure(lab, "application", "stack", stack)
}

/// Serves for a moment, and answers what is on the heap then. Never inlined, nor are those below, so
/// that each has its locals for itself.
#[inline(never)]
fn serve_for_a_moment<C: Clock>(lab: &Lab<'_, C>) -> Result<usize, fmt::Error> {
    let modules = serve::load(lab.heap.free()).map_err(|_| fmt::Error)?;
    let mut server = Server::new(lab.clock, Silent, modules);
    server.open_rooms().map_err(|_| fmt::Error)?;
    for _ in 0..8 {
        server.turn().map_err(|_| fmt::Error)?;
    }
    Ok(lab.heap.live())
}

/// A UART without anybody at its other end.
struct Silent;

impl Port for Silent {
    fn received(&self) -> &'static Received {
        static NOTHING: Received = Received::empty();
        &NOTHING
    }

    fn can_send(&self) -> bool {
        true
    }

    fn send(&mut self, _: u8) {}
}

/// A room on the heap, where a host has it.
fn open(module: &Module, now: Instant) -> Result<Box<Room>, fmt::Error> {
    Room::new(module, "lab", now, RoomOptions::default())
        .map(Box::new)
        .map_err(|_| fmt::Error)
}

/// A text of 16 bytes, and what the room says to it.
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

fn figure<C>(lab: &mut Lab<'_, C>, room: &str, name: &str, number: usize) -> fmt::Result {
    writeln!(lab.out, "figure {room}.{name} {number}")
}
