//! Too little memory is an answer and not a panic: tried with all sizes of a nearly full heap.

use crate::{
    heap::{Free, Heap, LARGE_BYTES},
    measure::Lab,
    rooms,
};
use alloc::vec::Vec;
use core::fmt;
use stateroom_wasmi_host::{ClientId, Clock, Event, FaultCause, Limits, Room, RoomOptions, Trap};

const CLIENT: ClientId = ClientId(1);

/// A room is opened with ever more memory left: it is refused before it is parsed, until it fits
/// and works.
#[inline(never)]
pub fn too_small_for_a_room<C: Clock>(lab: &mut Lab<'_, C>) -> fmt::Result {
    for bundled in [rooms::ECHO, rooms::CHAT, rooms::ECHO_WAT] {
        let mut least = None;
        for left in (0..lab.heap.free().heap).step_by(512) {
            let Some(_ballast) = leave(lab.heap, left) else {
                break;
            };
            let allocations = lab.heap.allocations();
            match bundled.load_within(&Limits::small(), lab.heap.free()) {
                Ok((module, _)) => {
                    let room = Room::new(&module, "tight", lab.clock.now(), RoomOptions::default());
                    let mut room = room.map_err(|_| fmt::Error)?;
                    converse(&mut room, lab.clock)?;
                    least = least.or(Some(left));
                }
                Err(rooms::Refused::NoMemory { .. }) => {
                    // Before anything was allocated, and never again once there was enough.
                    if least.is_some() || lab.heap.allocations() != allocations {
                        return Err(fmt::Error);
                    }
                }
                Err(_) => return Err(fmt::Error),
            }
            // Beyond this there is nothing to learn.
            if least.is_some_and(|least| left > least + (8 << 10)) {
                break;
            }
        }
        if let Some(least) = least {
            writeln!(lab.out, "figure {}.smallest-heap {least}", bundled.name)?;
        }
    }
    Ok(())
}

/// A guest that calls itself without end, in heaps that are no larger than the room was promised.
#[inline(never)]
pub fn recursion_without_memory<C: Clock>(lab: &mut Lab<'_, C>) -> fmt::Result {
    let mut limits = Limits::small();
    // Where the guest's own stack of 1.5 KiB is not yet used up.
    for depth in [16, 32, 80] {
        limits.max_recursion_depth = depth;
        let needed = rooms::HOSTILE.estimate(&limits).with_one_room();
        for more in (0..2 << 10).step_by(64) {
            let Some(_ballast) = leave(lab.heap, needed + more) else {
                return Err(fmt::Error);
            };
            let promised = Free {
                heap: needed,
                large: 0,
            };
            let (module, _) = rooms::HOSTILE
                .load_within(&limits, promised)
                .map_err(|_| fmt::Error)?;
            let room = Room::new(&module, "deep", lab.clock.now(), RoomOptions::default());
            let mut room = room.map_err(|_| fmt::Error)?;
            converse(&mut room, lab.clock)?;
            send(&mut room, lab.clock, "recurse")?;
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

/// Takes all of the heap but about so many bytes; none if there is less than that.
fn leave(heap: &Heap, bytes: usize) -> Option<Vec<Vec<u8>>> {
    let mut ballast: Vec<Vec<u8>> = Vec::with_capacity(128);
    let mut piece = heap.free().heap.checked_sub(bytes)?;
    // The free memory may be in pieces, so it is taken in halves of what was too much; and none of
    // them is so large that it would have a region of its own.
    while piece > 16 && ballast.len() < ballast.capacity() {
        let mut block = Vec::new();
        let rest = heap.free().heap.saturating_sub(bytes);
        piece = piece.min(rest).min(LARGE_BYTES - 1);
        match block.try_reserve_exact(piece) {
            Ok(()) => ballast.push(block),
            Err(_) => piece /= 2,
        }
    }
    Some(ballast)
}

fn converse(room: &mut Room, clock: &impl Clock) -> fmt::Result {
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
