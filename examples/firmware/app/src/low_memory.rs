//! Out of memory is an error, not a panic: tests with a nearly full heap of every size.

use crate::{
    heap::{Free, Heap, LARGE_BYTES},
    measure::TestBench,
    rooms,
};
use alloc::vec::Vec;
use core::fmt;
use stateroom_wasmi_host::{ClientId, Clock, Event, FaultCause, Limits, Room, RoomOptions, Trap};

const CLIENT: ClientId = ClientId(1);

/// Opens rooms with increasing amounts of free heap: each is refused before it is parsed, until it
/// fits and works.
#[inline(never)]
pub fn smallest_heap_of_a_room<C: Clock>(bench: &mut TestBench<'_, C>) -> fmt::Result {
    for bundled in [rooms::ECHO, rooms::CHAT, rooms::ECHO_WAT] {
        let mut smallest = None;
        for free in (0..bench.heap.free().heap).step_by(512) {
            let Some(_filler) = fill_heap(bench.heap, free) else {
                break;
            };
            let allocations = bench.heap.allocations();
            match bundled.load_within(&Limits::small(), bench.heap.free()) {
                Ok((module, _)) => {
                    let room = Room::new(&module, "tight", RoomOptions::default());
                    let mut room = room.map_err(|_| fmt::Error)?;
                    exchange_messages(&mut room, bench.clock)?;
                    smallest = smallest.or(Some(free));
                }
                Err(rooms::RoomError::OutOfMemory { .. }) => {
                    // Nothing may be allocated, and a larger heap may not be refused again.
                    if smallest.is_some() || bench.heap.allocations() != allocations {
                        return Err(fmt::Error);
                    }
                }
                Err(_) => return Err(fmt::Error),
            }
            // Larger heaps behave the same.
            if smallest.is_some_and(|smallest| free > smallest + (8 << 10)) {
                break;
            }
        }
        if let Some(smallest) = smallest {
            writeln!(
                bench.out,
                "figure {}.smallest-heap {smallest}",
                bundled.name
            )?;
        }
    }
    Ok(())
}

/// Unbounded recursion in a guest, in heaps no larger than its room's estimate.
#[inline(never)]
pub fn recursion_in_a_full_heap<C: Clock>(bench: &mut TestBench<'_, C>) -> fmt::Result {
    let mut limits = Limits::small();
    // Depths at which the guest's own stack of 1.5 KiB does not overflow first.
    for depth in [16, 32, 80] {
        limits.max_recursion_depth = depth;
        let needed = rooms::HOSTILE.estimate(&limits).with_one_room();
        for more in (0..2 << 10).step_by(64) {
            let Some(_filler) = fill_heap(bench.heap, needed + more) else {
                return Err(fmt::Error);
            };
            let reserved = Free {
                heap: needed,
                large: 0,
            };
            let (module, _) = rooms::HOSTILE
                .load_within(&limits, reserved)
                .map_err(|_| fmt::Error)?;
            let room = Room::new(&module, "deep", RoomOptions::default());
            let mut room = room.map_err(|_| fmt::Error)?;
            exchange_messages(&mut room, bench.clock)?;
            send(&mut room, bench.clock, "recurse")?;
            let fault = room.fault().map(|fault| &fault.cause);
            if !matches!(
                fault,
                Some(FaultCause::Trap(
                    Trap::StackOverflow | Trap::OutOfSystemMemory
                ))
            ) {
                return Err(fmt::Error);
            }
        }
    }
    Ok(())
}

/// Allocates all of the heap but about `bytes`; `None` if less is free.
fn fill_heap(heap: &Heap, bytes: usize) -> Option<Vec<Vec<u8>>> {
    let mut filler: Vec<Vec<u8>> = Vec::with_capacity(128);
    let mut size = heap.free().heap.checked_sub(bytes)?;
    // The heap may be fragmented, so a size that fails is halved; and no block is so large that it
    // would go to the second region.
    while size > 16 && filler.len() < filler.capacity() {
        let mut block = Vec::new();
        let excess = heap.free().heap.saturating_sub(bytes);
        size = size.min(excess).min(LARGE_BYTES - 1);
        match block.try_reserve_exact(size) {
            Ok(()) => filler.push(block),
            Err(_) => size /= 2,
        }
    }
    Some(filler)
}

fn exchange_messages(room: &mut Room, clock: &impl Clock) -> fmt::Result {
    room.handle_event(clock.now(), Event::Connect(CLIENT))
        .map_err(|_| fmt::Error)?;
    while room.poll_output().is_some() {}
    send(room, clock, "hello")?;
    if room.is_closed() {
        Err(fmt::Error)
    } else {
        Ok(())
    }
}

fn send(room: &mut Room, clock: &impl Clock, text: &str) -> fmt::Result {
    room.handle_event(clock.now(), Event::message(CLIENT, text))
        .map_err(|_| fmt::Error)?;
    while room.has_work(clock.now()) || room.peek_output().is_some() {
        while room.poll_output().is_some() {}
        room.resume(clock.now());
    }
    Ok(())
}
