//! Rooms that go to the bridge and come from it.

use super::*;
use crate::support::{Random, assemble, speaker};
use stateroom_wasmi_host::{
    Event, LoadOptions, MessagePayload, Module, Output, Room, SnapshotOptions,
};
use stateroom_wasmi_link::{IncomingSnapshot, LinkOptions, LoadRoomError};

const SAVE: u8 = 0x14;
const RELEASE: u8 = 0x15;
const LOAD: u8 = 0x16;
const LOAD_PIECE: u8 = 0x17;
const TRANSFERS: u8 = 0x26;
const SAVED: u8 = 0x27;
const SAVED_PIECE: u8 = 0x28;
const LOAD_READY: u8 = 0x29;
const LOADED: u8 = 0x2a;
const TRANSFER_REFUSED: u8 = 0x2b;

const NO_SUCH_ROOM: u8 = 1;
const TOO_LONG: u8 = 2;
const BUSY: u8 = 4;
const DAMAGED: u8 = 5;
const REJECTED: u8 = 6;
const CANNOT_SAVE: u8 = 7;
/// The reason of a refused event.
const HELD: u8 = 7;

const HEAP_BYTES: usize = 256 << 10;
const OPTIONS: SnapshotOptions = SnapshotOptions::new();

/// Sends the count of messages, and of a timer that a connect sets. Payloads stay in its memory.
fn counting() -> String {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (call $say (global.get $count))";
    speaker(
        &[
            ("message", count),
            ("binary", count),
            ("connect", "(call $set_timer (i32.const 10))"),
            ("timer", count),
        ],
        "(global $count (mut i32) (i32.const 0))",
    )
}

fn saved_module() -> Module {
    let options = LoadOptions::new().snapshots(true);
    Module::load_with(&assemble(&counting()), &Limits::default(), options).expect("it loads")
}

/// A board that saves and loads rooms; it has one if it is given an id.
fn transferring(id: Option<&str>, heap_bytes: usize) -> Board {
    let wire = Queues {
        to_board: VecDeque::new(),
        from_board: Vec::new(),
        space: usize::MAX,
        at_once: usize::MAX,
    };
    let options = LinkOptions::new().transfer_heap_bytes(heap_bytes);
    let mut board = Board {
        host: Host::new(ManualClock::new(), LinkTransport::new()),
        link: Link::with_options(wire, options),
        wake_at: None,
    };
    if let Some(id) = id {
        let room = board
            .host
            .open(id, &saved_module())
            .expect("the room opens");
        board
            .link
            .add_room(&mut board.host, room)
            .expect("there is space");
    }
    board
}

/// A board with a room in which client 1 has said something long.
fn board_and_bridge() -> (Board, Bridge) {
    let mut board = transferring(Some("r"), HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.run(&mut board);
    bridge.connect(&mut board, 0, 1);
    bridge.send(&mut board, BYTES, &head(0, 1, &noise(400)));
    bridge.run(&mut board);
    bridge.accepted.clear();
    (board, bridge)
}

/// What LZ4 cannot make shorter.
fn noise(length: usize) -> Vec<u8> {
    Random::new().bytes(length)
}

fn crc(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

fn save_body(room: u8, hold: bool, from: u32, checksum: u32) -> Vec<u8> {
    let numbers = [from, checksum].map(u32::to_le_bytes).concat();
    [&[room, hold.into()][..], &numbers].concat()
}

/// The snapshot in the frames that the bridge has accepted, which may come with others.
fn snapshot(bridge: &Bridge, expected_hold: bool) -> Vec<u8> {
    let mut incoming: Option<IncomingSnapshot> = None;
    for frame in &bridge.accepted {
        let number = |at: usize| {
            let bytes = frame.body[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        match frame.kind {
            SAVED => {
                assert_eq!(frame.body[1], u8::from(expected_hold));
                incoming = Some(IncomingSnapshot::new(number(2) as usize, number(6)));
            }
            SAVED_PIECE => incoming
                .as_mut()
                .expect("it was announced")
                .push(number(0), &frame.body[4..])
                .expect("the pieces are in order"),
            _ => {}
        }
    }
    let incoming = incoming.expect("it was announced");
    incoming.into_bytes().expect("it is whole")
}

fn save(board: &mut Board, bridge: &mut Bridge, hold: bool) -> Vec<u8> {
    bridge.accepted.clear();
    bridge.send(board, SAVE, &save_body(0, hold, 0, 0));
    bridge.run(board);
    snapshot(bridge, hold)
}

#[track_caller]
fn assert_transfer_refused(bridge: &mut Bridge, reason: u8) -> String {
    let frames = std::mem::take(&mut bridge.accepted);
    let refused = frames.iter().find(|frame| frame.kind == TRANSFER_REFUSED);
    let refused = refused.unwrap_or_else(|| panic!("{frames:?}"));
    assert_eq!(refused.body[0], reason, "{refused:?}");
    String::from_utf8(refused.body[1..].to_vec()).expect("it is a text")
}

/// The counts that the bridge has received.
fn counts(bridge: &mut Bridge) -> Vec<u8> {
    let frames = std::mem::take(&mut bridge.accepted);
    let outputs = frames.iter().filter(|frame| frame.kind == OUTPUT_BYTES);
    outputs.map(|frame| frame.body[6]).collect()
}

fn load_head(snapshot: &[u8]) -> Vec<u8> {
    let numbers = [snapshot.len() as u32, crc(snapshot)];
    [numbers.map(u32::to_le_bytes).concat(), vec![0]].concat()
}

fn send_pieces(board: &mut Board, bridge: &mut Bridge, snapshot: &[u8], from: usize, to: usize) {
    for at in (from..to).step_by(100) {
        let piece = &snapshot[at..to.min(at + 100)];
        let body = [&(at as u32).to_le_bytes(), piece].concat();
        bridge.send(board, LOAD_PIECE, &body);
    }
}

/// Sends a whole snapshot, which the firmware has to load or refuse then.
fn send_snapshot(board: &mut Board, bridge: &mut Bridge, snapshot: &[u8]) {
    bridge.send(board, LOAD, &load_head(snapshot));
    bridge.run(board);
    let ready = bridge
        .accepted
        .pop()
        .map(|frame| (frame.kind, hex(&frame.body)));
    assert_eq!(ready, Some((LOAD_READY, "0x00000000".into())));
    send_pieces(board, bridge, snapshot, 0, snapshot.len());
}

#[test]
fn a_board_says_what_it_takes() {
    let mut board = transferring(Some("r"), HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.run(&mut board);
    let kinds: Vec<_> = bridge.accepted.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [ROOM_OPENED, TRANSFERS]);
    let longest = u32::try_from(HEAP_BYTES).expect("it fits").to_le_bytes();
    assert_eq!(bridge.accepted[1].body, longest);

    // One that takes nothing is one that does not know of it.
    let mut board = transferring(Some("r"), 0);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    for kind in [SAVE, LOAD, RELEASE] {
        bridge.send(&mut board, kind, &save_body(0, true, 0, 0));
    }
    bridge.connect(&mut board, 0, 1);
    bridge.run(&mut board);
    let kinds: Vec<_> = bridge.accepted.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [ROOM_OPENED, JOINED]);
}

#[test]
fn a_room_that_is_saved_goes_on() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, false);
    let saved = Room::load(&saved_module(), &bytes, OPTIONS).expect("it loads");
    assert_eq!(saved.clients().len(), 1);
    assert!(bytes.len() > 400, "in several pieces");
    bridge.accepted.clear();
    bridge.text(&mut board, 0, 1, "again");
    bridge.run(&mut board);
    assert_eq!(counts(&mut bridge), [2]);
    // It can be saved again, and the snapshot has what came since.
    let later = save(&mut board, &mut bridge, false);
    let later = Room::load(&saved_module(), &later, OPTIONS).expect("it loads");
    assert_eq!(later.stats().messages_in, saved.stats().messages_in + 1);
}

#[test]
fn a_held_room_waits_and_goes_on_where_it_was() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, true);
    bridge.accepted.clear();
    // Its timer has come due, and clients speak, come and go.
    board.advance(Duration::from_millis(100));
    bridge.text(&mut board, 0, 1, "too early");
    bridge.connect(&mut board, 0, 2);
    bridge.run(&mut board);
    let refused: Vec<_> = bridge
        .accepted
        .iter()
        .map(|frame| (frame.kind, *frame.body.last().expect("a reason")))
        .collect();
    assert_eq!(refused, [(REFUSED, HELD), (REFUSED, HELD)]);
    let again = save(&mut board, &mut bridge, true);
    assert_eq!(again, bytes, "nothing has happened in it");

    bridge.accepted.clear();
    bridge.send(&mut board, RELEASE, &[0, 0]);
    bridge.run(&mut board);
    assert_eq!(counts(&mut bridge), [2], "the timer fires once, late");
    bridge.text(&mut board, 0, 1, "now");
    bridge.run(&mut board);
    assert_eq!(counts(&mut bridge), [3]);
    assert!(board.link.poll_moved().is_none());
}

#[test]
fn a_client_that_leaves_a_held_room_has_left_it() {
    let (mut board, mut bridge) = board_and_bridge();
    save(&mut board, &mut bridge, true);
    bridge.send(&mut board, DISCONNECT, &head(0, 1, &[]));
    bridge.send(&mut board, RELEASE, &[0, 0]);
    bridge.run(&mut board);
    assert!(board.clients("r").is_empty());
}

#[test]
fn a_room_goes_from_board_to_board_and_loses_nothing() {
    let (mut board, mut bridge) = board_and_bridge();
    // An event that waits goes along.
    bridge.text(&mut board, 0, 1, "hello");
    let bytes = save(&mut board, &mut bridge, true);
    bridge.accepted.clear();
    bridge.send(&mut board, RELEASE, &[0, 1]);
    bridge.run(&mut board);
    let kinds: Vec<_> = bridge.accepted.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [ROOM_CLOSED]);
    assert_eq!(&*board.link.poll_moved().expect("it has gone").id, "r");
    assert!(board.host.find("r").is_none());

    let mut other = transferring(None, HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut other, 5);
    send_snapshot(&mut other, &mut bridge, &bytes);
    let info = other.link.received_room().expect("it has come");
    assert_eq!(info.room_id, "r");
    assert_eq!(Some(info.module), saved_module().hash());
    let loaded = other.link.load(&mut other.host, &saved_module(), OPTIONS);
    loaded.expect("it is loaded");
    assert!(other.link.received_room().is_none());
    bridge.run(&mut other);
    let kinds: Vec<_> = bridge.accepted.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [TRANSFERS, ROOM_OPENED, LOADED]);
    let number = bridge.accepted[1].body[0];
    assert_eq!(bridge.accepted[2].body, [number, 0]);
    assert!(other.clients("r").is_empty(), "it is elsewhere");

    bridge.accepted.clear();
    bridge.connect(&mut other, number, 1);
    bridge.text(&mut other, number, 1, "here");
    bridge.run(&mut other);
    assert_eq!(counts(&mut bridge), [3], "two were counted before");
}

#[test]
fn a_room_that_arrives_waits_until_it_may_go_on() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, true);
    for has_moved in [0, 1] {
        let mut other = transferring(None, HEAP_BYTES);
        let mut bridge = Bridge::connect_to(&mut other, 1);
        let mut head = load_head(&bytes);
        head[8] = 1;
        bridge.send(&mut other, LOAD, &head);
        send_pieces(&mut other, &mut bridge, &bytes, 0, bytes.len());
        let loaded = other.link.load(&mut other.host, &saved_module(), OPTIONS);
        let room = loaded.expect("it is loaded");
        // Its timer comes due, and the session ends.
        other.advance(Duration::from_secs(20));
        let mut bridge = Bridge::connect_to(&mut other, 2);
        bridge.run(&mut other);
        let loaded = bridge.accepted.iter().find(|frame| frame.kind == LOADED);
        let number = loaded.expect("it says that it holds the room").body[0];
        let messages_out = |board: &Board| {
            let room = board.host.room(room).expect("it is there");
            room.stats().messages_out
        };
        let before = messages_out(&other);
        other.advance(Duration::from_secs(5));
        assert_eq!(messages_out(&other), before);
        bridge.send(&mut other, RELEASE, &[number, has_moved]);
        bridge.run(&mut other);
        match has_moved {
            0 => assert_eq!(messages_out(&other), before + 1, "its timer has fired"),
            _ => assert!(other.host.room(room).is_none()),
        }
    }
}

#[test]
fn an_interrupted_save_goes_on_where_it_was() {
    let (mut board, mut bridge) = board_and_bridge();
    let whole = save(&mut board, &mut bridge, true);
    for from in [0, 1, 200, whole.len() - 1, whole.len()] {
        // The session ends without a word, and the board notices.
        board.advance(Duration::from_secs(20));
        let mut bridge = Bridge::connect_to(&mut board, 2 + from as u32);
        bridge.run(&mut board);
        let saved = bridge.accepted.iter().find(|frame| frame.kind == SAVED);
        let saved = saved.expect("it says that the room is held");
        assert_eq!(saved.body[..2], [0, 1]);
        assert!(
            bridge
                .accepted
                .iter()
                .all(|frame| frame.kind != SAVED_PIECE)
        );
        bridge.accepted.clear();
        let body = save_body(0, true, from as u32, crc(&whole));
        bridge.send(&mut board, SAVE, &body);
        bridge.run(&mut board);
        let pieces = bridge
            .accepted
            .iter()
            .filter(|frame| frame.kind == SAVED_PIECE);
        let rest: Vec<_> = pieces.flat_map(|frame| &frame.body[4..]).copied().collect();
        assert_eq!(rest, whole[from..], "from {from}");
    }
    // Of another snapshot, or from beyond the end, all of it comes.
    board.advance(Duration::from_secs(20));
    let mut bridge = Bridge::connect_to(&mut board, 9000);
    for body in [
        save_body(0, true, 10, !crc(&whole)),
        save_body(0, true, whole.len() as u32 + 1, crc(&whole)),
    ] {
        bridge.accepted.clear();
        bridge.send(&mut board, SAVE, &body);
        bridge.run(&mut board);
        assert_eq!(snapshot(&bridge, true), whole);
    }
    bridge.send(&mut board, RELEASE, &[0, 1]);
    bridge.run(&mut board);
    assert!(board.host.find("r").is_none());
}

#[test]
fn a_room_that_was_not_sent_as_a_whole_has_not_moved() {
    let (mut board, bridge) = board_and_bridge();
    // A line on which nothing leaves the board.
    board.link.wire_mut().space = 0;
    bridge.put(
        &mut board,
        &encode(SAVE, bridge.next, &save_body(0, true, 0, 0)),
    );
    let release = encode(RELEASE, bridge.next.wrapping_add(1), &[0, 1]);
    bridge.put(&mut board, &release);
    board.poll();
    board.link.wire_mut().space = usize::MAX;
    board.advance(Duration::from_secs(1));
    assert!(board.host.find("r").is_some());
    assert!(board.link.poll_moved().is_none());

    // Nor if the session ends in the middle.
    let (mut board, mut bridge) = board_and_bridge();
    board.link.wire_mut().space = 200;
    bridge.put(
        &mut board,
        &encode(SAVE, bridge.next, &save_body(0, true, 0, 0)),
    );
    board.poll();
    board.link.wire_mut().space = usize::MAX;
    board.written();
    board.advance(Duration::from_secs(20));
    bridge = Bridge::connect_to(&mut board, 2);
    bridge.send(&mut board, RELEASE, &[0, 1]);
    bridge.connect(&mut board, 0, 1);
    assert_eq!(board.clients("r"), [1]);
}

#[test]
fn an_interrupted_load_goes_on_where_it_was() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, true);
    let mut other = transferring(None, HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut other, 1);
    bridge.send(&mut other, LOAD, &load_head(&bytes));
    send_pieces(&mut other, &mut bridge, &bytes, 0, 200);
    other.advance(Duration::from_secs(20));

    let mut bridge = Bridge::connect_to(&mut other, 2);
    bridge.send(&mut other, LOAD, &load_head(&bytes));
    bridge.run(&mut other);
    let ready = bridge.accepted.last().expect("it replies");
    assert_eq!(
        (ready.kind, &ready.body),
        (LOAD_READY, &200_u32.to_le_bytes().to_vec())
    );
    send_pieces(&mut other, &mut bridge, &bytes, 200, bytes.len());
    let loaded = other.link.load(&mut other.host, &saved_module(), OPTIONS);
    loaded.expect("it is loaded");
}

#[test]
fn what_cannot_be_saved_is_refused() {
    let (mut board, mut bridge) = board_and_bridge();
    bridge.send(&mut board, SAVE, &save_body(9, true, 0, 0));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, NO_SUCH_ROOM);
    // Bodies that are too short are of no version that is known.
    for length in 0..10 {
        let body = &save_body(0, true, 0, 0)[..length];
        bridge.send(&mut board, SAVE, body);
        bridge.send(&mut board, RELEASE, &body[..length.min(1)]);
        bridge.send(&mut board, LOAD, &body[..length.min(8)]);
        bridge.send(&mut board, LOAD_PIECE, &body[..length.min(3)]);
    }
    bridge.text(&mut board, 0, 1, "it runs");
    bridge.run(&mut board);
    assert_eq!(counts(&mut bridge), [2]);

    // The room has 64 KiB.
    let mut small = transferring(Some("r"), 128 << 10);
    let mut bridge = Bridge::connect_to(&mut small, 1);
    bridge.send(&mut small, SAVE, &save_body(0, true, 0, 0));
    bridge.run(&mut small);
    let why = assert_transfer_refused(&mut bridge, TOO_LONG);
    assert!(why.contains("131072 are allowed"), "{why}");
    bridge.connect(&mut small, 0, 1);
    bridge.text(&mut small, 0, 1, "it runs");

    let mut board = transferring(None, HEAP_BYTES);
    board.open("not for snapshots", &counting(), &Limits::default());
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.send(&mut board, SAVE, &save_body(0, true, 0, 0));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, CANNOT_SAVE);
    bridge.connect(&mut board, 0, 1);
    assert_eq!(board.clients("not for snapshots"), [1]);
}

#[test]
fn one_room_is_on_its_way_at_a_time() {
    let (mut board, mut bridge) = board_and_bridge();
    let second = board.host.open("s", &saved_module()).expect("it opens");
    let Ok(()) = board.link.add_room(&mut board.host, second) else {
        panic!("there is space");
    };
    let bytes = save(&mut board, &mut bridge, true);
    bridge.accepted.clear();
    bridge.send(&mut board, SAVE, &save_body(1, true, 0, 0));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, BUSY);
    bridge.send(&mut board, LOAD, &load_head(&bytes));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, BUSY);
    // The other room is not held, and cannot be released.
    bridge.send(&mut board, RELEASE, &[1, 1]);
    bridge.connect(&mut board, 1, 7);
    assert_eq!(board.clients("s"), [7]);
}

#[test]
fn a_held_room_that_the_firmware_closes_is_no_longer_held() {
    let (mut board, mut bridge) = board_and_bridge();
    save(&mut board, &mut bridge, true);
    let room = board.host.find("r").expect("it is open");
    board.host.discard(room).expect("it is there");
    bridge.accepted.clear();
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, NO_SUCH_ROOM);
    bridge.send(&mut board, RELEASE, &[0, 1]);
    assert!(board.link.poll_moved().is_none());
}

#[test]
fn snapshots_that_cannot_be_loaded_are_refused() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, true);
    let mut board = transferring(None, 1000);
    let mut bridge = Bridge::connect_to(&mut board, 1);

    for length in [1001, 1 << 20, u32::MAX] {
        let head = [[length, 7].map(u32::to_le_bytes).concat(), vec![0]].concat();
        bridge.send(&mut board, LOAD, &head);
        bridge.run(&mut board);
        assert_transfer_refused(&mut bridge, TOO_LONG);
    }
    // Its state, twice, does not fit.
    send_snapshot(&mut board, &mut bridge, &bytes);
    bridge.run(&mut board);
    let why = assert_transfer_refused(&mut bridge, TOO_LONG);
    assert!(why.contains("1000 are allowed"), "{why}");
    assert!(board.link.received_room().is_none());

    let mut board = transferring(Some("r"), HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    bridge.run(&mut board);
    // Noise, and a snapshot of which a byte is wrong.
    send_snapshot(&mut board, &mut bridge, &noise(300));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, REJECTED);
    let mut damaged = bytes.clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    send_snapshot(&mut board, &mut bridge, &damaged);
    let result = board.link.load(&mut board.host, &saved_module(), OPTIONS);
    assert!(matches!(result, Err(LoadRoomError::Snapshot(_))));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, REJECTED);
    // Its checksum, as announced, is another.
    bridge.send(&mut board, LOAD, &load_head(&bytes));
    send_pieces(&mut board, &mut bridge, &damaged, 0, damaged.len());
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, DAMAGED);
    // Pieces that do not follow, or of nothing.
    send_pieces(&mut board, &mut bridge, &bytes, 0, 100);
    bridge.send(&mut board, LOAD, &load_head(&bytes));
    bridge.accepted.clear();
    send_pieces(&mut board, &mut bridge, &bytes, 100, 200);
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, DAMAGED);
    // There is a room of this id, and the firmware does not want it.
    send_snapshot(&mut board, &mut bridge, &bytes);
    let result = board.link.load(&mut board.host, &saved_module(), OPTIONS);
    assert!(matches!(result, Err(LoadRoomError::Snapshot(_))));
    bridge.run(&mut board);
    assert_transfer_refused(&mut bridge, REJECTED);
    send_snapshot(&mut board, &mut bridge, &bytes);
    board.link.refuse_load("no such module");
    bridge.run(&mut board);
    assert_eq!(
        assert_transfer_refused(&mut bridge, REJECTED),
        "no such module"
    );
    let result = board.link.load(&mut board.host, &saved_module(), OPTIONS);
    assert!(matches!(result, Err(LoadRoomError::NothingToLoad)));
    // Its own room has noticed nothing.
    bridge.connect(&mut board, 0, 1);
    assert_eq!(board.clients("r"), [1]);
}

#[test]
fn a_load_can_be_cancelled() {
    let mut board = transferring(None, HEAP_BYTES);
    let mut bridge = Bridge::connect_to(&mut board, 1);
    let bytes = noise(1000);
    bridge.send(&mut board, LOAD, &load_head(&bytes));
    send_pieces(&mut board, &mut bridge, &bytes, 0, 500);
    bridge.send(&mut board, LOAD, &[0; 9]);
    bridge.accepted.clear();
    send_pieces(&mut board, &mut bridge, &bytes, 500, 600);
    bridge.run(&mut board);
    assert_eq!(bridge.accepted, [], "it is of nothing");
    send_snapshot(&mut board, &mut bridge, &bytes);
}

#[test]
fn whatever_a_bridge_sends_of_rooms_the_board_goes_on() {
    let mut random = Random::new();
    for _ in 0..30 {
        let (mut board, mut bridge) = board_and_bridge();
        for _ in 0..60 {
            let kind = [SAVE, RELEASE, LOAD, LOAD_PIECE, TEXT, CONNECT][random.below(6)];
            let length = random.below(30);
            let mut body = random.bytes(length);
            // Small numbers reach further.
            for byte in &mut body {
                if random.below(3) > 0 {
                    *byte &= 1;
                }
            }
            bridge.send(&mut board, kind, &body);
            board.link.refuse_load("unwanted");
            board.link.poll_moved();
            if random.below(10) == 0 {
                board.advance(Duration::from_secs(20));
                bridge = Bridge::connect_to(&mut board, 2 + random.below(1 << 20) as u32);
            }
        }
        bridge.send(&mut board, RELEASE, &[0, 0]);
        bridge.send(&mut board, LOAD, &[0; 9]);
        bridge.run(&mut board);
        if board.host.find("r").is_some() {
            bridge.connect(&mut board, 0, 1000);
            assert!(board.clients("r").contains(&1000));
        }
    }
}

/// In a room by itself, what the board's would have done.
#[test]
fn a_room_does_the_same_whether_it_was_moved_or_not() {
    let (mut board, mut bridge) = board_and_bridge();
    let bytes = save(&mut board, &mut bridge, true);
    let mut moved = Room::load(&saved_module(), &bytes, OPTIONS).expect("it loads");
    bridge.accepted.clear();
    bridge.send(&mut board, RELEASE, &[0, 0]);
    bridge.text(&mut board, 0, 1, "hello");
    bridge.run(&mut board);
    let here = counts(&mut bridge);
    let event = Event::message(stateroom_wasmi_host::ClientId(1), "hello");
    moved
        .handle_event(moved.now(), event)
        .expect("it takes the message");
    let mut there = Vec::new();
    while let Some(output) = moved.poll_output() {
        if let Output::Message(message) = output
            && let MessagePayload::Bytes(bytes) = message.payload
        {
            there.push(bytes[0]);
        }
    }
    assert_eq!(here, there);
}

/// The crate's own bridge, on a line that changes and loses bytes.
#[cfg(feature = "bridge")]
mod noisy {
    use super::*;
    use stateroom_wasmi_host::{ClientId, OutputMessage};
    use stateroom_wasmi_link::{self as link, BoardMessage};
    use std::num::NonZeroU32;

    /// What has come from the board.
    #[derive(Default)]
    struct Seen {
        rooms: Vec<u8>,
        counts: Vec<u8>,
        incoming: Option<IncomingSnapshot>,
        load_from: Option<usize>,
        loaded: Option<u8>,
        closed: bool,
    }

    impl Seen {
        fn note(&mut self, message: BoardMessage<'_>) {
            match message {
                BoardMessage::RoomOpened { room, .. } => self.rooms.push(room),
                BoardMessage::Output {
                    output: OutputMessage { payload, .. },
                    ..
                } => self.counts.push(payload.as_bytes()[0]),
                BoardMessage::Saved {
                    length, checksum, ..
                } => self.incoming = Some(IncomingSnapshot::new(length as usize, checksum)),
                BoardMessage::SavedPiece { offset, bytes } => self
                    .incoming
                    .as_mut()
                    .expect("it was announced")
                    .push(offset, bytes)
                    .expect("the pieces are in order"),
                BoardMessage::LoadReady { from } => self.load_from = Some(from as usize),
                BoardMessage::Loaded { room, .. } => self.loaded = Some(room),
                BoardMessage::RoomClosed { .. } => self.closed = true,
                BoardMessage::TransferRefused { reason, text } => panic!("{reason}: {text}"),
                _ => {}
            }
        }
    }

    struct Line {
        board: Board,
        bridge: link::Bridge,
        seen: Seen,
        random: Random,
    }

    impl Line {
        fn new(board: Board, random: Random) -> Self {
            let session = NonZeroU32::new(7).expect("not zero");
            let bridge = link::Bridge::new(session, board.now());
            Self {
                board,
                bridge,
                seen: Seen::default(),
                random,
            }
        }

        fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
            let mut damaged = Vec::new();
            for byte in bytes {
                match self.random.below(800) {
                    0 => {}
                    1 => damaged.push(byte ^ 0x20),
                    _ => damaged.push(*byte),
                }
            }
            damaged
        }

        /// Lets both ends speak, and time pass, until this is so.
        fn until(&mut self, what: &str, is: impl Fn(&Seen) -> bool) {
            for _ in 0..10_000 {
                if is(&self.seen) {
                    return;
                }
                self.pass();
            }
            panic!("never: {what}");
        }

        fn pass(&mut self) {
            let now = self.board.now();
            let mut sent = Vec::new();
            loop {
                let unsent = self.bridge.unsent(now);
                let length = unsent.len();
                sent.extend(unsent);
                if length == 0 {
                    break;
                }
                self.bridge.sent(length, now);
            }
            let sent = self.damage(&sent);
            self.board.link.wire_mut().to_board.extend(sent);
            self.board.advance(Duration::from_millis(20));
            let written = self.board.written();
            let written = self.damage(&written);
            let now = self.board.now();
            let seen = &mut self.seen;
            self.bridge
                .handle_input(&written, now, |message| seen.note(message))
                .expect("the session goes on");
            self.bridge.handle_timeout(now).expect("it goes on");
        }
    }

    #[test]
    fn a_room_moves_over_lines_that_lose_bytes() {
        let mut random = Random::new();
        for _ in 0..10 {
            let mut line = Line::new(transferring(Some("r"), HEAP_BYTES), random);
            line.until("the room is known", |seen| seen.rooms == [0]);
            let client = ClientId(1);
            line.bridge
                .send(0, Event::Connect(client))
                .expect("it is queued");
            line.until("its timer fires", |seen| seen.counts.len() == 1);
            let noise = noise(400);
            line.bridge
                .send(0, Event::message(client, &noise[..]))
                .expect("it is queued");
            line.bridge.save(0, true, None).expect("it is queued");
            line.until("the snapshot is there", |seen| {
                seen.incoming
                    .as_ref()
                    .is_some_and(IncomingSnapshot::is_complete)
            });
            let incoming = line.seen.incoming.take();
            let snapshot = incoming.and_then(IncomingSnapshot::into_bytes);
            let snapshot = snapshot.expect("it is whole");
            line.bridge.release(0, true).expect("it is queued");
            line.until("it has gone", |seen| seen.closed);
            let counted = line.seen.counts;
            assert_eq!(counted, [1, 2], "none is lost, and none comes twice");

            let mut line = Line::new(transferring(None, HEAP_BYTES), line.random);
            // Until the session has begun.
            while line.bridge.load(&snapshot, false).is_err() {
                line.pass();
            }
            line.until("it is ready", |seen| seen.load_from.is_some());
            let mut sent = line.seen.load_from.expect("it is");
            while sent < snapshot.len() {
                match line.bridge.send_piece(&snapshot, sent) {
                    Ok(next) => sent = next,
                    Err(_) => line.pass(),
                }
            }
            while line.board.link.received_room().is_none() {
                line.pass();
            }
            let loaded = line
                .board
                .link
                .load(&mut line.board.host, &saved_module(), OPTIONS);
            loaded.expect("it is loaded");
            line.until("it is loaded", |seen| seen.loaded.is_some());
            let room = line.seen.loaded.expect("it is");
            line.bridge
                .send(room, Event::Connect(client))
                .expect("it is queued");
            line.bridge
                .send(room, Event::message(client, &noise[..]))
                .expect("it is queued");
            line.until("it goes on", |seen| seen.counts.len() == 2);
            assert_eq!(line.seen.counts, [3, 4]);
            random = line.random;
        }
    }
}
