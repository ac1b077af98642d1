//! A board whose wire is a pair of queues, and a bridge that implements `PROTOCOL.md` independently of
//! the crate.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod backpressure;
#[cfg(feature = "bridge")]
mod bridge;
mod corruption;
#[cfg(feature = "embedded-io")]
mod embedded_io;
mod hostile;
mod messages;
mod sessions;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;
#[cfg(feature = "snapshot")]
mod transfers;

use crate::support::{hex, limits, module_with};
use stateroom_wasmi_host::{Budget, Host, Instant, Limits, ManualClock, RoomKey};
use stateroom_wasmi_link::{Link, LinkTransport, Wire};
use std::{collections::VecDeque, convert::Infallible, time::Duration};

const BUFFER: usize = 512;

const HELLO: u8 = 0x01;
const ACK: u8 = 0x02;
const REJ: u8 = 0x03;
const RNR: u8 = 0x04;
const PING: u8 = 0x05;
const CONNECT: u8 = 0x10;
const DISCONNECT: u8 = 0x11;
const TEXT: u8 = 0x12;
const BYTES: u8 = 0x13;
const ROOM_OPENED: u8 = 0x20;
const ROOM_CLOSED: u8 = 0x21;
const JOINED: u8 = 0x22;
const REFUSED: u8 = 0x23;
const OUTPUT_TEXT: u8 = 0x24;
const OUTPUT_BYTES: u8 = 0x25;

/// A wire that is a queue in each direction.
struct Queues {
    to_board: VecDeque<u8>,
    from_board: Vec<u8>,
    /// Bytes that the board may still write.
    space: usize,
    /// Bytes that one write takes at most.
    at_once: usize,
}

impl Wire for Queues {
    type Error = Infallible;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let len = bytes.len().min(self.to_board.len());
        self.to_board
            .drain(..len)
            .zip(bytes)
            .for_each(|(from, to)| *to = from);
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let len = bytes.len().min(self.space).min(self.at_once);
        self.space -= len;
        self.from_board.extend(&bytes[..len]);
        Ok(len)
    }
}

struct Board {
    pub host: Host<ManualClock, LinkTransport<BUFFER>>,
    pub link: Link<Queues, BUFFER>,
    pub wake_at: Option<Instant>,
}

/// A board with rooms of these ids and guests.
fn board(rooms: &[(&str, &str)]) -> Board {
    board_with(rooms, &limits(|_| {}))
}

fn board_with(rooms: &[(&str, &str)], limits: &Limits) -> Board {
    let wire = Queues {
        to_board: VecDeque::new(),
        from_board: Vec::new(),
        space: usize::MAX,
        at_once: usize::MAX,
    };
    let host = Host::new(ManualClock::new(), LinkTransport::new());
    let mut board = Board {
        host,
        link: Link::new(wire),
        wake_at: None,
    };
    for (id, text) in rooms {
        board.open(id, text, limits);
    }
    board
}

impl Board {
    fn open(&mut self, id: &str, text: &str, limits: &Limits) -> RoomKey {
        let key = self
            .host
            .open(id, &module_with(text, limits))
            .expect("the room opens");
        self.link
            .add_room(&mut self.host, key)
            .expect("the link has capacity");
        key
    }

    /// Polls until the board is idle at this time.
    fn poll(&mut self) {
        for _ in 0..10_000 {
            let Ok(wake_at) = self.link.poll(&mut self.host, Budget::UNLIMITED);
            self.wake_at = wake_at;
            if wake_at.is_none_or(|at| at > self.now()) {
                return;
            }
        }
        panic!("the board is never idle");
    }

    fn now(&self) -> Instant {
        use stateroom_wasmi_host::Clock;
        self.host.clock().now()
    }

    fn advance(&mut self, time: Duration) {
        self.host.clock().advance(time);
        self.poll();
    }

    /// What the board wrote since the last call.
    fn written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.link.wire_mut().from_board)
    }

    fn clients(&self, id: &str) -> Vec<u32> {
        let room = self
            .host
            .find(id)
            .and_then(|key| self.host.room(key))
            .expect("the room is open");
        room.clients().iter().map(|client| client.0).collect()
    }
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    pub kind: u8,
    pub sequence: u8,
    pub body: Vec<u8>,
}

/// A frame as it is on the line.
fn encode(kind: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = [&[kind, sequence], body].concat();
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&frame);
    frame.extend(crc.to_le_bytes());
    let mut encoded = vec![0];
    encoded.extend(cobs::encode_vec(&frame));
    encoded.push(0);
    encoded
}

/// The frames in a stream of bytes; `None` for each that is damaged.
fn decode(bytes: &[u8]) -> Vec<Option<Frame>> {
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let frame = cobs::decode_vec(part).ok()?;
            let (frame, crc) = frame.split_last_chunk::<4>()?;
            let expected = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(frame);
            let [kind, sequence, body @ ..] = frame else {
                return None;
            };
            (*crc == expected.to_le_bytes()).then(|| Frame {
                kind: *kind,
                sequence: *sequence,
                body: body.into(),
            })
        })
        .collect()
}

/// The simplest implementation of the other end: stop-and-wait.
struct Bridge {
    /// The sequence number of the next frame to send.
    next: u8,
    /// The sequence number of the next frame to accept.
    expected: u8,
    /// Numbered frames that were accepted.
    pub accepted: Vec<Frame>,
    /// Control frames that were received: kind and sequence number.
    pub control: Vec<(u8, u8)>,
}

impl Bridge {
    /// Starts a session.
    fn connect_to(board: &mut Board, session: u32) -> Self {
        let mut bridge = Self {
            next: 0,
            expected: 0,
            accepted: Vec::new(),
            control: Vec::new(),
        };
        board.written();
        bridge.put(board, &encode(HELLO, 0, &hello(1, session, 4096, 4096)));
        board.poll();
        let frames = decode(&board.written());
        let reply = frames[0].clone().expect("the reply is intact");
        assert_eq!(
            (reply.kind, &reply.body[..5]),
            (HELLO, &hello(1, session, 0, 0)[..5])
        );
        bridge.receive(board, &frames[1..]);
        bridge
    }

    /// Puts bytes on the line.
    fn put(&self, board: &mut Board, bytes: &[u8]) {
        board.link.wire_mut().to_board.extend(bytes);
    }

    /// Sends a numbered frame until it is acknowledged, and receives meanwhile.
    fn send(&mut self, board: &mut Board, kind: u8, body: &[u8]) {
        self.control.clear();
        self.put(board, &encode(kind, self.next, body));
        self.run(board);
        let next = self.next.wrapping_add(1);
        for _ in 0..100 {
            if self.control.contains(&(ACK, next)) {
                self.next = next;
                return;
            }
            self.put(board, &encode(kind, self.next, body));
            self.run(board);
        }
        panic!("the frame was never acknowledged: {:?}", self.control);
    }

    /// Polls the board and receives what it writes, until there is no more.
    fn run(&mut self, board: &mut Board) {
        loop {
            board.poll();
            let written = board.written();
            if written.is_empty() {
                return;
            }
            self.receive(board, &decode(&written));
        }
    }

    fn receive(&mut self, board: &mut Board, frames: &[Option<Frame>]) {
        for frame in frames {
            let frame = frame.clone().expect("no frame is damaged");
            if frame.kind < 0x10 {
                self.control.push((frame.kind, frame.sequence));
                continue;
            }
            if frame.sequence == self.expected {
                self.expected = self.expected.wrapping_add(1);
                self.accepted.push(frame);
            }
        }
        if !frames.is_empty() {
            self.put(board, &encode(ACK, self.expected, &[]));
        }
    }

    fn connect(&mut self, board: &mut Board, room: u8, client: u32) {
        self.send(board, CONNECT, &head(room, client, &[]));
    }

    fn text(&mut self, board: &mut Board, room: u8, client: u32, text: &str) {
        self.send(board, TEXT, &head(room, client, text.as_bytes()));
    }

    /// The frames that were accepted since the last call: kind, and body in hex but for the text at
    /// its end.
    fn take_messages(&mut self) -> Vec<(u8, String)> {
        let accepted = std::mem::take(&mut self.accepted);
        accepted
            .into_iter()
            .map(|frame| {
                let text_at = match frame.kind {
                    OUTPUT_TEXT => 6,
                    ROOM_OPENED => 5,
                    ROOM_CLOSED => 2,
                    _ => frame.body.len(),
                };
                let (head, text) = frame.body.split_at(text_at);
                (
                    frame.kind,
                    hex(head) + std::str::from_utf8(text).expect("texts are UTF-8"),
                )
            })
            .collect()
    }
}

fn hello(version: u8, session: u32, longest_body: u32, window: u32) -> Vec<u8> {
    let numbers = [session, longest_body, window].map(u32::to_le_bytes);
    [&[version], numbers.concat().as_slice()].concat()
}

/// The body of an event: room, client, and the rest.
fn head(room: u8, client: u32, rest: &[u8]) -> Vec<u8> {
    [&[room], &client.to_le_bytes()[..], rest].concat()
}

fn messages<const N: usize>(messages: [(u8, &str); N]) -> Vec<(u8, String)> {
    messages.map(|(kind, body)| (kind, body.to_owned())).into()
}
