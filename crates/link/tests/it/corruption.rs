//! Bytes that the line changes, drops or inserts.

use super::*;
use crate::support::{Random, echo};

/// Bytes with one of them changed, dropped or inserted, in five variants.
fn damages(bytes: &[u8], index: usize) -> [Vec<u8>; 5] {
    let changed = |byte: u8| {
        let mut bytes = bytes.to_owned();
        bytes[index] = byte;
        bytes
    };
    let (before, after) = bytes.split_at(index);
    [
        changed(bytes[index] ^ 0x10),
        changed(0),
        changed(0xff),
        [before, &after[1..]].concat(),
        [before, &[0x55], after].concat(),
    ]
}

#[test]
fn a_frame_to_the_board_survives_damage_at_each_byte() {
    let text = head(0, 1, b"a text of some length");
    let length = encode(TEXT, 0, &text).len();
    for index in 0..length {
        for variant in 0..5 {
            let mut board = board(&[("", &echo())]);
            let mut bridge = Bridge::connect_to(&mut board, 1);
            bridge.connect(&mut board, 0, 1);
            bridge.take_messages();
            let damaged = &damages(&encode(TEXT, bridge.next, &text), index)[variant];
            bridge.put(&mut board, damaged);
            bridge.run(&mut board);
            // Some damage leaves the frame intact.
            let is_intact = damaged.ends_with(&[0])
                && decode(damaged)
                    .iter()
                    .flatten()
                    .any(|frame| frame.body == text);
            assert_eq!(
                bridge.accepted.len(),
                usize::from(is_intact),
                "byte {index}, variant {variant}"
            );
            bridge.send(&mut board, TEXT, &text);
            let echo = (
                OUTPUT_TEXT,
                "0x000101000000a text of some length".to_owned(),
            );
            assert_eq!(
                bridge.take_messages(),
                [echo],
                "byte {index}, variant {variant}"
            );
        }
    }
}

/// The example of `PROTOCOL.md`.
#[test]
fn the_documented_example_is_accepted() {
    let bytes = [0, 2, 0x10, 3, 1, 7, 1, 1, 5, 0xb9, 0x52, 5, 0x5a, 0];
    let mut board = board(&[("other", &echo()), ("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.put(&mut board, &bytes);
    bridge.run(&mut board);
    assert_eq!(board.clients(""), [7]);
}

#[test]
fn the_board_sends_one_rej_for_a_damaged_frame() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.control.clear();
    let frames: Vec<_> = (0..4)
        .map(|number| encode(CONNECT, number, &head(0, number.into(), &[])))
        .collect();
    let mut damaged = frames[0].clone();
    damaged[3] ^= 1;
    for frame in [&damaged].into_iter().chain(&frames[1..]) {
        bridge.put(&mut board, frame);
        bridge.run(&mut board);
    }
    assert_eq!(bridge.control, [(REJ, 0)]);
}

#[test]
fn frames_from_the_board_survive_damage_at_each_byte() {
    let mut index = 0;
    let mut length = usize::MAX;
    while index < length {
        for variant in 0..5 {
            let mut board = board(&[("", &echo())]);
            let mut bridge = Bridge::connect_to(&mut board, 1);
            bridge.connect(&mut board, 0, 1);
            bridge.take_messages();
            bridge.put(
                &mut board,
                &encode(TEXT, bridge.next, &head(0, 1, b"hello")),
            );
            board.poll();
            // The ack, and the echo.
            let written = board.written();
            length = written.len();
            let frames: Vec<_> = decode(&damages(&written, index)[variant])
                .into_iter()
                .flatten()
                .collect();
            frames
                .into_iter()
                .for_each(|frame| bridge.receive(&mut board, &[Some(frame)]));
            bridge.put(&mut board, &encode(REJ, bridge.expected, &[]));
            bridge.run(&mut board);
            let echo = (OUTPUT_TEXT, "0x000101000000hello".to_owned());
            assert_eq!(
                bridge.take_messages(),
                [echo],
                "byte {index}, variant {variant}"
            );
        }
        index += 1;
    }
}

#[test]
fn retransmission_backs_off_exponentially() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    let ping = encode(PING, bridge.expected, &[]);
    bridge.put(
        &mut board,
        &encode(TEXT, bridge.next, &head(0, 1, b"hello")),
    );
    board.poll();
    let echo = decode(&board.written()).pop().flatten().expect("an echo");
    assert_eq!(echo.kind, OUTPUT_TEXT);
    for millis in [500, 1000, 2000, 4000, 8000, 8000] {
        // Keep the session alive.
        bridge.put(&mut board, &ping);
        board.poll();
        board.written();
        let at = board.wake_at.expect("a retransmission is due");
        assert_eq!(
            at.saturating_duration_since(board.now()),
            Duration::from_millis(millis)
        );
        board.advance(Duration::from_millis(millis - 1));
        assert!(board.written().is_empty());
        board.advance(Duration::from_millis(1));
        assert_eq!(decode(&board.written()), [Some(echo.clone())]);
    }
    bridge.receive(&mut board, &[Some(echo)]);
    bridge.run(&mut board);
    board.advance(Duration::from_secs(9));
    assert!(board.written().is_empty());
}

#[test]
fn a_truncated_frame_does_not_affect_the_next() {
    let connect = encode(CONNECT, 0, &head(0, 1, &[]));
    for length in 0..connect.len() {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::connect_to(&mut board, 1);
        bridge.take_messages();
        bridge.put(&mut board, &connect[..length]);
        board.poll();
        bridge.connect(&mut board, 0, 1);
        assert_eq!(
            bridge.take_messages(),
            messages([(JOINED, "0x0001000000")]),
            "truncated at {length}"
        );
    }
}

#[test]
fn garbage_between_frames_is_skipped() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    for i in 0..100 {
        let length = random.below(2 * BUFFER);
        bridge.put(&mut board, &random.bytes(length));
        bridge.text(&mut board, 0, 1, &i.to_string());
        assert_eq!(
            bridge.take_messages(),
            vec![(OUTPUT_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn duplicates_are_dropped_and_acknowledged() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    bridge.control.clear();
    let number = bridge.next;
    for _ in 0..3 {
        bridge.put(&mut board, &encode(TEXT, number, &head(0, 1, b"once")));
        bridge.run(&mut board);
    }
    assert_eq!(
        bridge.take_messages(),
        messages([(OUTPUT_TEXT, "0x000101000000once")])
    );
    assert_eq!(bridge.control, [(ACK, number + 1); 3]);
}

#[test]
fn sequence_numbers_wrap_around() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    for i in 0..1000 {
        bridge.text(&mut board, 0, 1, &i.to_string());
        assert_eq!(
            bridge.take_messages(),
            vec![(OUTPUT_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn messages_of_any_length_and_content_arrive_intact() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.take_messages();
    for length in 0..490 {
        // Long runs without a zero, and of zeros: the edge cases of COBS.
        let bytes = match length % 3 {
            0 => random.bytes(length),
            1 => vec![0; length],
            _ => vec![0xff; length],
        };
        bridge.send(&mut board, BYTES, &head(0, 1, &bytes));
        let frame = bridge.accepted.pop().expect("an echo");
        assert_eq!(
            (frame.kind, &frame.body[6..]),
            (OUTPUT_BYTES, &bytes[..]),
            "length {length}"
        );
    }
}
