//! A board made from `PROTOCOL.md`, which does what a board of the crate never does.

use super::{Client, Server, eventually};
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

pub const HELLO: u8 = 0x01;
pub const ACK: u8 = 0x02;
pub const REJ: u8 = 0x03;
pub const RNR: u8 = 0x04;
pub const PING: u8 = 0x05;
pub const CONNECT: u8 = 0x10;
pub const DISCONNECT: u8 = 0x11;
pub const TEXT: u8 = 0x12;
pub const BYTES: u8 = 0x13;
pub const ROOM_OPENED: u8 = 0x20;
pub const ROOM_CLOSED: u8 = 0x21;
pub const JOINED: u8 = 0x22;
pub const REFUSED: u8 = 0x23;
pub const OUTPUT_TEXT: u8 = 0x24;

/// Room and client, as in the bodies of events.
pub const HEAD_BYTES: usize = 5;

/// What a board replies to numbered frames and to pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// What the protocol demands.
    Correct,
    /// It accepts frames, but acknowledges none any more.
    Unacknowledged,
    /// It acknowledges frames that it was never sent.
    Ahead,
    /// It acknowledges fewer and fewer frames.
    Backwards,
    /// It rejects the next frame, again and again.
    Reject,
    /// It is busy, and drops all frames.
    Busy,
}

/// What a board says in its hello.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub max_body_bytes: u32,
    pub window_bytes: u32,
}

/// A board behind a TCP socket. A thread reads what the bridge sends and replies to it; what the board
/// sends of its own accord is the test's matter.
pub struct RawBoard {
    pub address: String,
    line: Arc<Mutex<Line>>,
    events: UnboundedReceiver<Frame>,
    /// The kinds of all intact frames that have come.
    frames_seen: Arc<Mutex<Vec<u8>>>,
}

/// A frame of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    sequence: u8,
    pub body: Vec<u8>,
}

struct Line {
    stream: Option<TcpStream>,
    capacity: Capacity,
    replies: Replies,
    session: [u8; 4],
    /// The sequence number of the next frame to send.
    next: u8,
    /// The sequence number of the next frame to accept.
    expected: u8,
    /// What was expected when the replies ceased to be correct, less what they went back.
    acknowledged: u8,
}

impl RawBoard {
    pub fn new() -> Self {
        Self::with_capacity(Capacity {
            max_body_bytes: 60_000,
            window_bytes: 10_000,
        })
    }

    pub fn with_capacity(capacity: Capacity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens").to_string();
        let line = Arc::new(Mutex::new(Line {
            stream: None,
            capacity,
            replies: Replies::Correct,
            session: [0; 4],
            next: 0,
            expected: 0,
            acknowledged: 0,
        }));
        let (sender, events) = mpsc::unbounded_channel();
        let frames_seen = Arc::<Mutex<Vec<u8>>>::default();
        let (shared, seen) = (line.clone(), frames_seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // It ends with the connection.
                let _ = serve(stream, &shared, &seen, &sender);
            }
        });
        Self {
            address,
            line,
            events,
            frames_seen,
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("not poisoned")
    }

    /// Waits until a session begins.
    pub async fn session(&mut self) {
        while self.next_event().await.kind != HELLO {}
    }

    /// The next event of the bridge.
    pub async fn event(&mut self) -> Frame {
        let frame = self.next_event().await;
        assert_ne!(frame.kind, HELLO, "the session began anew");
        frame
    }

    async fn next_event(&mut self) -> Frame {
        eventually("an event", self.events.recv())
            .await
            .expect("the thread runs")
    }

    /// Waits until this many frames of a kind have come, accepted or not.
    pub async fn until_seen(&self, kind: u8, count: usize) {
        eventually("the frames have come", async {
            while self.count_seen(kind) < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    fn count_seen(&self, kind: u8) -> usize {
        let seen = self.frames_seen.lock().expect("not poisoned");
        seen.iter().filter(|seen| **seen == kind).count()
    }

    /// Expects an event, of which the test knows all.
    #[track_caller]
    pub fn expect(&mut self, kind: u8, body: &[u8]) -> impl Future<Output = ()> {
        let (caller, body) = (std::panic::Location::caller(), body.to_owned());
        async move {
            let event = self.event().await;
            assert_eq!((event.kind, event.body), (kind, body), "at {caller}");
        }
    }

    pub fn set_replies(&self, replies: Replies) {
        let mut line = self.line();
        line.replies = replies;
        line.acknowledged = line.expected;
        if replies == Replies::Correct {
            // It is ready.
            let expected = line.expected;
            line.write(REJ, expected, &[]);
        }
    }

    /// Sends a numbered frame, without regard to the window.
    pub fn send(&self, kind: u8, body: &[u8]) {
        self.line().send(kind, body);
    }

    /// Opens a room, and waits until it is known.
    pub async fn open(&self, server: &Server, number: u8, id: &str) {
        self.send_opened(number, 50_000, id);
        server
            .until_room(id, "the room is known", |room| room.is_some())
            .await;
    }

    pub fn send_opened(&self, number: u8, max_message_bytes: u32, id: &str) {
        let head = [&[number][..], &max_message_bytes.to_le_bytes()].concat();
        self.send(ROOM_OPENED, &[&head, id.as_bytes()].concat());
    }

    /// A room's message to the client of an event.
    pub fn send_output(&self, head: &[u8], text: &str) {
        let (room, client) = head.split_first().expect("it has a room");
        self.send(
            OUTPUT_TEXT,
            &[&[*room, 1], client, text.as_bytes()].concat(),
        );
    }

    /// A client whose connect the board has and does not answer; and the connect's body.
    pub async fn connecting(&mut self, server: &Server, path: &str) -> (Client, Vec<u8>) {
        let client = server.join(path).await;
        let connect = self.event().await;
        assert_eq!(connect.kind, CONNECT);
        (client, connect.body)
    }

    /// A client that has joined.
    pub async fn joined(&mut self, server: &Server, path: &str) -> (Client, Vec<u8>) {
        let (mut client, head) = self.connecting(server, path).await;
        self.admit(&mut client, &head).await;
        (client, head)
    }

    /// Lets a client join, and waits until it has.
    pub async fn admit(&self, client: &mut Client, head: &[u8]) {
        self.send(JOINED, head);
        self.send_output(head, "welcome");
        client.expect("welcome").await;
    }

    /// Sends frames as fast as the bridge takes them, until the result is dropped.
    pub fn flood(&self, kind: u8, body: Vec<u8>) -> Flood {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (line, ended) = (self.line.clone(), has_ended.clone());
        let thread = thread::spawn(move || {
            // A frame for each sequence number, encoded once: faster than the bridge decodes them.
            let mut next = 0;
            let mut frames = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let mut line = line.lock().expect("not poisoned");
                if frames.is_empty() || next != line.next {
                    next = line.next;
                    let sequences = (0..=255).map(|number| next.wrapping_add(number));
                    frames = sequences
                        .flat_map(|sequence| encode(kind, sequence, &body))
                        .collect::<Vec<_>>()
                        .repeat(4);
                }
                line.write_all(&frames);
                drop(line);
                // The lock is not fair.
                thread::yield_now();
            }
        });
        Flood {
            has_ended,
            thread: Some(thread),
        }
    }
}

/// A thread that sends.
pub struct Flood {
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Line {
    fn write(&mut self, kind: u8, sequence: u8, body: &[u8]) {
        self.write_all(&encode(kind, sequence, body));
    }

    /// Fails silently when the connection has ended, which the reading thread sees.
    fn write_all(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(bytes);
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let next = self.next;
        self.next = next.wrapping_add(1);
        self.write(kind, next, body);
    }

    /// Replies to a frame; returns it if it is new to the test.
    fn handle(&mut self, frame: Frame) -> Option<Frame> {
        match frame.kind {
            HELLO => {
                let session = frame.body[1..5].try_into().expect("four bytes");
                let is_new = self.session != session;
                self.session = session;
                if session == [0; 4] {
                    return None;
                }
                if is_new {
                    (self.next, self.expected) = (0, 0);
                }
                let Capacity {
                    max_body_bytes,
                    window_bytes,
                } = self.capacity;
                let body = [
                    &[1][..],
                    &session,
                    &max_body_bytes.to_le_bytes(),
                    &window_bytes.to_le_bytes(),
                ];
                self.write(HELLO, 0, &body.concat());
                is_new.then_some(frame)
            }
            ..0x10 => {
                if frame.kind == PING {
                    self.reply(ACK);
                }
                None
            }
            _ => {
                let is_accepted = self.replies != Replies::Busy && frame.sequence == self.expected;
                if is_accepted {
                    self.expected = self.expected.wrapping_add(1);
                }
                self.reply(RNR);
                is_accepted.then_some(frame)
            }
        }
    }

    /// Replies to a ping, or else to a numbered frame; `of_busy` is what a busy board replies.
    fn reply(&mut self, of_busy: u8) {
        let expected = self.expected;
        match self.replies {
            Replies::Correct => self.write(ACK, expected, &[]),
            // To pings alone: it is alive.
            Replies::Unacknowledged if of_busy == ACK => self.write(ACK, self.acknowledged, &[]),
            Replies::Unacknowledged => {}
            Replies::Ahead => self.write(ACK, expected.wrapping_add(100), &[]),
            Replies::Backwards => {
                self.acknowledged = self.acknowledged.wrapping_sub(1);
                self.write(ACK, self.acknowledged, &[]);
            }
            Replies::Reject => self.write(REJ, self.acknowledged, &[]),
            Replies::Busy => self.write(of_busy, expected, &[]),
        }
    }
}

/// Serves a connection of the bridge until it ends.
fn serve(
    mut stream: TcpStream,
    line: &Mutex<Line>,
    seen: &Mutex<Vec<u8>>,
    events: &UnboundedSender<Frame>,
) -> io::Result<()> {
    line.lock().expect("not poisoned").stream = Some(stream.try_clone()?);
    let mut unread = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        unread.extend(&buffer[..read]);
        while let Some(end) = unread.iter().position(|byte| *byte == 0) {
            let part: Vec<_> = unread.drain(..=end).collect();
            if let Some(frame) = decode(&part[..end]) {
                seen.lock().expect("not poisoned").push(frame.kind);
                let event = line.lock().expect("not poisoned").handle(frame);
                // The test may have ended.
                let _ = event.map(|event| events.send(event));
            }
        }
    }
}

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A frame as it is on the line.
fn encode(kind: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = [&[kind, sequence], body].concat();
    frame.extend(CRC.checksum(&frame).to_le_bytes());
    [&[0], &cobs::encode_vec(&frame)[..], &[0]].concat()
}

/// The frame between two zeros, if it is one.
fn decode(part: &[u8]) -> Option<Frame> {
    let frame = cobs::decode_vec(part).ok().filter(|_| !part.is_empty())?;
    let (frame, crc) = frame.split_last_chunk::<4>()?;
    let [kind, sequence, body @ ..] = frame else {
        return None;
    };
    (CRC.checksum(frame).to_le_bytes() == *crc).then(|| Frame {
        kind: *kind,
        sequence: *sequence,
        body: body.into(),
    })
}
