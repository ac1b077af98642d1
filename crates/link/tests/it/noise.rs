//! What happens on the line: bytes that are changed, lost, or come from nowhere.

use super::*;
use crate::support::{Random, echo};

/// Damages a row of bytes at a place, in all ways that there are.
fn damages(bytes: &[u8], place: usize) -> [Vec<u8>; 5] {
    let changed = |byte: u8| {
        let mut bytes = bytes.to_owned();
        bytes[place] = byte;
        bytes
    };
    let (before, after) = bytes.split_at(place);
    [
        changed(bytes[place] ^ 0x10),
        changed(0),
        changed(0xff),
        [before, &after[1..]].concat(),
        [before, &[0x55], after].concat(),
    ]
}

#[test]
fn a_frame_to_the_board_survives_noise_at_each_byte() {
    let text = head(0, 1, b"a text of some length");
    let length = encode(TEXT, 0, &text).len();
    for place in 0..length {
        for way in 0..5 {
            let mut board = board(&[("", &echo())]);
            let mut bridge = Bridge::greet(&mut board, 1);
            bridge.connect(&mut board, 0, 1);
            bridge.told();
            let damaged = &damages(&encode(TEXT, bridge.next, &text), place)[way];
            bridge.put(&mut board, damaged);
            bridge.run(&mut board);
            // Damage that leaves the frame as it was is one that it did not need to be asked for.
            let got_through = damaged.ends_with(&[0])
                && decode(damaged)
                    .iter()
                    .flatten()
                    .any(|frame| frame.body == text);
            assert_eq!(
                bridge.taken.len(),
                usize::from(got_through),
                "byte {place}, way {way}"
            );
            bridge.send(&mut board, TEXT, &text);
            let said = (SAID_TEXT, "0x000101000000a text of some length".to_owned());
            assert_eq!(bridge.told(), [said], "byte {place}, way {way}");
        }
    }
}

/// What the documentation gives as an example.
#[test]
fn a_frame_goes_over_the_line_as_documented() {
    let bytes = [0, 2, 0x10, 3, 1, 7, 1, 1, 5, 0xb9, 0x52, 5, 0x5a, 0];
    let mut board = board(&[("other", &echo()), ("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.put(&mut board, &bytes);
    bridge.run(&mut board);
    assert_eq!(board.clients(""), [7]);
}

#[test]
fn the_board_asks_once_for_a_frame_that_was_damaged() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
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
    assert_eq!(bridge.control, [(RESEND, 0)]);
}

#[test]
fn frames_of_the_board_survive_noise_at_each_byte() {
    let mut place = 0;
    let mut length = usize::MAX;
    while place < length {
        for way in 0..5 {
            let mut board = board(&[("", &echo())]);
            let mut bridge = Bridge::greet(&mut board, 1);
            bridge.connect(&mut board, 0, 1);
            bridge.told();
            bridge.put(
                &mut board,
                &encode(TEXT, bridge.next, &head(0, 1, b"hello")),
            );
            board.poll();
            // The ack, and the answer of the room.
            let written = board.written();
            length = written.len();
            let frames: Vec<_> = decode(&damages(&written, place)[way])
                .into_iter()
                .flatten()
                .collect();
            frames
                .into_iter()
                .for_each(|frame| bridge.take(&mut board, &[Some(frame)]));
            bridge.put(&mut board, &encode(RESEND, bridge.expected, &[]));
            bridge.run(&mut board);
            let said = (SAID_TEXT, "0x000101000000hello".to_owned());
            assert_eq!(bridge.told(), [said], "byte {place}, way {way}");
        }
        place += 1;
    }
}

#[test]
fn what_is_not_answered_is_sent_again_after_longer_and_longer_times() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    let ping = encode(PING, bridge.expected, &[]);
    bridge.put(
        &mut board,
        &encode(TEXT, bridge.next, &head(0, 1, b"hello")),
    );
    board.poll();
    let said = decode(&board.written())
        .pop()
        .flatten()
        .expect("the room answers");
    assert_eq!(said.kind, SAID_TEXT);
    for millis in [500, 1000, 2000, 4000, 8000, 8000] {
        // The bridge is there all the time, or the session would end.
        bridge.put(&mut board, &ping);
        board.poll();
        board.written();
        let at = board.wake_at.expect("it will be sent again");
        assert_eq!(
            at.saturating_duration_since(board.now()),
            Duration::from_millis(millis)
        );
        board.advance(Duration::from_millis(millis - 1));
        assert!(board.written().is_empty());
        board.advance(Duration::from_millis(1));
        assert_eq!(decode(&board.written()), [Some(said.clone())]);
    }
    bridge.take(&mut board, &[Some(said)]);
    bridge.run(&mut board);
    board.advance(Duration::from_secs(9));
    assert!(board.written().is_empty());
}

#[test]
fn a_frame_that_was_cut_does_no_harm_to_the_next() {
    let connect = encode(CONNECT, 0, &head(0, 1, &[]));
    for length in 0..connect.len() {
        let mut board = board(&[("", &echo())]);
        let mut bridge = Bridge::greet(&mut board, 1);
        bridge.told();
        bridge.put(&mut board, &connect[..length]);
        board.poll();
        bridge.connect(&mut board, 0, 1);
        assert_eq!(
            bridge.told(),
            told([(JOINED, "0x0001000000")]),
            "cut at {length}"
        );
    }
}

#[test]
fn bytes_between_frames_do_no_harm() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    for i in 0..100 {
        let length = random.below(2 * BUFFER);
        bridge.put(&mut board, &random.bytes(length));
        bridge.text(&mut board, 0, 1, &i.to_string());
        assert_eq!(
            bridge.told(),
            vec![(SAID_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn a_frame_that_comes_twice_happens_once() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    bridge.control.clear();
    let number = bridge.next;
    for _ in 0..3 {
        bridge.put(&mut board, &encode(TEXT, number, &head(0, 1, b"once")));
        bridge.run(&mut board);
    }
    assert_eq!(bridge.told(), told([(SAID_TEXT, "0x000101000000once")]));
    assert_eq!(bridge.control, [(ACK, number + 1); 3]);
}

#[test]
fn numbers_go_round() {
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    for i in 0..1000 {
        bridge.text(&mut board, 0, 1, &i.to_string());
        assert_eq!(
            bridge.told(),
            vec![(SAID_TEXT, format!("0x000101000000{i}"))]
        );
    }
}

#[test]
fn messages_of_each_length_and_content_come_as_they_were_sent() {
    let mut random = Random::new();
    let mut board = board(&[("", &echo())]);
    let mut bridge = Bridge::greet(&mut board, 1);
    bridge.connect(&mut board, 0, 1);
    bridge.told();
    for length in 0..490 {
        // Long runs without a zero, and rows of zeros.
        let bytes = match length % 3 {
            0 => random.bytes(length),
            1 => vec![0; length],
            _ => vec![0xff; length],
        };
        bridge.send(&mut board, BYTES, &head(0, 1, &bytes));
        let frame = bridge.taken.pop().expect("an echo answers");
        assert_eq!(
            (frame.kind, &frame.body[6..]),
            (SAID_BYTES, &bytes[..]),
            "length {length}"
        );
    }
}
