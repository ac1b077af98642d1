//! A hostile bridge.

use super::*;
use crate::support::{Random, echo};

/// A new session works.
fn assert_serves(board: &mut Board, session: u32) {
    let mut bridge = Bridge::connect_to(board, session);
    bridge.run(board);
    bridge.take_messages();
    bridge.connect(board, 0, 1);
    bridge.text(board, 0, 1, "hello");
    assert_eq!(
        bridge.take_messages(),
        messages([
            (JOINED, "0x0001000000"),
            (OUTPUT_TEXT, "0x000101000000hello")
        ])
    );
}

#[test]
fn random_bytes_are_survived() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    for round in 1..50 {
        for _ in 0..100 {
            let length = random.below(200);
            board.link.wire_mut().to_board.extend(random.bytes(length));
            board.poll();
            board.written();
        }
        // End the last frame.
        board.link.wire_mut().to_board.push_back(0);
        assert_serves(&mut board, round);
    }
}

#[test]
fn random_valid_frames_are_survived() {
    let mut random = Random::new();
    let small = limits(|limits| {
        limits.max_clients = 4;
        limits.max_inbox_events = 2;
        limits.max_message_bytes = 64;
    });
    let mut board = board_with(&[("", &echo()), ("other", &echo())], &small);
    let kinds = [
        HELLO,
        ACK,
        REJ,
        RNR,
        PING,
        CONNECT,
        DISCONNECT,
        TEXT,
        BYTES,
        ROOM_OPENED,
        ROOM_CLOSED,
        JOINED,
        OUTPUT_TEXT,
        0,
        255,
    ];
    let mut sequence = 0;
    for round in 0..20_000_u32 {
        let kind = kinds[random.below(kinds.len())];
        // Mostly the expected sequence sequence, so that frames are accepted, and small rooms and clients.
        let sequence_sent = if random.below(3) > 0 {
            sequence
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
            .extend(encode(kind, sequence_sent, &body));
        board.poll();
        // The replies have the expected sequence sequence.
        for frame in decode(&board.written()).iter().flatten() {
            match frame.kind {
                ACK | REJ | RNR => sequence = frame.sequence,
                HELLO => sequence = 0,
                _ => {}
            }
        }
        if round % 1000 == 999 {
            board.host.clock().advance(Duration::from_secs(1));
            assert_serves(&mut board, 1_000_000 + round);
            sequence = 0;
        }
    }
}

#[test]
fn frames_that_are_too_long_or_never_end_are_dropped() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    for length in [BUFFER - 20, BUFFER - 1, BUFFER, BUFFER + 1, 100 * BUFFER] {
        bridge.put(
            &mut board,
            &encode(TEXT, bridge.next, &head(0, 1, &vec![b'x'; length])),
        );
        bridge.put(&mut board, &vec![0x11; length]);
        bridge.run(&mut board);
        bridge.take_messages();
        // Some of these were valid and accepted.
        let (_, next) = *bridge.control.last().expect("the board replies");
        bridge.next = next;
        bridge.text(&mut board, 0, 1, "hello");
        assert_eq!(
            bridge.take_messages(),
            messages([(OUTPUT_TEXT, "0x000101000000hello")]),
            "{length}"
        );
    }
}

#[test]
fn an_endless_stream_does_not_starve_the_host() {
    let mut board = board(&[("", &echo())]);
    Bridge::connect_to(&mut board, 1);
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
fn acknowledgements_of_unsent_frames_are_ignored() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
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
            bridge.take_messages(),
            vec![(OUTPUT_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn pending_connects_are_bounded_by_the_inbox() {
    // The first connect runs longer than this test, so the others wait.
    let endless = crate::support::speaker(&[("connect", "(loop $again (br $again))")], "");
    let limits = limits(|limits| {
        limits.max_fuel_per_event = Some(u64::MAX);
        limits.fuel_per_slice = 100;
        limits.max_inbox_events = 8;
    });
    let mut board = board_with(&[("", &endless)], &limits);
    let bridge = Bridge::connect_to(&mut board, 1);
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
        "one that the room handles, and eight that wait"
    );
    let control: Vec<_> = decode(&board.written())
        .into_iter()
        .flatten()
        .filter(|frame| frame.kind == RNR)
        .collect();
    assert!(
        control.iter().all(|frame| frame.sequence == 9),
        "{control:?}"
    );
    assert!(!control.is_empty());
}
