//! A bridge that means harm.

use super::*;
use crate::support::{Random, echo};

/// The board is as it should be: whoever greets is served.
fn assert_serves(board: &mut Board, session: u32) {
    let mut bridge = Bridge::greet(board, session);
    bridge.run(board);
    bridge.told();
    bridge.connect(board, 0, 1);
    bridge.text(board, 0, 1, "hello");
    assert_eq!(
        bridge.told(),
        told([(JOINED, "0x0001000000"), (SAID_TEXT, "0x000101000000hello")])
    );
}

#[test]
fn random_bytes_do_no_harm() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    for round in 1..50 {
        for _ in 0..100 {
            let length = random.below(200);
            board.link.wire_mut().to_board.extend(random.bytes(length));
            board.poll();
            board.written();
        }
        // End what has begun.
        board.link.wire_mut().to_board.push_back(0);
        assert_serves(&mut board, round);
    }
}

#[test]
fn random_frames_that_are_whole_do_no_harm() {
    let mut random = Random::new();
    let small = limits(|limits| {
        limits.max_clients = 4;
        limits.max_inbox_events = 2;
        limits.max_message_bytes = 64;
    });
    let mut board = board_with(&[("", &echo()), ("other", &echo())], &small);
    let kinds = [
        HELLO, ACK, RESEND, BUSY, PING, CONNECT, DISCONNECT, TEXT, BYTES, ROOM, CLOSED, JOINED,
        SAID_TEXT, 0, 255,
    ];
    let mut number = 0;
    for round in 0..20_000_u32 {
        let kind = kinds[random.below(kinds.len())];
        // Now and then the right number, so that frames are taken, and small rooms and clients.
        let number_sent = if random.below(3) > 0 {
            number
        } else {
            random.next() as u8
        };
        let body = match random.below(4) {
            0 => {
                let length = random.below(BUFFER);
                random.bytes(length)
            }
            1 if kind == HELLO => hello(
                1,
                random.below(3) as u32,
                random.next() as u32,
                random.next() as u32,
            ),
            _ => head(
                random.below(3) as u8,
                random.below(6) as u32,
                &[b'x'; 70][..random.below(70)],
            ),
        };
        board
            .link
            .wire_mut()
            .to_board
            .extend(encode(kind, number_sent, &body));
        board.poll();
        // The board says which number is next.
        for frame in decode(&board.written()).iter().flatten() {
            match frame.kind {
                ACK | RESEND | BUSY => number = frame.number,
                HELLO => number = 0,
                _ => {}
            }
        }
        if round % 1000 == 999 {
            board.host.clock().advance(Duration::from_secs(1));
            assert_serves(&mut board, 1_000_000 + round);
            number = 0;
        }
    }
}

#[test]
fn frames_that_are_too_long_or_never_end_do_no_harm() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    for length in [BUFFER - 20, BUFFER - 1, BUFFER, BUFFER + 1, 100 * BUFFER] {
        bridge.put(
            &mut board,
            &encode(TEXT, bridge.next, &head(0, 1, &vec![b'x'; length])),
        );
        bridge.put(&mut board, &vec![0x11; length]);
        bridge.run(&mut board);
        bridge.told();
        // Some of these were whole, and are counted.
        let (_, next) = *bridge.control.last().expect("the board answers");
        bridge.next = next;
        bridge.text(&mut board, 0, 1, "hello");
        assert_eq!(
            bridge.told(),
            told([(SAID_TEXT, "0x000101000000hello")]),
            "{length}"
        );
    }
}

#[test]
fn whoever_sends_without_end_does_not_keep_the_host_from_its_work() {
    let mut board = board(&[("", &echo())]);
    Bridge::greet(&mut board, 1);
    board
        .link
        .wire_mut()
        .to_board
        .extend(vec![0x11; 100 * BUFFER]);
    let Ok(wake_at) = board.link.poll(&mut board.host, Budget::UNLIMITED);
    let left = board.link.wire_mut().to_board.len();
    assert!(
        (98 * BUFFER..100 * BUFFER).contains(&left),
        "{left} bytes are left"
    );
    assert_eq!(wake_at, Some(Instant::ZERO), "there is more to read");
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_not_believed() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    for ahead in 1..=255 {
        bridge.put(
            &mut board,
            &encode(ACK, bridge.expected.wrapping_add(ahead), &[]),
        );
        bridge.run(&mut board);
    }
    for i in 0..3 {
        bridge.text(&mut board, 0, 1, &i.to_string());
        assert_eq!(
            bridge.told(),
            vec![(SAID_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn connects_without_end_are_bounded() {
    // The room never comes to its connects, since its first event never ends within this test.
    let endless = crate::support::speaker(&[("connect", "(loop $again (br $again))")], "");
    let limits = limits(|limits| {
        limits.max_fuel_per_event = Some(u64::MAX);
        limits.fuel_per_slice = 100;
    });
    let mut board = board_with(&[("", &endless)], &limits);
    let bridge = Bridge::greet(&mut board, 1);
    for number in 0..100 {
        bridge.put(
            &mut board,
            &encode(CONNECT, number, &head(0, u32::from(number) + 1, &[])),
        );
        let Ok(_) = board.link.poll(&mut board.host, Budget::fuel(1));
    }
    assert_eq!(
        board.clients("").len(),
        9,
        "one whose turn it is, and eight that wait"
    );
    let control: Vec<_> = decode(&board.written())
        .into_iter()
        .flatten()
        .filter(|frame| frame.kind == BUSY)
        .collect();
    assert!(control.iter().all(|frame| frame.number == 9), "{control:?}");
    assert!(!control.is_empty());
}
