//! How sessions begin and end.

use super::*;
use crate::support::{echo, speaker};
use stateroom_wasmi_host::{ClientId, Event};

#[test]
fn a_new_session_begins_with_empty_rooms() {
    let leaves = speaker(&[("disconnect", "(call $say (local.get 0))")], "");
    let mut board = board(&[("", &leaves)]);
    let mut first = Bridge::connect_to(&mut board, 1);
    for client in 1..4 {
        first.connect(&mut board, 0, client);
    }
    assert_eq!(board.clients(""), [1, 2, 3]);
    let mut second = Bridge::connect_to(&mut board, 2);
    second.run(&mut board);
    assert!(board.clients("").is_empty());
    // Outputs to the clients that left are not sent to the new session.
    let messages = second.take_messages();
    assert_eq!(messages[0].0, ROOM_OPENED);
    assert!(
        messages.iter().all(|(kind, _)| *kind != JOINED),
        "{messages:?}"
    );
    // Sequence numbers and clients start over.
    second.connect(&mut board, 0, 1);
    assert_eq!(board.clients(""), [1]);
}

#[test]
fn a_new_session_drops_queued_frames() {
    let mut board = board(&[("", &echo())]);
    let mut first = Bridge::connect_to(&mut board, 1);
    first.connect(&mut board, 0, 1);
    first.put(
        &mut board,
        &encode(TEXT, first.next, &head(0, 1, b"dropped")),
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
        .map(|frame| (frame.kind, frame.sequence))
        .collect();
    assert_eq!(kinds, [(ROOM_OPENED, 0)]);
    assert!(board.clients("").is_empty());
}

#[test]
fn a_repeated_hello_is_confirmed_again_and_changes_nothing() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.control.clear();
    bridge.put(&mut board, &encode(HELLO, 0, &hello(1, 1, 4096, 4096)));
    bridge.run(&mut board);
    assert_eq!(bridge.control, [(HELLO, 0)]);
    assert_eq!(board.clients(""), [1]);
    bridge.text(&mut board, 0, 1, "hello");
}

/// The board has replied that it has no session, and with nothing else; and no client is left.
fn assert_refused(board: &mut Board) {
    let frames = decode(&board.written());
    let [Some(reply)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (reply.kind, &reply.body[..5]),
        (HELLO, &hello(1, 0, 0, 0)[..5])
    );
    assert!(board.clients("").is_empty());
}

#[test]
fn a_restarted_board_replies_to_any_frame_that_it_has_no_session() {
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
        assert_refused(&mut board);
        // A session can be started as usual.
        let mut bridge = Bridge::connect_to(&mut board, 3);
        bridge.connect(&mut board, 0, 1);
        assert_eq!(board.clients(""), [1]);
    }
}

#[test]
fn another_version_ends_the_session() {
    for version in [0, 2, 255] {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::connect_to(&mut board, 1);
        bridge.connect(&mut board, 0, 1);
        bridge.put(
            &mut board,
            &encode(HELLO, 0, &hello(version, 5, 4096, 4096)),
        );
        board.poll();
        assert_refused(&mut board);
    }
}

#[test]
fn a_session_times_out_after_ten_seconds() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
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
    let [Some(reply)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (reply.kind, &reply.body[..5]),
        (HELLO, &hello(1, 0, 0, 0)[..5])
    );
    assert_eq!(board.wake_at, None);
}

#[test]
fn outputs_without_a_session_are_dropped() {
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
    // A client of the firmware itself.
    let room = board.host.find("").expect("the room is open");
    board
        .host
        .enqueue(room, Event::Connect(ClientId(9)))
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
