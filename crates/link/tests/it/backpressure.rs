//! Backpressure: a slow wire, a slow room, a slow bridge.

use super::*;
use crate::support::{echo, speaker};
use stateroom_wasmi_link::{LinkOptions, buffer_bytes};

/// The echoes of the numbers below `end`.
fn echoes(end: usize) -> Vec<(u8, String)> {
    (0..end)
        .map(|i| (OUTPUT_TEXT, format!("0x000101000000{i}")))
        .collect()
}

#[test]
fn short_writes_are_continued() {
    for at_once in 1..20 {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::connect_to(&mut board, 1);
        bridge.connect(&mut board, 0, 1);
        bridge.take_messages();
        board.link.wire_mut().at_once = at_once;
        for i in 0..20 {
            bridge.text(&mut board, 0, 1, &i.to_string());
        }
        assert_eq!(bridge.take_messages(), echoes(20));
    }
}

#[test]
fn a_wire_that_is_full_at_any_byte_loses_nothing() {
    for space in 0..100 {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::connect_to(&mut board, 1);
        bridge.connect(&mut board, 0, 1);
        bridge.take_messages();
        board.link.wire_mut().space = space;
        for number in 0..5 {
            let text = head(0, 1, number.to_string().as_bytes());
            bridge.put(&mut board, &encode(TEXT, bridge.next + number, &text));
            board.poll();
        }
        assert_eq!(board.written().len(), space);
        assert!(board.link.wants_write(&mut board.host));
        board.link.wire_mut().space = usize::MAX;
        // All but the partly written frame was lost on the line.
        bridge.put(&mut board, &encode(REJ, bridge.expected, &[]));
        board.poll();
        let frames = decode(&board.written());
        frames
            .into_iter()
            .flatten()
            .for_each(|frame| bridge.receive(&mut board, &[Some(frame)]));
        bridge.run(&mut board);
        assert_eq!(
            bridge.take_messages(),
            echoes(5),
            "full after {space} bytes"
        );
        assert!(!board.link.wants_write(&mut board.host));
    }
}

#[test]
fn a_full_inbox_makes_the_bridge_wait() {
    // Each message takes ten thousand iterations of a loop; each poll runs one slice.
    let slow = speaker(
        &[(
            "message",
            "(local $i i32)
            (loop $again
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 10000))))
            (call $send_message (local.get 0) (local.get 1) (local.get 2))",
        )],
        "",
    );
    let limits = limits(|limits| {
        limits.max_inbox_events = 2;
        limits.fuel_per_slice = 1000;
    });
    let mut board = board_with(&[("", &slow)], &limits);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.control.clear();

    // Ten at once, retransmitted from where the board's REJ says.
    let first = bridge.next;
    let frame = |number: u8| {
        encode(
            TEXT,
            first + number,
            &head(0, 1, number.to_string().as_bytes()),
        )
    };
    let all_from = |number: u8| (number..10).flat_map(frame).collect::<Vec<_>>();
    bridge.put(&mut board, &all_from(0));
    let mut rnr_count = 0;
    for _ in 0..10_000 {
        let Ok(_) = board.link.poll(&mut board.host, Budget::fuel(1));
        let written = board.written();
        bridge.receive(&mut board, &decode(&written));
        for (kind, number) in std::mem::take(&mut bridge.control) {
            match kind {
                RNR => rnr_count += 1,
                REJ => bridge.put(&mut board, &all_from(number - first)),
                _ => {}
            }
        }
        if bridge.accepted.len() == 10 {
            break;
        }
    }
    assert_eq!(bridge.take_messages(), echoes(10));
    assert!(rnr_count >= 3, "{rnr_count} RNR frames");
}

#[test]
fn a_message_that_the_room_never_accepts_is_refused() {
    let limits = limits(|limits| limits.max_message_bytes = 10);
    let mut board = board_with(&[("", &echo())], &limits);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.text(&mut board, 0, 1, "elevenbytes");
    assert_eq!(
        bridge.take_messages(),
        messages([(REFUSED, "0x000100000003")])
    );
}

#[test]
fn a_bridge_that_does_not_acknowledge_makes_the_rooms_wait() {
    // Forty messages of forty bytes do not fit into the buffer.
    let many = speaker(
        &[(
            "connect",
            "(local $i i32)
            (loop $again
                (i32.store (i32.const 64) (local.get $i))
                (call $send_binary (i32.const 0) (i32.const 64) (i32.const 40))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 40))))",
        )],
        "",
    );
    let mut board = board(&[("", &many)]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.take_messages();
    bridge.put(&mut board, &encode(CONNECT, 0, &head(0, 1, &[])));
    board.poll();
    assert!(board.host.is_blocked());
    let written = board.written();
    assert!(
        (BUFFER / 2..BUFFER + 20).contains(&written.len()),
        "{} bytes",
        written.len()
    );
    bridge.receive(&mut board, &decode(&written));
    bridge.run(&mut board);
    assert!(!board.host.is_blocked());
    let numbers: Vec<_> = bridge
        .accepted
        .drain(..)
        .filter(|frame| frame.kind == OUTPUT_BYTES)
        .map(|frame| frame.body[6])
        .collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

#[test]
fn the_window_of_the_bridge_is_respected() {
    let window = 60;
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.put(&mut board, &encode(HELLO, 0, &hello(1, 2, 4096, window)));
    board.poll();
    let frames = decode(&board.written());
    (bridge.next, bridge.expected) = (0, 0);
    bridge.receive(&mut board, &frames[1..]);
    bridge.run(&mut board);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    for number in 0..10 {
        bridge.put(
            &mut board,
            &encode(
                TEXT,
                bridge.next + number,
                &head(0, 1, number.to_string().as_bytes()),
            ),
        );
    }
    board.poll();
    let mut rounds = 0;
    while bridge.accepted.len() < 10 {
        let written = board.written();
        let frames: Vec<_> = decode(&written)
            .into_iter()
            .flatten()
            .filter(|frame| frame.kind >= 0x10)
            .collect();
        let bytes: usize = frames
            .iter()
            .map(|frame| encode(frame.kind, frame.sequence, &frame.body).len())
            .sum();
        assert!(bytes <= window as usize, "{bytes} unacknowledged bytes");
        bridge.receive(&mut board, &decode(&written));
        board.poll();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(bridge.take_messages(), echoes(10));
    assert!(rounds >= 4);
}

#[test]
fn an_output_too_long_for_the_bridge_is_dropped_alone() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.put(&mut board, &encode(HELLO, 0, &hello(1, 2, 30, 4096)));
    board.poll();
    board.written();
    (bridge.next, bridge.expected) = (0, 0);
    bridge.put(&mut board, &encode(ACK, 1, &[]));
    bridge.expected = 1;
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.text(&mut board, 0, 1, &"x".repeat(25));
    bridge.text(&mut board, 0, 1, &"x".repeat(24));
    assert_eq!(
        bridge.take_messages(),
        vec![(OUTPUT_TEXT, format!("0x000101000000{}", "x".repeat(24)))]
    );
}

#[test]
fn buffer_bytes_is_enough_for_its_message() {
    const LONGEST: usize = 2000;
    const LONG: usize = buffer_bytes(LONGEST);
    let mut host = Host::new(ManualClock::new(), LinkTransport::<LONG>::new());
    let wire = Queues {
        to_board: VecDeque::new(),
        from_board: Vec::new(),
        space: usize::MAX,
        at_once: usize::MAX,
    };
    let mut link = Link::<_, LONG>::with_options(wire, LinkOptions::default());
    let room = host
        .open("", &crate::support::module(&echo()))
        .expect("the room opens");
    link.add_room(&mut host, room)
        .expect("the link has capacity");
    let mut message = head(0, 1, &[0xff; LONGEST]);
    let frames = [
        encode(HELLO, 0, &hello(1, 1, 10_000, 10_000)),
        encode(CONNECT, 0, &head(0, 1, &[])),
        encode(BYTES, 1, &message),
    ];
    link.wire_mut().to_board.extend(frames.concat());
    // The buffer holds one frame of this length, so each waits for its acknowledgement.
    let mut accepted: Vec<Frame> = Vec::new();
    for _ in 0..10 {
        let Ok(_) = link.poll(&mut host, Budget::UNLIMITED);
        let frames = decode(&std::mem::take(&mut link.wire_mut().from_board));
        accepted.extend(
            frames
                .into_iter()
                .flatten()
                .filter(|frame| frame.kind >= 0x10),
        );
        let expected = accepted.last().map_or(0, |frame| frame.sequence + 1);
        link.wire_mut().to_board.extend(encode(ACK, expected, &[]));
    }
    message.insert(1, 1);
    assert_eq!(accepted.pop().map(|frame| frame.body), Some(message));
    assert_eq!(buffer_bytes(0), 256);
}
