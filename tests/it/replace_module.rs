//! Rooms that go on with another module.

use crate::{
    host::{host, open, say, sent, texts},
    support::{ENV, guest_0_2, limits, module, module_with},
};
use stateroom_wasmi_host::{Budget, ClientId, Event, Output, ReplaceError, Room, RoomOptions};
#[cfg(feature = "snapshot")]
use stateroom_wasmi_host::{FaultPolicy, LoadOptions, Module};
use std::time::Duration;

/// A guest that says to all: its letter and, in turn, `+` for a connect, `-` for a disconnect, and how
/// many messages it had. Its timer, which each message sets, says `!`.
fn guest(letter: char) -> String {
    let say = |byte: &str| {
        format!(
            "(i32.store8 (i32.const 1) {byte})
             (call $send_message (i32.const -1) (i32.const 0) (i32.const 2))"
        )
    };
    let count = "(i32.add (i32.const 48) (global.get $messages))";
    let message = format!(
        "(global.set $messages (i32.add (global.get $messages) (i32.const 1)))
         (call $set_timer (i32.const 1000)) {}",
        say(count)
    );
    guest_0_2(
        ENV,
        &[
            ("connect", &say("(i32.const 43)")),
            ("disconnect", &say("(i32.const 45)")),
            ("message", &message),
            ("timer", &say("(i32.const 33)")),
        ],
        &format!("(global $messages (mut i32) (i32.const 0)) (data (i32.const 0) \"{letter}\")"),
    )
}

#[test]
fn clients_stay_and_a_fresh_guest_is_told_of_them() {
    let (mut host, a, b) = (host(), module(&guest('a')), module(&guest('b')));
    let room = open(&mut host, "room", &a);
    host.enqueue(room, Event::Connect(ClientId(2)))
        .expect("it may");
    say(&mut host, room, "x");
    host.poll(Budget::UNLIMITED);
    let said = sent(&mut host);
    assert_eq!(said, texts([(room, "a+"), (room, "a+"), (room, "a1")]));
    // What waits is for the next guest.
    say(&mut host, room, "x");
    host.enqueue(room, Event::Disconnect(ClientId(2)))
        .expect("it is connected");
    host.replace_module(room, &b).expect("it is open");
    host.poll(Budget::UNLIMITED);
    let said = sent(&mut host);
    assert_eq!(
        said,
        texts([(room, "b+"), (room, "b+"), (room, "b1"), (room, "b-")])
    );
    assert_eq!(
        host.room(room).expect("it is open").clients(),
        [ClientId(1)]
    );
    // The timer is that of the present guest.
    host.clock().advance(Duration::from_millis(1500));
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(room, "b!")]));
}

#[test]
fn the_timer_of_the_guest_that_is_gone_does_not_fire() {
    let (mut host, a, b) = (host(), module(&guest('a')), module(&guest('b')));
    let room = open(&mut host, "room", &a);
    say(&mut host, room, "x");
    host.poll(Budget::UNLIMITED);
    host.replace_module(room, &b).expect("it is open");
    host.poll(Budget::UNLIMITED);
    sent(&mut host);
    host.clock().advance(Duration::from_secs(10));
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), []);
}

#[test]
fn a_guest_in_the_middle_of_an_event_can_be_replaced() {
    let endless = guest_0_2(ENV, &[("message", "(loop (br 0))")], "");
    let limits = limits(|limits| limits.fuel_per_slice = 1000);
    let (endless, b) = (module_with(&endless, &limits), module(&guest('b')));
    let mut host = host();
    let room = open(&mut host, "room", &endless);
    say(&mut host, room, "x");
    host.poll(Budget::fuel(5000));
    say(&mut host, room, "y");
    let handled = host.room(room).expect("it is open").stats().events_handled;
    host.replace_module(room, &b).expect("it is open");
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(room, "b+"), (room, "b1")]));
    // The event that was abandoned is over, and so is the one that waited.
    let after = host.room(room).expect("it is open").stats().events_handled;
    assert_eq!(after, handled + 2);
}

#[test]
fn a_room_that_is_closed_stays_so_and_one_that_is_not_there_is_unknown() {
    let (mut host, a) = (host(), module(&guest('a')));
    let room = open(&mut host, "room", &a);
    host.close(room).expect("it is open");
    assert_eq!(host.replace_module(room, &a), Ok(()));
    host.poll(Budget::UNLIMITED);
    assert!(host.poll_closed().is_some());
    assert_eq!(
        host.replace_module(room, &a),
        Err(ReplaceError::UnknownRoom)
    );
}

#[test]
fn an_unmanaged_room_cancels_the_timer_of_the_guest_that_is_gone() {
    let (a, b) = (module(&guest('a')), module(&guest('b')));
    let mut room = Room::unmanaged(&a, "room", RoomOptions::default()).expect("it opens");
    while room.poll_output().is_some() {}
    room.replace_module(&b).expect("it is open");
    assert_eq!(room.poll_output(), Some(Output::CancelTimer));
    assert_eq!(room.poll_output(), None);
}

#[cfg(feature = "snapshot")]
#[test]
fn a_replaced_room_is_saved_as_one_of_the_new_module() {
    let [a, b] = ['a', 'b'].map(|letter| {
        let text = wat::parse_str(guest(letter)).expect("it is valid");
        let options = LoadOptions::new().snapshots(true);
        Module::load_with(&text, &limits(|_| ()), options).expect("it loads")
    });
    let mut host = host();
    let room = open(&mut host, "room", &a);
    say(&mut host, room, "x");
    host.poll(Budget::UNLIMITED);
    sent(&mut host);
    host.replace_module(room, &b).expect("it is open");
    // At once, as a journal needs it.
    let snapshot = host.save(room).expect("it is at an event boundary");
    let mut other = crate::host::host();
    assert!(other.load(&a, &snapshot, Default::default()).is_err());
    let room = other.load(&b, &snapshot, Default::default());
    let room = room.expect("it is its module");
    say(&mut other, room, "x");
    other.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut other), texts([(room, "b+"), (room, "b1")]));
}

#[cfg(feature = "snapshot")]
#[test]
fn rollback_needs_a_module_that_was_loaded_for_it() {
    let text = wat::parse_str(guest('a')).expect("it is valid");
    let options = LoadOptions::new().snapshots(true);
    let a = Module::load_with(&text, &limits(|_| ()), options).expect("it loads");
    let b = module(&guest('b'));
    let mut host = host().with_fault_policy(FaultPolicy::Rollback);
    let room = open(&mut host, "room", &a);
    assert_eq!(host.replace_module(room, &b), Err(ReplaceError::NoRollback));
    sent(&mut host);
    say(&mut host, room, "x");
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(room, "a1")]));
}
