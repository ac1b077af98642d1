//! Every kind of frame, on a line that is good.

use super::*;
use crate::support::{ENV, echo, guest_0_2, speaker};
use stateroom_wasmi_link::{CarryError, MAX_ROOM_ID_BYTES, MAX_ROOMS};

/// Says its message to everybody, to client 2, and to everybody but client 2.
fn to_all_kinds() -> String {
    let to = |to| format!("(call $send_message (i32.const {to}) (local.get 1) (local.get 2))");
    guest_0_2(
        ENV,
        &[("message", &[to("0"), to("2"), to("-2")].concat())],
        "",
    )
}

#[test]
fn a_board_says_that_it_has_started() {
    let mut board = board(&[]);
    board.poll();
    let frames = decode(&board.written());
    let [
        Some(Frame {
            kind: HELLO, body, ..
        }),
    ] = &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!(body[..5], hello(1, 0, 0, 0)[..5]);
    assert_eq!(board.wake_at, None);
}

#[test]
fn a_greeting_is_answered_and_rooms_are_told_of() {
    let mut board = board_with(
        &[("one", &echo()), ("", &echo())],
        &limits(|limits| limits.max_message_bytes = 300),
    );
    let mut bridge = Bridge::greet(&mut board, 0xabcd_ef01);
    assert_eq!(
        bridge.told(),
        told([(ROOM, "0x002c010000one"), (ROOM, "0x012c010000")])
    );
    board.open("late", &echo(), &Limits::default());
    bridge.run(&mut board);
    let [
        Frame {
            kind: ROOM, body, ..
        },
    ] = &bridge.taken[..]
    else {
        panic!("{:?}", bridge.taken)
    };
    assert_eq!((body[0], &body[5..]), (2, &b"late"[..]));
    // Not what the room takes, which is a megabyte, but what the link does.
    let longest = u32::from_le_bytes(body[1..5].try_into().expect("four bytes"));
    assert!((450..BUFFER as u32).contains(&longest), "{longest}");
}

#[test]
fn clients_connect_speak_and_are_answered() {
    let mut board = board(&[("a", &echo()), ("b", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.told();
    bridge.connect(&mut board, 1, 7);
    bridge.connect(&mut board, 0, 0x0102_0304);
    assert_eq!(
        bridge.told(),
        told([(JOINED, "0x0107000000"), (JOINED, "0x0004030201")])
    );
    assert_eq!(
        (board.clients("a"), board.clients("b")),
        (vec![0x0102_0304], vec![7])
    );

    bridge.text(&mut board, 1, 7, "hellö");
    bridge.send(&mut board, BYTES, &head(0, 0x0102_0304, &[0, 255, 0]));
    bridge.text(&mut board, 1, 7, "");
    let answers = [
        (SAID_TEXT, "0x010107000000hellö"),
        (SAID_BYTES, "0x00010403020100ff00"),
        (SAID_TEXT, "0x010107000000"),
    ];
    assert_eq!(bridge.told(), told(answers));

    bridge.send(&mut board, DISCONNECT, &head(1, 7, &[]));
    assert_eq!(
        (board.clients("a"), board.clients("b")),
        (vec![0x0102_0304], vec![])
    );
    // Whoever is not there is not heard, and needs not be told.
    bridge.text(&mut board, 1, 7, "hello?");
    bridge.send(&mut board, DISCONNECT, &head(1, 7, &[]));
    assert!(bridge.told().is_empty());
}

#[test]
fn recipients_are_told_as_the_guest_gave_them() {
    let mut board = board(&[("", &to_all_kinds())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    bridge.text(&mut board, 0, 1, "x");
    let said = [
        (SAID_TEXT, "0x000000000000x"),
        (SAID_TEXT, "0x000102000000x"),
        (SAID_TEXT, "0x000202000000x"),
    ];
    assert_eq!(bridge.told(), told(said));
}

#[test]
fn joined_comes_before_what_the_room_says_to_a_newcomer_and_after_what_it_said_before() {
    let on_connect = "(call $say (local.get 0))";
    let mut board = board(&[("", &speaker(&[("connect", on_connect)], ""))]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.told();
    // Two connects that are on their way at the same time.
    bridge.put(
        &mut board,
        &[
            encode(CONNECT, 0, &head(0, 1, &[])),
            encode(CONNECT, 1, &head(0, 2, &[])),
        ]
        .concat(),
    );
    bridge.run(&mut board);
    let told_of = [
        (JOINED, "0x0001000000"),
        (SAID_BYTES, "0x00000000000001000000"),
        (JOINED, "0x0002000000"),
        (SAID_BYTES, "0x00000000000002000000"),
    ];
    assert_eq!(bridge.told(), told(told_of));
}

#[test]
fn what_a_room_does_not_take_is_refused_with_the_reason() {
    let limits = limits(|limits| {
        limits.max_clients = 1;
        limits.max_message_bytes = 10;
    });
    let mut board = board_with(&[("", &echo())], &limits);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    let refused = [
        (CONNECT, head(9, 5, &[]), "0x090500000001"),
        (TEXT, head(9, 5, b"x"), "0x090500000001"),
        (CONNECT, head(0, 2, &[]), "0x000200000002"),
        (TEXT, head(0, 1, b"elevenbytes"), "0x000100000003"),
        (CONNECT, head(0, 0, &[]), "0x000000000004"),
        (CONNECT, head(0, 0x8000_0000, &[]), "0x000000008004"),
        (CONNECT, head(0, 1, &[]), "0x000100000005"),
        (TEXT, head(0, 1, &[0xff]), "0x000100000006"),
    ];
    for (kind, body, reason) in refused {
        bridge.send(&mut board, kind, &body);
        assert_eq!(bridge.told(), told([(REFUSED, reason)]), "{kind} {body:?}");
    }
    bridge.text(&mut board, 0, 1, "still here");
    assert_eq!(
        bridge.told(),
        told([(SAID_TEXT, "0x000101000000still here")])
    );
}

#[test]
fn a_room_that_ends_is_told_of_with_its_fault() {
    let failing = speaker(&[("message", "(unreachable)")], "");
    let mut board = board(&[("bad", &failing), ("good", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.connect(&mut board, 1, 1);
    bridge.told();
    bridge.text(&mut board, 0, 1, "x");
    let closed = board
        .link
        .poll_closed(&mut board.host)
        .expect("the room has failed");
    let fault = closed.fault.expect("it says how").to_string();
    bridge.run(&mut board);
    assert_eq!(bridge.told(), vec![(CLOSED, format!("0x0001{fault}"))]);

    let good = board.host.find("good").expect("the other is open");
    board.host.close(good);
    assert!(
        board
            .link
            .poll_closed(&mut board.host)
            .is_some_and(|closed| closed.fault.is_none())
    );
    bridge.run(&mut board);
    assert_eq!(bridge.told(), told([(CLOSED, "0x0100")]));
    assert_eq!(board.link.poll_closed(&mut board.host), None);

    // One that is opened in its place has another number.
    board.open("bad", &echo(), &Limits::default());
    bridge.run(&mut board);
    assert!(bridge.told()[0].1.starts_with("0x02"));
    bridge.text(&mut board, 0, 1, "x");
    assert_eq!(bridge.told(), told([(REFUSED, "0x000100000001")]));
}

#[test]
fn frames_of_a_kind_that_is_not_known_are_thrown_away() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    bridge.control.clear();
    for kind in [0x00, 0x06, 0x0f] {
        bridge.put(&mut board, &encode(kind, bridge.next, &head(0, 1, b"x")));
        bridge.run(&mut board);
        assert_eq!(bridge.control, []);
    }
    // These have their numbers.
    for kind in [0x14, 0x1f, 0x30, 0xff] {
        bridge.send(&mut board, kind, &head(0, 1, b"x"));
    }
    bridge.text(&mut board, 0, 1, "hello");
    assert_eq!(bridge.told(), told([(SAID_TEXT, "0x000101000000hello")]));
}

#[test]
fn a_link_carries_so_many_rooms_of_so_long_ids() {
    let mut board = board(&[]);
    let module = crate::support::module(&echo());
    let long = board
        .host
        .open(&"x".repeat(MAX_ROOM_ID_BYTES + 1), &module)
        .expect("it opens");
    let error = board.link.carry(&mut board.host, long);
    assert_eq!(
        error,
        Err(CarryError::IdTooLong {
            bytes: MAX_ROOM_ID_BYTES + 1
        })
    );
    for i in 0..MAX_ROOMS {
        board.open(&i.to_string(), &echo(), &Limits::default());
    }
    let one_more = board.host.open("one more", &module).expect("it opens");
    assert_eq!(
        board.link.carry(&mut board.host, one_more),
        Err(CarryError::TooManyRooms)
    );
    let first = board.host.find("0").expect("it is open");
    assert_eq!(
        board.link.carry(&mut board.host, first),
        Ok(()),
        "it is carried already"
    );
    board.host.close(first);
    board
        .link
        .poll_closed(&mut board.host)
        .expect("it has ended");
    assert_eq!(
        board.link.carry(&mut board.host, first),
        Err(CarryError::UnknownRoom)
    );
    assert_eq!(board.link.carry(&mut board.host, one_more), Ok(()));
}
