//! Time and budgets of a poll.

use crate::support::{Host, Module, ROOM, Status, clock, status};
use stateroom_wasmi::*;

const MS: u64 = 1_000_000;

/// A host with a room whose guest loops for long.
fn spinning(change: impl FnOnce(&mut stateroom_host_options)) -> (Host, stateroom_room) {
    let host = Host::with(change);
    let module = Module::with_limits(ROOM, |limits| {
        limits.max_fuel_per_event = 100_000;
        limits.fuel_per_slice = 1_000;
    });
    let room = host.open_with_client(&module);
    host.text(room, 1, "~").unwrap();
    (host, room)
}

#[test]
fn a_timer_says_when_to_poll() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.text(room, 1, "timer").unwrap();
    assert_eq!(host.poll(3 * MS), 13 * MS);
    assert_eq!(host.poll(13 * MS - 1), 13 * MS);
    assert_eq!(host.texts(), [""; 0]);
    let mut poll_at = 0;
    crate::support::call(|error| unsafe {
        stateroom_host_get_poll_time(host.handle, &raw mut poll_at, error)
    })
    .unwrap();
    assert_eq!(poll_at, 13 * MS);
    assert_eq!(host.poll(13 * MS), STATEROOM_NEVER);
    assert_eq!(host.texts(), ["tock"]);
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.poll(u64::MAX - 1);
    host.text(room, 1, "timer").unwrap();
    host.poll(5);
    host.text(room, 1, "timer").unwrap();
    host.poll(u64::MAX - 1);
    host.poll(u64::MAX - 1);
    assert_eq!(host.room_stats(room).unwrap().faults, 0);
}

#[test]
fn a_poll_ends_when_its_fuel_is_used_up() {
    let (host, room) = spinning(|_| {});
    let before = host.room_stats(room).unwrap().fuel_used;
    let mut polls = 0;
    while host.try_poll(7, 10_000, STATEROOM_NEVER).unwrap() <= 7 {
        polls += 1;
        let used = host.room_stats(room).unwrap().fuel_used - before;
        assert!(used <= polls * 11_000, "{used} units in {polls} polls");
    }
    assert!(polls >= 9, "{polls}");
}

#[test]
fn a_poll_ends_at_its_deadline() {
    let (host, room) = spinning(|options| options.clock = Some(clock));
    let before = host.room_stats(room).unwrap().fuel_used;
    host.behaviour.time.set(5 * MS);
    // The clock goes on by 1,000 with each look, of which there is one after each slice.
    let poll_at = host.try_poll(5 * MS, STATEROOM_UNLIMITED, 5 * MS + 3_000);
    assert!(poll_at.unwrap() <= 5 * MS, "there is work left");
    let used = host.room_stats(room).unwrap().fuel_used - before;
    assert!((2_000..=4_000).contains(&used), "{used}");
}

#[test]
fn a_deadline_in_the_past_allows_one_slice() {
    let (host, room) = spinning(|_| {});
    let before = host.room_stats(room).unwrap().fuel_used;
    host.try_poll(100, STATEROOM_UNLIMITED, 0).unwrap();
    let used = host.room_stats(room).unwrap().fuel_used - before;
    assert!((1..=1_100).contains(&used), "{used}");
}

#[test]
fn a_poll_without_a_clock_ends_at_its_deadline() {
    let host = Host::new();
    let module = Module::with_limits(ROOM, |limits| {
        limits.max_fuel_per_event = STATEROOM_UNLIMITED - 1;
        limits.fuel_per_slice = 1_000;
    });
    let room = host.open_with_client(&module);
    host.text(room, 1, "~").unwrap();
    // Without the operating system's clock, the guest would loop for years.
    assert!(host.try_poll(0, STATEROOM_UNLIMITED, 1_000).unwrap() == 0);
}

#[test]
fn the_time_of_events_is_the_poll_s() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.text(room, 1, "timer").unwrap();
    // With a deadline the library looks at the clock, but guests see what the program said.
    assert_eq!(
        host.try_poll(MS, STATEROOM_UNLIMITED, u64::MAX - 1),
        Ok(11 * MS)
    );
}

#[test]
fn where_to_write_when_to_poll_may_be_null() {
    let host = Host::new();
    let null = std::ptr::null_mut();
    crate::support::call(|error| unsafe {
        stateroom_host_poll(host.handle, 0, 0, STATEROOM_NEVER, null, error)
    })
    .unwrap();
    let result = crate::support::call(|error| unsafe {
        stateroom_host_get_poll_time(host.handle, null, error)
    });
    assert_eq!(status(result), Status::InvalidArgument);
}

#[test]
fn rooms_that_are_closed_are_reported_within_the_budget() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let rooms: Vec<_> = (0..20)
        .map(|i| host.open(&i.to_string(), &module).unwrap())
        .collect();
    host.poll(0);
    for room in rooms {
        host.close(room).unwrap();
    }
    let mut reported = Vec::new();
    loop {
        let poll_at = host.try_poll(MS, 1, STATEROOM_NEVER).unwrap();
        reported.push(host.calls().len());
        if poll_at == STATEROOM_NEVER {
            break;
        }
        assert_eq!(poll_at, MS, "there are more");
    }
    assert_eq!(reported, [1; 20]);
}
