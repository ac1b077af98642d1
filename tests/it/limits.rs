//! Each limit: exactly the limit passes, and one more is rejected as documented. The limit of a
//! module's length is in `check.rs`.

use crate::support::{
    ENV, SAY, Said, assemble, connect, echo, guest_0_2, guest_0_4, limits, module, module_with,
    numbers, outputs, room, room_of_one, send, speaker,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Fault, FaultCause, Host, HostLimits, Instant, Limits,
    LoadError, ManualClock, MessageRecipient, Module, OpenError, RecordingTransport, Room,
    RoomOptions, Trap,
};

const NOW: Instant = Instant::ZERO;
const PAGE: usize = 65_536;

fn open(text: &str, limits: &Limits) -> Result<Room, OpenError> {
    Room::new(&module_with(text, limits), "test", RoomOptions::default())
}

/// What a module has too many of, how many it has, and the limit.
fn too_many(text: &str, limits: &Limits) -> (&'static str, u64, u64) {
    match Module::load(&assemble(text), limits) {
        Err(LoadError::TooMany { what, count, limit }) => (what, count, limit),
        other => panic!("{other:?}"),
    }
}

fn faulted(during: &'static str, cause: FaultCause) -> Option<Fault> {
    Some(Fault { during, cause })
}

/// A room of a guest with this body of `message`.
fn on_message(body: &str, limits: &Limits) -> Room {
    room_of_one(&speaker(&[("message", body)], ""), limits)
}

#[test]
fn memory_can_grow_to_the_limit_and_no_further() {
    // It starts with one page.
    let grow = "(call $say (memory.grow (i32.const 2))) (call $say (memory.grow (i32.const 1)))
        (call $say (memory.grow (i32.const 0x10000))) (call $say (memory.size))";
    let mut room = on_message(grow, &limits(|limits| limits.max_memory_bytes = 3 * PAGE));
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [1, -1, -1, 3]);
    assert_eq!(room.fault(), None);
    assert_eq!(room.stats().memory_bytes, 3 * PAGE);

    let mut room = on_message(
        grow,
        &limits(|limits| limits.max_memory_bytes = 3 * PAGE - 1),
    );
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [-1, 1, -1, 2]);
}

#[test]
fn initial_memory_over_the_limit_is_refused() {
    let text = guest_0_2("", &[], "");
    assert!(open(&text, &limits(|limits| limits.max_memory_bytes = PAGE)).is_ok());
    let under = limits(|limits| limits.max_memory_bytes = PAGE - 1);
    let what = "bytes of initial memory";
    assert_eq!(too_many(&text, &under), (what, 65_536, 65_535));
    let text = text.replace("\"memory\") 1", "\"memory\") 65536");
    assert_eq!(
        too_many(&text, &Limits::default()),
        (what, 1 << 32, 64 << 20)
    );
}

#[test]
fn memory_growth_is_also_bounded_by_the_declared_maximum() {
    let grow = "(call $say (memory.grow (i32.const 1))) (call $say (memory.grow (i32.const 1)))";
    let text = speaker(&[("message", grow)], "").replace("\"memory\") 1", "\"memory\") 1 2");
    let mut room = room_of_one(&text, &Limits::default());
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [1, -1]);
}

#[test]
fn an_abort_after_a_refused_growth_has_its_own_trap() {
    let abort = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))";
    let mut room = on_message(abort, &limits(|limits| limits.max_memory_bytes = PAGE));
    send(&mut room, "go");
    assert_eq!(
        room.fault(),
        faulted("message", FaultCause::Trap(Trap::UnreachableOutOfMemory)).as_ref()
    );
    assert_eq!(
        room.fault().unwrap().to_string(),
        "the guest failed in `message`: it aborted (`unreachable` was executed) after it was refused more \
         memory"
    );
}

#[test]
fn the_element_limit_covers_all_tables_together() {
    let text = guest_0_2("", &[], "(table 60 funcref) (table 40 externref)");
    assert!(open(&text, &limits(|limits| limits.max_table_elements = 100)).is_ok());
    let under = limits(|limits| limits.max_table_elements = 99);
    let what = "initial elements in its tables";
    assert_eq!(too_many(&text, &under), (what, 100, 99));
}

#[test]
fn a_module_may_have_64_tables_and_64_memories() {
    let with = |definition: &str, count: usize| guest_0_2("", &[], &definition.repeat(count));
    let limits = Limits::default();
    for text in [with("(table 1 funcref)", 64), with("(memory 0)", 63)] {
        assert_eq!(open(&text, &limits).unwrap().fault(), None);
    }
    let tables = with("(table 1 funcref)", 65);
    assert_eq!(too_many(&tables, &limits), ("tables", 65, 64));
    // The guest exports one more.
    let memories = with("(memory 0)", 64);
    assert_eq!(too_many(&memories, &limits), ("memories", 65, 64));
}

#[test]
fn the_memory_limit_covers_all_memories_together() {
    let four_pages = limits(|limits| limits.max_memory_bytes = 4 * PAGE);
    let five = guest_0_2("", &[], "(memory 4)");
    let (_, bytes, _) = too_many(&five, &four_pages);
    assert_eq!(bytes, 5 * PAGE as u64);
    let grow = |memory: &str, pages: u32| {
        format!("(call $say (memory.grow {memory} (i32.const {pages})))")
    };
    let body = grow("$second", 3)
        + &grow("$second", 1)
        + &grow("$small", 0)
        // Refused by its declared maximum, which changes nothing.
        + &grow("$small", 1)
        + &grow("0", 2)
        + &grow("0", 1)
        + &grow("$second", 1);
    let text = speaker(
        &[("message", &body)],
        "(memory $second 1) (memory $small 0 0)",
    );
    let mut room = room_of_one(&text, &four_pages);
    assert_eq!(room.stats().memory_bytes, 2 * PAGE);
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [-1, 1, 0, -1, -1, 1, -1]);
    assert_eq!(room.stats().memory_bytes, 4 * PAGE);
}

#[test]
fn a_growth_that_waits_for_fuel_counts_once() {
    // Growing by 60 pages costs more than a slice.
    let grow = |pages: u32| format!("(call $say (memory.grow (i32.const {pages})))");
    let text = speaker(&[("message", &(grow(60) + &grow(2) + &grow(1)))], "");
    let limits = limits(|limits| {
        limits.max_memory_bytes = 63 * PAGE;
        limits.fuel_per_slice = 1_000;
    });
    let mut room = room_of_one(&text, &limits);
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [1, 61, -1]);
    assert_eq!(room.stats().memory_bytes, 63 * PAGE);
}

#[test]
fn tables_grow_to_the_limit_in_steps_of_at_most_seven() {
    let grow = |n: u32| format!("(call $say (table.grow $t (ref.null func) (i32.const {n})))");
    let body = grow(8)
        + &grow(0x1000_0000)
        + &grow(7)
        + &grow(4)
        + &grow(3)
        + &grow(1)
        + &grow(0)
        + "(call $say (table.size $t))";
    let text = speaker(
        &[("message", &body)],
        "(table 5 externref) (table $t 10 funcref)",
    );
    // 15 elements initially, and 10 more.
    let mut room = room_of_one(&text, &limits(|limits| limits.max_table_elements = 25));
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [-1, -1, 10, -1, 17, -1, 20, 20]);
    assert_eq!(room.fault(), None);
}

#[test]
fn table_growth_is_also_bounded_by_the_declared_maximum() {
    let grow = "(call $say (table.grow $t (ref.null func) (i32.const 2)))";
    let text = speaker(&[("message", &grow.repeat(2))], "(table $t 1 4 funcref)");
    let mut room = room_of_one(&text, &Limits::default());
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [1, -1]);
    // A refused growth does not count.
    let again = "(call $say (table.grow $t (ref.null func) (i32.const 2)))
        (call $say (table.grow $t (ref.null func) (i32.const 1)))";
    let text = speaker(&[("message", again)], "(table $t 2 3 funcref)");
    let mut room = room_of_one(&text, &limits(|limits| limits.max_table_elements = 3));
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [-1, 2]);
}

#[test]
fn a_call_may_use_stack_up_to_the_limit() {
    let fault = |locals: usize, limit: usize| {
        let body = format!("(local {})", "i64 ".repeat(locals - 1));
        // The parameter is a local, too.
        let text = guest_0_2("", &[("connect", &body)], "");
        room_of_one(&text, &limits(|limits| limits.max_stack_bytes = limit))
            .fault()
            .cloned()
    };
    // Each local takes at least eight bytes; the interpreter decides how many more.
    let most = |limit: usize| {
        (1..=limit / 8)
            .rev()
            .find(|locals| fault(*locals, limit).is_none())
    };
    let locals = most(2048).expect("some fit");
    assert!(locals >= 2048 / 8 / 4, "only {locals} fit");
    assert_eq!(
        most(4096),
        Some(2 * locals),
        "twice as much stack holds twice as many"
    );
    let overflow = faulted("connect", FaultCause::Trap(Trap::StackOverflow));
    assert_eq!(fault(2 * locals + 1, 4096), overflow);
    assert_eq!(fault(4096 / 8 + 1, 4096), overflow);
}

#[test]
fn calls_nest_up_to_the_limit() {
    // `connect` is one call, and calls `$down` with the remaining depth.
    let down = "(func $down (param i32)
        (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1))))))";
    let depth = |depth: u32| {
        let body = format!("(call $down (i32.const {}))", depth - 2);
        let text = guest_0_2("", &[("connect", &body)], down);
        room_of_one(&text, &limits(|limits| limits.max_recursion_depth = 100))
            .fault()
            .cloned()
    };
    assert_eq!(depth(100), None);
    assert_eq!(
        depth(101),
        faulted("connect", FaultCause::Trap(Trap::StackOverflow))
    );
}

#[test]
fn endless_recursion_is_a_stack_overflow_under_any_limits() {
    let text = guest_0_2(
        "",
        &[("connect", "(call $f)")],
        "(func $f (call $f) (call $f))",
    );
    for limits in [Limits::default(), Limits::small()] {
        let room = room_of_one(&text, &limits);
        assert_eq!(
            room.fault(),
            faulted("connect", FaultCause::Trap(Trap::StackOverflow)).as_ref()
        );
    }
}

/// A guest that counts down from the number in a message: fuel in proportion to the number.
fn counting_down() -> String {
    let body = "(local $n i32) (local.set $n (i32.load (local.get 1)))
        (loop $next (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    guest_0_2("", &[("binary", body)], "")
}

/// Fuel that this guest uses for one event.
fn fuel_for(count: u32) -> u64 {
    let mut room = room_of_one(&counting_down(), &Limits::default());
    let before = room.fuel_used();
    send(&mut room, &count.to_le_bytes());
    outputs(&mut room, NOW);
    assert_eq!(room.fault(), None);
    room.fuel_used() - before
}

#[test]
fn an_event_may_use_fuel_up_to_the_limit() {
    let fuel = fuel_for(1000);
    let run = |limit: u64| {
        let mut room = room_of_one(
            &counting_down(),
            &limits(|limits| limits.max_fuel_per_event = Some(limit)),
        );
        for _ in 0..3 {
            // Each event has the whole limit.
            if !room.is_closed() {
                send(&mut room, &1000_u32.to_le_bytes());
                outputs(&mut room, NOW);
            }
        }
        room.fault().cloned()
    };
    assert_eq!(run(fuel), None);
    let limit = fuel - 1;
    let fault = run(limit);
    // The last unit is that of freeing the payload.
    assert_eq!(fault, faulted("jam_free", FaultCause::OutOfFuel { limit }));
    assert_eq!(
        fault.unwrap().to_string(),
        format!("the guest failed in `jam_free`: one event used more than {limit} units of fuel")
    );
}

#[test]
fn fuel_is_not_metered_without_a_limit() {
    let mut room = room_of_one(
        &counting_down(),
        &limits(|limits| limits.max_fuel_per_event = None),
    );
    send(&mut room, &100_000_u32.to_le_bytes());
    assert!(!room.has_work(NOW));
    assert_eq!(room.fault(), None);
    assert_eq!(room.fuel_used(), 0);
}

#[test]
fn a_slice_ends_when_its_fuel_is_used_up() {
    let fuel = fuel_for(1000);
    let paused = |slice: u64| {
        let mut room = room_of_one(
            &counting_down(),
            &limits(|limits| limits.fuel_per_slice = slice),
        );
        send(&mut room, &1000_u32.to_le_bytes());
        room.has_work(NOW)
    };
    assert!(!paused(fuel));
    assert!(paused(fuel - 1));
}

#[test]
fn a_client_may_send_messages_up_to_the_byte_limit() {
    let limits = limits(|limits| limits.max_message_bytes = 10);
    let mut room = room_of_one(&echo(), &limits);
    send(&mut room, "exactly 10");
    send(&mut room, &[0; 10]);
    assert_eq!(outputs(&mut room, NOW).len(), 2);
    for message in [
        Event::message(ClientId(1), "exactly 11."),
        Event::message(ClientId(1), &[0; 11]),
    ] {
        let error = room.handle_event(NOW, message).unwrap_err();
        assert_eq!(
            error,
            EventError::MessageTooLong {
                bytes: 11,
                limit: 10
            }
        );
        assert_eq!(
            error.to_string(),
            "the message is 11 bytes long, more than the limit of 10"
        );
    }
    assert_eq!(room.stats().messages_in, 2);
    assert_eq!(room.fault(), None);
}

#[test]
fn a_guest_may_send_messages_up_to_the_byte_limit() {
    let limits = limits(|limits| limits.max_message_bytes = 10);
    for import in ["$send_message", "$send_binary"] {
        let sending = |len: u32| {
            let body = format!("(call {import} (i32.const 0) (i32.const 0) (i32.const {len}))");
            let mut room = on_message(&body, &limits);
            send(&mut room, "go");
            (outputs(&mut room, NOW).len(), room.fault().cloned())
        };
        assert_eq!(sending(10), (1, None));
        let (sent, fault) = sending(11);
        assert_eq!(sent, 0);
        assert_eq!(
            fault,
            faulted(
                "message",
                FaultCause::MessageTooLong {
                    bytes: 11,
                    limit: 10
                }
            )
        );
        assert_eq!(
            fault.unwrap().to_string(),
            "the guest failed in `message`: it sent a message of 11 bytes, more than the limit of 10"
        );
    }
}

#[test]
fn the_inbox_holds_events_up_to_the_limit() {
    let mut room = room_of_one(&echo(), &limits(|limits| limits.max_inbox_events = 3));
    // Handled at once; its echo is not taken, which keeps the room busy.
    send(&mut room, "not taken");
    for text in ["1", "2", "3"] {
        send(&mut room, text);
    }
    let refused = room.handle_event(NOW, Event::message(ClientId(1), "4"));
    assert_eq!(refused, Err(EventError::InboxFull));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the room is busy and its inbox is full"
    );
    assert_eq!(
        room.handle_event(NOW, Event::Connect(ClientId(2))),
        Err(EventError::InboxFull)
    );
    assert_eq!(
        room.clients(),
        [ClientId(1)],
        "a rejected connect has no effect"
    );
    assert_eq!(room.stats().waiting_events, 3);
    assert_eq!(room.stats().messages_in, 4);
    // A disconnect is never rejected.
    assert_eq!(
        room.handle_event(NOW, Event::Disconnect(ClientId(1))),
        Ok(())
    );
    let texts: Vec<_> = outputs(&mut room, NOW)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(texts[1..], ["1", "2", "3"]);
}

#[test]
fn the_running_event_does_not_count_as_waiting() {
    let mut room = room_of_one(
        &counting_down(),
        &limits(|limits| (limits.max_inbox_events, limits.fuel_per_slice) = (2, 100)),
    );
    send(&mut room, &1000_u32.to_le_bytes());
    assert!(room.has_work(NOW), "it is paused");
    send(&mut room, "1");
    send(&mut room, "2");
    assert_eq!(
        room.handle_event(NOW, Event::message(ClientId(1), "3")),
        Err(EventError::InboxFull)
    );
}

#[test]
fn the_inbox_holds_bytes_up_to_the_limit() {
    let mut room = room_of_one(
        &echo(),
        &limits(|limits| {
            limits.max_inbox_bytes = 10;
            limits.max_message_bytes = 10;
        }),
    );
    // Handled at once; its echo is not taken, which keeps the room busy.
    send(&mut room, "not taken");
    send(&mut room, "four");
    send(&mut room, &[6; 6]);
    assert_eq!(
        room.handle_event(NOW, Event::message(ClientId(1), "x")),
        Err(EventError::InboxFull)
    );
    assert_eq!(
        room.handle_event(NOW, Event::message(ClientId(1), "")),
        Ok(()),
        "an empty message fits"
    );
    assert_eq!(outputs(&mut room, NOW).len(), 4);
    send(&mut room, "fits again");
}

/// A guest that sends messages of `len` bytes, as many as the number in a message to it.
fn flooding(len: u32, limits: &Limits) -> Room {
    let body = format!(
        "(local $n i32) (local.set $n (i32.load (local.get 1)))
        (loop $next
            (call $send_binary (i32.const 0) (i32.const 0) (i32.const {len}))
            (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    );
    room_of_one(&speaker(&[("binary", &body)], ""), limits)
}

#[test]
fn an_event_may_send_messages_up_to_the_limit() {
    let limits = limits(|limits| limits.max_outbox_messages = 5);
    let mut room = flooding(0, &limits);
    for _ in 0..3 {
        send(&mut room, &5_u32.to_le_bytes());
        assert_eq!(outputs(&mut room, NOW).len(), 5);
    }
    assert_eq!(room.fault(), None);
    send(&mut room, &6_u32.to_le_bytes());
    assert_eq!(
        outputs(&mut room, NOW).len(),
        5,
        "earlier messages are delivered"
    );
    assert_eq!(
        room.fault(),
        faulted("binary", FaultCause::TooManyMessages { limit: 5 }).as_ref()
    );
    assert_eq!(
        room.fault().unwrap().to_string(),
        "the guest failed in `binary`: it sent more than 5 messages within one event"
    );
}

#[test]
fn event_limits_hold_across_slices() {
    // The outputs are taken whenever the room is paused, which empties the outbox.
    let limits = limits(|limits| {
        limits.max_outbox_messages = 5;
        limits.fuel_per_slice = 1;
    });
    let mut room = flooding(0, &limits);
    send(&mut room, &6_u32.to_le_bytes());
    assert_eq!(outputs(&mut room, NOW).len(), 5);
    assert_eq!(
        room.fault(),
        faulted("binary", FaultCause::TooManyMessages { limit: 5 }).as_ref()
    );
}

#[test]
fn an_event_may_send_bytes_up_to_the_limit() {
    let limits = limits(|limits| limits.max_outbox_bytes = 100);
    let mut room = flooding(20, &limits);
    send(&mut room, &5_u32.to_le_bytes());
    assert_eq!(outputs(&mut room, NOW).len(), 5);
    send(&mut room, &6_u32.to_le_bytes());
    assert_eq!(outputs(&mut room, NOW).len(), 5);
    assert_eq!(
        room.fault(),
        faulted("binary", FaultCause::TooManyBytes { limit: 100 }).as_ref()
    );
    assert_eq!(
        room.fault().unwrap().to_string(),
        "the guest failed in `binary`: it sent more than 100 bytes within one event"
    );
}

#[test]
fn a_room_accepts_clients_up_to_the_limit() {
    let mut room = room(&module_with(
        &echo(),
        &limits(|limits| limits.max_clients = 2),
    ));
    connect(&mut room, 1);
    connect(&mut room, 2);
    let refused = room.handle_event(NOW, Event::Connect(ClientId(3)));
    assert_eq!(refused, Err(EventError::RoomFull { limit: 2 }));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the room has its limit of 2 clients"
    );
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    connect(&mut room, 3);
    assert_eq!(room.clients(), [ClientId(2), ClientId(3)]);
}

#[test]
fn a_room_id_may_be_as_long_as_the_limit() {
    let module = module_with(&echo(), &limits(|limits| limits.max_room_id_bytes = 6));
    let open = |id: &str| Room::new(&module, id, RoomOptions::default());
    assert!(open("sixsix").is_ok());
    // Bytes count, not characters.
    let error = open("Züürich").unwrap_err();
    assert!(matches!(error, OpenError::IdTooLong { bytes: 9, limit: 6 }));
    assert_eq!(
        error.to_string(),
        "the room's id is 9 bytes long, more than the limit of 6"
    );
    assert!(matches!(
        open("seven77"),
        Err(OpenError::IdTooLong { bytes: 7, limit: 6 })
    ));
}

#[test]
fn a_host_opens_rooms_up_to_the_limit() {
    let mut host_limits = HostLimits::default();
    host_limits.max_rooms = 2;
    let mut host = Host::with_limits(ManualClock::new(), RecordingTransport::new(), host_limits);
    let module = module(&echo());
    let first = host.open("1", &module).unwrap();
    host.open("2", &module).unwrap();
    let error = host.open("3", &module).unwrap_err();
    assert!(matches!(error, OpenError::TooManyRooms { limit: 2 }));
    assert_eq!(error.to_string(), "the host has its limit of 2 rooms");
    host.close(first).expect("the room is open");
    host.poll(Budget::UNLIMITED);
    host.poll_closed().expect("the room has ended");
    host.open("3", &module).unwrap();
}

#[test]
fn an_echo_runs_within_the_small_limits() {
    let limits = Limits::small();
    let mut room = room_of_one(&echo(), &limits);
    let longest = "x".repeat(limits.max_message_bytes);
    send(&mut room, longest.as_str());
    let expected: Said = (MessageRecipient::Client(ClientId(1)), longest);
    assert_eq!(outputs(&mut room, NOW), [expected]);
}

#[test]
fn a_no_std_sdk_guest_runs_within_the_small_limits() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/rooms/wasm/echo-rust-no-std.wasm"
    );
    let module =
        stateroom_wasmi_host::Module::load(&std::fs::read(path).unwrap(), &Limits::small())
            .unwrap();
    let mut room = room(&module);
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "hello");
    assert_eq!(outputs(&mut room, NOW).len(), 1, "{:?}", room.fault());
}

#[test]
fn imports_charge_fuel_for_copied_bytes() {
    // Fuel is in proportion to the bytes sent, so that sending cannot outrun a slice.
    let fuel = |text: String| {
        let mut room = room_of_one(&text, &Limits::default());
        let before = room.fuel_used();
        send(&mut room, "go");
        assert_eq!(room.fault(), None);
        room.fuel_used() - before
    };
    let at_least = 60_000 / 64;
    for import in ["send_binary", "send_message"] {
        let call =
            |len: u32| format!("(call ${import} (i32.const 0) (i32.const 0) (i32.const {len}))");
        let of = |len: u32| fuel(speaker(&[("message", &call(len))], ""));
        assert!(
            of(60_000) >= of(0) + at_least,
            "at least as much as a copy by the guest"
        );
    }
    // An empty broadcast; the bytes that follow it are charged as well.
    let of = |len: u32| {
        fuel(guest_0_4(
            &format!("(call $send (i32.const 8192) (i32.const {len}))"),
            "",
        ))
    };
    assert!(of(50_000) >= of(20) + 50_000 / 64);
}

#[test]
fn bulk_memory_instructions_charge_fuel() {
    for body in [
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))",
        "(memory.copy (i32.const 0) (i32.const 1) (i32.const 65535))",
        "(drop (memory.grow (i32.const 1)))",
    ] {
        let mut room = on_message(body, &Limits::default());
        let before = room.fuel_used();
        send(&mut room, "go");
        assert!(room.fuel_used() - before >= 65_535 / 64, "{body}");
    }
}

#[test]
fn the_last_call_of_a_start_function_is_charged() {
    let start = "(func $start (call $send_binary (i32.const 0) (i32.const 0) (i32.const 60000))) (start $start)";
    let text = guest_0_2(ENV, &[], start);
    let limit = |fuel: u64| {
        open(
            &text,
            &limits(|limits| limits.max_fuel_per_event = Some(fuel)),
        )
    };
    assert_eq!(limit(60_000).unwrap().fault(), None);
    assert_eq!(
        limit(200).unwrap().fault(),
        faulted("jam_malloc", FaultCause::OutOfFuel { limit: 200 }).as_ref(),
        "the call after it has no fuel left"
    );
}

#[test]
fn tiny_stack_limits_do_not_panic() {
    for bytes in [0, 1, 100, 1023] {
        let opened = open(&echo(), &limits(|limits| limits.max_stack_bytes = bytes));
        let room = opened.expect("it has no start function");
        let overflow = faulted("jam_malloc", FaultCause::Trap(Trap::StackOverflow));
        assert!(
            room.fault().is_none() || room.fault() == overflow.as_ref(),
            "{bytes}: {:?}",
            room.fault()
        );
    }
}

#[test]
fn growing_messages_reuse_buffer_memory() {
    // Its allocator returns null, so that its memory is grown for each buffer.
    let text = guest_0_2("", &[("jam_malloc", "(i32.const 0)")], "");
    let mut room = room_of_one(&text, &Limits::default());
    let longest = 40 * PAGE;
    for len in (0..=longest / 4).step_by(PAGE / 2) {
        send(&mut room, vec![1; len].as_slice());
    }
    assert_eq!(room.fault(), None);
    let used = room.stats().memory_bytes;
    assert!(
        used <= longest,
        "{used} bytes for messages of at most {}",
        longest / 4
    );
}

#[cfg(feature = "wasi")]
#[test]
fn failed_prints_charge_fuel() {
    // Nine buffers of which the last is invalid: eight are printed before that is found.
    let import = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let buffers: String = (0..9)
        .flat_map(|i| if i < 8 { [0, 8192_u32] } else { [u32::MAX, 1] })
        .flat_map(u32::to_le_bytes)
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let body =
        "(call $say (call $fd_write (i32.const 1) (i32.const 1024) (i32.const 9) (i32.const 0)))";
    let more = format!("{SAY} (data (i32.const 1024) \"{buffers}\")");
    let mut room = room_of_one(
        &guest_0_2(&(ENV.to_owned() + import), &[("message", body)], &more),
        &Limits::default(),
    );
    let before = room.fuel_used();
    send(&mut room, "go");
    assert_eq!(numbers(&mut room, NOW), [21], "EFAULT");
    assert!(room.fuel_used() - before >= 65_536 / 64);
}

#[test]
fn inconsistent_limits_are_rejected_at_load() {
    let inbox = limits(|limits| (limits.max_message_bytes, limits.max_inbox_bytes) = (11, 10));
    let events = limits(|limits| limits.max_inbox_events = 1);
    for (limits, text) in [
        (
            inbox,
            "max_inbox_bytes (10) must be at least max_message_bytes (11)",
        ),
        (events, "max_inbox_events (1) must be at least 2"),
    ] {
        let error = Module::load(&assemble(&echo()), &limits).unwrap_err();
        assert!(matches!(error, LoadError::Limits(_)), "{error}");
        assert_eq!(error.to_string(), text);
        assert_eq!(
            limits.check().map_err(|error| error.to_string()),
            Err(text.to_owned())
        );
    }
    assert_eq!(
        (Limits::new().check(), Limits::small().check()),
        (Ok(()), Ok(()))
    );
}

/// A message that never fits and one that does not fit now are two errors.
#[test]
fn an_idle_room_accepts_any_message_within_the_limits() {
    let limits = limits(|limits| {
        (limits.max_message_bytes, limits.max_inbox_bytes) = (100, 100);
        limits.max_inbox_events = 2;
    });
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    let room = host
        .open("", &module_with(&echo(), &limits))
        .expect("the room opens");
    // The initialization is in the inbox, too.
    host.enqueue(room, Event::Connect(ClientId(1)))
        .expect("the client may connect");
    host.poll(Budget::UNLIMITED);
    host.enqueue(room, Event::message(ClientId(1), &[0; 100]))
        .expect("the longest message fits");
    let later = host.enqueue(room, Event::message(ClientId(1), &[0; 1]));
    assert_eq!(later, Err(EventError::InboxFull));
    let never = host.enqueue(room, Event::message(ClientId(1), &[0; 101]));
    assert_eq!(
        never,
        Err(EventError::MessageTooLong {
            bytes: 101,
            limit: 100
        })
    );
}

#[test]
fn locals_are_limited() {
    let text = |locals: usize| {
        let function = format!("(func (local{}))", " i64".repeat(locals));
        guest_0_2("", &[], &function)
    };
    let limits = Limits::default();
    assert_eq!(open(&text(800), &limits).unwrap().fault(), None);
    let what = "locals in one function";
    assert_eq!(too_many(&text(801), &limits), (what, 801, 800));
    // A declaration of a million takes seven bytes.
    assert_eq!(too_many(&text(40_000), &limits), (what, 40_000, 800));
}

#[test]
fn what_a_room_takes_besides_its_memory_is_limited() {
    let limits = limits(|limits| limits.max_instance_bytes = 64 << 10);
    let what = "bytes of functions, globals, exports and segments in each room";
    let small = open(&echo(), &limits).unwrap();
    assert_eq!(small.fault(), None);
    // A guest has at least eight functions and nine exports.
    let words = small.stats().instance_bytes / size_of::<usize>();
    assert!((17..1000).contains(&words), "{words}");
    let many = |part: &str| guest_0_2("", &[], &format!("(func $g) {}", part.repeat(20_000)));
    for part in [
        "(func)",
        "(global i32 (i32.const 0))",
        "(global (mut i64) (i64.const 0))",
        r#"(data "x")"#,
        "(elem func $g)",
        "(type (func)) (elem func $g $g $g)",
    ] {
        let (found, count, limit) = too_many(&many(part), &limits);
        assert_eq!((found, limit), (what, 64 << 10), "{part}");
        // A machine word each is the least that anything takes.
        assert!(count >= 20_000 * size_of::<usize>() as u64, "{part}");
    }
    let exports: String = (0..20_000)
        .map(|i| format!(r#"(export "{i}" (memory 0))"#))
        .collect();
    assert_eq!(too_many(&guest_0_2("", &[], &exports), &limits).0, what);
    let elements = guest_0_2(
        "",
        &[],
        &format!("(func $g) (elem func {})", "$g ".repeat(20_000)),
    );
    assert_eq!(too_many(&elements, &limits).0, what);
}

#[test]
fn values_of_types_and_constant_expressions_are_limited() {
    let limits = Limits::default();
    let what = "parameters or results in one type";
    for (params, results) in [(32, 32), (33, 0), (0, 33)] {
        let ty = format!(
            "(type (func (param {}) (result {})))",
            "i32 ".repeat(params),
            "i32 ".repeat(results)
        );
        let text = guest_0_2("", &[], &ty);
        if params == results {
            assert_eq!(open(&text, &limits).unwrap().fault(), None);
        } else {
            assert_eq!(too_many(&text, &limits), (what, 33, 32));
        }
    }

    // The interpreter evaluates them by recursion.
    let sum = |times: usize| format!("(i32.const 0) {}", "i32.const 0 i32.add ".repeat(times));
    let places = |sum: &str| {
        [
            format!("(global i32 {sum})"),
            format!("(data (offset {sum}) \"x\")"),
            format!("(table 1 funcref) (func $f) (elem (offset {sum}) $f)"),
        ]
    };
    for more in places(&sum(40)) {
        let room = open(&guest_0_2("", &[], &more), &limits).unwrap();
        assert_eq!(room.fault(), None, "{more}");
    }
    for more in places(&sum(43)) {
        let (what, count, limit) = too_many(&guest_0_2("", &[], &more), &limits);
        // The last byte ends the expression.
        let expected = ("bytes in one constant expression", 2 + 43 * 3 + 1, 128);
        assert_eq!((what, count, limit), expected, "{more}");
    }
}

#[test]
fn long_names_of_exports_count_as_what_a_room_takes() {
    let limits = limits(|limits| limits.max_instance_bytes = 64 << 10);
    let export = format!(r#"(export "{}" (memory 0))"#, "x".repeat(65_000));
    let what = "bytes of functions, globals, exports and segments in each room";
    assert_eq!(too_many(&guest_0_2("", &[], &export), &limits).0, what);
}

/// Between host calls in straight code the interpreter does not look at its fuel.
#[cfg(feature = "wasi")]
#[test]
fn a_row_of_host_calls_ends_with_the_fuel_of_the_event() {
    const RANDOM: &str = r#"(import "wasi_snapshot_preview1" "random_get"
        (func $random (param i32 i32) (result i32)))"#;
    let body = "(drop (call $random (i32.const 0) (i32.const 60000)))".repeat(100);
    let text = guest_0_2(RANDOM, &[("message", &body)], "");
    for slice in [1_000, 1_000_000] {
        let limits = limits(|limits| {
            limits.max_fuel_per_event = Some(200_000);
            limits.fuel_per_slice = slice;
        });
        let mut room = room_of_one(&text, &limits);
        let before = room.fuel_used();
        send(&mut room, "go");
        outputs(&mut room, NOW);
        let cause = FaultCause::OutOfFuel { limit: 200_000 };
        assert_eq!(room.fault(), faulted("message", cause).as_ref());
        // One call may exceed it.
        assert!(room.fuel_used() - before < 200_000 + 61_000);
    }
}

#[test]
fn growth_costs_255_units_and_one_for_each_64_bytes() {
    let fuel = |body: &str| {
        let mut room = room_of_one(
            &guest_0_2("", &[("message", body)], "(table $t 1 funcref)"),
            &Limits::default(),
        );
        let before = room.fuel_used();
        send(&mut room, "go");
        room.fuel_used() - before
    };
    let operands = fuel("(drop (i32.const 1))");
    assert_eq!(fuel("(drop (memory.grow (i32.const -1)))"), operands + 255);
    assert_eq!(
        fuel("(drop (memory.grow (i32.const 1)))"),
        operands + 255 + 1024
    );
    let operands = fuel("(drop (ref.null func)) (drop (i32.const 1))");
    let grow = "(drop (table.grow $t (ref.null func) (i32.const 1)))";
    assert_eq!(fuel(grow), operands + 255);
}
