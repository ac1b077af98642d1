//! Callbacks that cannot send, and what they cost.

use crate::support::{Call, Host, Module, ROOM, log, take_cost};
use stateroom_wasmi::*;

#[test]
fn an_output_that_would_block_is_tried_again() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    for text in ["one", "more"] {
        host.text(room, 1, text).unwrap();
    }
    let result = &host.behaviour.result;
    result.set(stateroom_send_result::WouldBlock as i32);
    assert_eq!(host.poll(0), STATEROOM_NEVER);
    assert_eq!(host.stats().is_blocked, 1);
    host.poll(0);
    assert_eq!(host.texts(), [""; 0]);
    result.set(stateroom_send_result::Sent as i32);
    host.poll(0);
    assert_eq!(host.texts(), ["one", "more"]);
    assert_eq!(host.stats().is_blocked, 0);
}

#[test]
fn a_closed_room_that_is_blocked_is_reported_when_its_outputs_are_sent() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.text(room, 1, "last words").unwrap();
    host.behaviour
        .result
        .set(stateroom_send_result::WouldBlock as i32);
    host.poll(0);
    host.close(room).unwrap();
    host.poll(0);
    assert_eq!(host.calls(), []);
    host.behaviour
        .result
        .set(stateroom_send_result::Sent as i32);
    host.poll(0);
    let calls = host.calls();
    assert!(
        matches!(calls[..], [Call::Sent(..), Call::Closed { .. }]),
        "{calls:?}"
    );
}

#[test]
fn an_output_that_failed_is_lost() {
    let module = Module::new(ROOM);
    for result in [stateroom_send_result::Failed as i32, 3, -1] {
        let host = Host::with(|options| options.log = Some(log));
        let room = host.open_with_client(&module);
        host.text(room, 1, "lost").unwrap();
        host.behaviour.result.set(result);
        host.poll(0);
        host.behaviour
            .result
            .set(stateroom_send_result::Sent as i32);
        host.text(room, 1, "sent").unwrap();
        host.poll(0);
        let calls = host.calls();
        assert!(
            matches!(&calls[..], [Call::Log(2, _, text), Call::Sent(..)] if text.contains("lost")),
            "{calls:?}"
        );
    }
}

#[test]
fn what_callbacks_cost_is_counted() {
    let host = Host::with(|options| options.take_cost = Some(take_cost));
    let module = Module::new(ROOM);
    let room = host.open_with_client(&module);
    host.behaviour.cost.set(10_000_000);
    host.text(room, 1, "one").unwrap();
    host.text(room, 1, "more").unwrap();
    let poll_at = host.try_poll(5, 1_000_000, STATEROOM_NEVER).unwrap();
    assert!(poll_at <= 5, "the first used up the budget");
    assert_eq!(host.texts(), ["one"]);
}

#[test]
fn callbacks_may_be_missing() {
    let host = Host::with(|options| {
        options.connected = None;
        options.disconnected = None;
        options.closed = None;
    });
    let module = Module::new(ROOM);
    let room = host.open("room", &module).unwrap();
    host.connect(room, 1).unwrap();
    host.text(room, 1, "echo").unwrap();
    host.disconnect(room, 1).unwrap();
    host.poll(0);
    host.close(room).unwrap();
    host.poll(0);
    assert!(matches!(host.calls()[..], [Call::Sent(..)]));
    assert_eq!(host.stats().rooms, 0);
}
