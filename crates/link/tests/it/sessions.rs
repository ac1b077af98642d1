//! Both sides come and go.

use super::*;
use crate::support::{echo, speaker};
use stateroom_wasmi_host::{ClientId, Event};

#[test]
fn a_bridge_that_starts_again_finds_empty_rooms() {
    let leaves = speaker(&[("disconnect", "(call $say (local.get 0))")], "");
    let mut board = board(&[("", &leaves)]);
    let mut first = Bridge::greet(&mut board, 1);
    for client in 1..4 {
        first.connect(&mut board, 0, client);
    }
    assert_eq!(board.clients(""), [1, 2, 3]);
    let mut second = Bridge::greet(&mut board, 2);
    second.run(&mut board);
    assert!(board.clients("").is_empty());
    // What the guest said to those who left is for nobody who is here.
    let told = second.told();
    assert_eq!(told[0].0, ROOM);
    assert!(told.iter().all(|(kind, _)| *kind != JOINED), "{told:?}");
    // Numbers begin anew, and so do clients.
    second.connect(&mut board, 0, 1);
    assert_eq!(board.clients(""), [1]);
}

#[test]
fn what_was_for_the_bridge_before_is_forgotten() {
    let mut board = board(&[("", &echo())]);
    let mut first = Bridge::greet(&mut board, 1);
    first.connect(&mut board, 0, 1);
    first.put(
        &mut board,
        &encode(TEXT, first.next, &head(0, 1, b"unheard")),
    );
    board.link.wire_mut().space = 5;
    board.poll();
    board.written();
    // In the middle of a frame.
    board.link.wire_mut().space = usize::MAX;
    first.put(&mut board, &encode(HELLO, 0, &hello(1, 2, 4096, 4096)));
    board.poll();
    let frames: Vec<_> = decode(&board.written()).into_iter().flatten().collect();
    assert_eq!(frames[0].kind, HELLO);
    let kinds: Vec<_> = frames[1..]
        .iter()
        .map(|frame| (frame.kind, frame.number))
        .collect();
    assert_eq!(kinds, [(ROOM, 0)]);
    assert!(board.clients("").is_empty());
}

#[test]
fn a_greeting_that_comes_twice_is_answered_twice_and_changes_nothing() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.control.clear();
    bridge.put(&mut board, &encode(HELLO, 0, &hello(1, 1, 4096, 4096)));
    bridge.run(&mut board);
    assert_eq!(bridge.control, [(HELLO, 0)]);
    assert_eq!(board.clients(""), [1]);
    bridge.text(&mut board, 0, 1, "hello");
}

#[test]
fn a_board_that_starts_again_says_so_to_whatever_it_hears() {
    for (kind, body) in [
        (PING, vec![]),
        (ACK, vec![]),
        (TEXT, head(0, 1, b"x")),
        (CONNECT, head(0, 1, &[])),
    ] {
        let mut board = board(&[("", &echo())]);
        board.poll();
        board.written();
        board
            .link
            .wire_mut()
            .to_board
            .extend(encode(kind, 7, &body));
        board.poll();
        let frames = decode(&board.written());
        let [Some(answer)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(
            (answer.kind, &answer.body[..5]),
            (HELLO, &hello(1, 0, 0, 0)[..5])
        );
        assert!(board.clients("").is_empty());
        // And it is as if nothing had happened.
        let mut bridge = Bridge::greet(&mut board, 3);
        bridge.connect(&mut board, 0, 1);
        assert_eq!(board.clients(""), [1]);
    }
}

#[test]
fn a_board_answers_other_versions_with_its_own_and_has_no_session_then() {
    for version in [0, 2, 255] {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::greet(&mut board, 1);
        bridge.connect(&mut board, 0, 1);
        bridge.put(
            &mut board,
            &encode(HELLO, 0, &hello(version, 5, 4096, 4096)),
        );
        board.poll();
        let frames = decode(&board.written());
        let [Some(answer)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(
            (answer.kind, &answer.body[..5]),
            (HELLO, &hello(1, 0, 0, 0)[..5])
        );
        assert!(board.clients("").is_empty());
    }
}

#[test]
fn a_bridge_that_is_silent_for_ten_seconds_is_gone() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    board.advance(Duration::from_millis(9_999));
    bridge.put(&mut board, &encode(PING, bridge.expected, &[]));
    board.poll();
    board.advance(Duration::from_millis(9_999));
    assert_eq!(board.clients(""), [1]);
    assert_eq!(board.wake_at, Some(board.now() + Duration::from_millis(1)));
    board.written();
    board.advance(Duration::from_millis(1));
    assert!(board.clients("").is_empty());
    let frames = decode(&board.written());
    let [Some(answer)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (answer.kind, &answer.body[..5]),
        (HELLO, &hello(1, 0, 0, 0)[..5])
    );
    assert_eq!(board.wake_at, None);
}

#[test]
fn a_room_speaks_to_nobody_while_nobody_is_there() {
    let ticks = speaker(
        &[
            ("connect", "(call $set_timer (i32.const 10))"),
            (
                "timer",
                "(call $set_timer (i32.const 10)) (call $say (i32.const 1))",
            ),
        ],
        "",
    );
    let mut board = board(&[("", &ticks)]);
    // A client that the firmware itself connects.
    let room = board.host.find("").expect("the room is open");
    board
        .host
        .handle_event(room, Event::Connect(ClientId(9)))
        .expect("the client may connect");
    board.poll();
    board.written();
    for _ in 0..100 {
        board.advance(Duration::from_millis(10));
    }
    assert!(board.written().is_empty());
    assert!(!board.host.is_blocked());
    let stats = board.host.room(room).expect("it is open").stats();
    assert_eq!(stats.messages_out, 100);
}
