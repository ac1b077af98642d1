//! Every kind of frame, on a reliable line.

use super::*;
use crate::support::{ENV, echo, guest_0_2, speaker};
use stateroom_wasmi_link::{AddRoomError, MAX_ROOM_ID_BYTES, MAX_ROOMS};

/// Sends its message to all, to client 2, and to all but client 2.
fn to_each_recipient() -> String {
    let to = |to| format!("(call $send_message (i32.const {to}) (local.get 1) (local.get 2))");
    guest_0_2(
        ENV,
        &[("message", &[to("0"), to("2"), to("-2")].concat())],
        "",
    )
}

#[test]
fn a_board_sends_a_hello_when_it_starts() {
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
fn a_hello_is_confirmed_and_rooms_are_announced() {
    let mut board = board_with(
        &[("one", &echo()), ("", &echo())],
        &limits(|limits| limits.max_message_bytes = 300),
    );
    let mut bridge = Bridge::connect_to(&mut board, 0xabcd_ef01);
    assert_eq!(
        bridge.take_messages(),
        messages([
            (ROOM_OPENED, "0x002c010000one"),
            (ROOM_OPENED, "0x012c010000")
        ])
    );
    board.open("late", &echo(), &Limits::default());
    bridge.run(&mut board);
    let [
        Frame {
            kind: ROOM_OPENED,
            body,
            ..
        },
    ] = &bridge.accepted[..]
    else {
        panic!("{:?}", bridge.accepted)
    };
    assert_eq!((body[0], &body[5..]), (2, &b"late"[..]));
    // Not the room's limit of a megabyte, but the link's.
    let longest = u32::from_le_bytes(body[1..5].try_into().expect("four bytes"));
    assert!((450..BUFFER as u32).contains(&longest), "{longest}");
}

#[test]
fn clients_connect_send_receive_and_disconnect() {
    let mut board = board(&[("a", &echo()), ("b", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.take_messages();
    bridge.connect(&mut board, 1, 7);
    bridge.connect(&mut board, 0, 0x0102_0304);
    assert_eq!(
        bridge.take_messages(),
        messages([(JOINED, "0x0107000000"), (JOINED, "0x0004030201")])
    );
    assert_eq!(
        (board.clients("a"), board.clients("b")),
        (vec![0x0102_0304], vec![7])
    );

    bridge.text(&mut board, 1, 7, "hellö");
    bridge.send(&mut board, BYTES, &head(0, 0x0102_0304, &[0, 255, 0]));
    bridge.text(&mut board, 1, 7, "");
    let echoes = [
        (OUTPUT_TEXT, "0x010107000000hellö"),
        (OUTPUT_BYTES, "0x00010403020100ff00"),
        (OUTPUT_TEXT, "0x010107000000"),
    ];
    assert_eq!(bridge.take_messages(), messages(echoes));

    bridge.send(&mut board, DISCONNECT, &head(1, 7, &[]));
    assert_eq!(
        (board.clients("a"), board.clients("b")),
        (vec![0x0102_0304], vec![])
    );
    // Events of clients that are not connected are ignored.
    bridge.text(&mut board, 1, 7, "hello?");
    bridge.send(&mut board, DISCONNECT, &head(1, 7, &[]));
    assert!(bridge.take_messages().is_empty());
}

#[test]
fn recipients_are_passed_on_unresolved() {
    let mut board = board(&[("", &to_each_recipient())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.text(&mut board, 0, 1, "x");
    let outputs = [
        (OUTPUT_TEXT, "0x000000000000x"),
        (OUTPUT_TEXT, "0x000102000000x"),
        (OUTPUT_TEXT, "0x000202000000x"),
    ];
    assert_eq!(bridge.take_messages(), messages(outputs));
}

#[test]
fn joined_comes_between_the_outputs_before_and_after_the_connect() {
    let on_connect = "(call $say (local.get 0))";
    let mut board = board(&[("", &speaker(&[("connect", on_connect)], ""))]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.take_messages();
    // Two connects in transit at the same time.
    bridge.put(
        &mut board,
        &[
            encode(CONNECT, 0, &head(0, 1, &[])),
            encode(CONNECT, 1, &head(0, 2, &[])),
        ]
        .concat(),
    );
    bridge.run(&mut board);
    let expected = [
        (JOINED, "0x0001000000"),
        (OUTPUT_BYTES, "0x00000000000001000000"),
        (JOINED, "0x0002000000"),
        (OUTPUT_BYTES, "0x00000000000002000000"),
    ];
    assert_eq!(bridge.take_messages(), messages(expected));
}

#[test]
fn invalid_events_are_refused_with_a_reason() {
    let limits = limits(|limits| {
        limits.max_clients = 1;
        limits.max_message_bytes = 10;
    });
    let mut board = board_with(&[("", &echo())], &limits);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
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
        assert_eq!(
            bridge.take_messages(),
            messages([(REFUSED, reason)]),
            "{kind} {body:?}"
        );
    }
    bridge.text(&mut board, 0, 1, "still here");
    assert_eq!(
        bridge.take_messages(),
        messages([(OUTPUT_TEXT, "0x000101000000still here")])
    );
}

#[test]
fn a_closed_room_is_reported_with_its_fault() {
    let failing = speaker(&[("message", "(unreachable)")], "");
    let mut board = board(&[("bad", &failing), ("good", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.connect(&mut board, 1, 1);
    bridge.take_messages();
    bridge.text(&mut board, 0, 1, "x");
    let closed = board
        .link
        .poll_closed(&mut board.host)
        .expect("the room closed");
    let fault = closed.fault.expect("it has a fault").to_string();
    bridge.run(&mut board);
    assert_eq!(
        bridge.take_messages(),
        vec![(ROOM_CLOSED, format!("0x0001{fault}"))]
    );

    let good = board.host.find("good").expect("the room is open");
    board.host.close(good).expect("the room is open");
    assert!(
        board
            .link
            .poll_closed(&mut board.host)
            .is_some_and(|closed| closed.fault.is_none())
    );
    bridge.run(&mut board);
    assert_eq!(bridge.take_messages(), messages([(ROOM_CLOSED, "0x0100")]));
    assert_eq!(board.link.poll_closed(&mut board.host), None);

    // A new room has another number.
    board.open("bad", &echo(), &Limits::default());
    bridge.run(&mut board);
    assert!(bridge.take_messages()[0].1.starts_with("0x02"));
    bridge.text(&mut board, 0, 1, "x");
    assert_eq!(
        bridge.take_messages(),
        messages([(REFUSED, "0x000100000001")])
    );
}

#[test]
fn a_discarded_room_is_reported_and_frees_its_place() {
    let mut board = board(&[("gone", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    let gone = board.host.find("gone").expect("the room is open");
    board.host.discard(gone).expect("the room is open");
    bridge.run(&mut board);
    assert_eq!(bridge.take_messages(), messages([(ROOM_CLOSED, "0x0000")]));

    // As many more as the link carries, each discarded before the bridge knows of it.
    for _ in 0..20 {
        let room = board.open("short-lived", &echo(), &Limits::default());
        board.host.discard(room).expect("the room is open");
        bridge.run(&mut board);
    }
    assert_eq!(bridge.take_messages(), []);
}

#[test]
fn frames_of_unknown_kinds_are_ignored() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.control.clear();
    for kind in [0x00, 0x06, 0x0f] {
        bridge.put(&mut board, &encode(kind, bridge.next, &head(0, 1, b"x")));
        bridge.run(&mut board);
        assert_eq!(bridge.control, []);
    }
    // Unknown numbered frames are acknowledged.
    for kind in [0x14, 0x1f, 0x30, 0xff] {
        bridge.send(&mut board, kind, &head(0, 1, b"x"));
    }
    bridge.text(&mut board, 0, 1, "hello");
    assert_eq!(
        bridge.take_messages(),
        messages([(OUTPUT_TEXT, "0x000101000000hello")])
    );
}

#[test]
fn the_number_of_rooms_and_the_length_of_ids_are_limited() {
    let mut board = board(&[]);
    let module = crate::support::module(&echo());
    let long = board
        .host
        .open(&"x".repeat(MAX_ROOM_ID_BYTES + 1), &module)
        .expect("it opens");
    let error = board.link.add_room(&mut board.host, long);
    assert_eq!(
        error,
        Err(AddRoomError::IdTooLong {
            bytes: MAX_ROOM_ID_BYTES + 1
        })
    );
    for i in 0..MAX_ROOMS {
        board.open(&i.to_string(), &echo(), &Limits::default());
    }
    let one_more = board.host.open("one more", &module).expect("it opens");
    assert_eq!(
        board.link.add_room(&mut board.host, one_more),
        Err(AddRoomError::TooManyRooms)
    );
    let first = board.host.find("0").expect("it is open");
    assert_eq!(
        board.link.add_room(&mut board.host, first),
        Ok(()),
        "adding it again is a no-op"
    );
    board.host.close(first).expect("the room is open");
    board.link.poll_closed(&mut board.host).expect("it closed");
    assert_eq!(
        board.link.add_room(&mut board.host, first),
        Err(AddRoomError::UnknownRoom)
    );
    assert_eq!(board.link.add_room(&mut board.host, one_more), Ok(()));
}
