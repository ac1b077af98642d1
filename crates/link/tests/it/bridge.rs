//! The crate's bridge, and boards that acknowledge wrongly, or nothing.

use super::*;
use stateroom_wasmi_host::{ClientId, Event};
use stateroom_wasmi_link::{self as link, BoardMessage, SessionError};
use std::num::NonZeroU32;

const SESSION: u32 = 7;

/// A bridge in a session, in virtual time.
struct Line {
    bridge: link::Bridge,
    now: Instant,
}

impl Line {
    fn established() -> Self {
        let session = NonZeroU32::new(SESSION).expect("not zero");
        let now = Instant::ZERO;
        let bridge = link::Bridge::new(session, now);
        let mut line = Self { bridge, now };
        assert_eq!(line.sent()[0].kind, HELLO);
        let mut has_started = false;
        line.bridge
            .handle_input(
                &encode(HELLO, 0, &hello(1, SESSION, 1000, 1000)),
                now,
                |message| has_started = message == BoardMessage::SessionStarted,
            )
            .expect("the session begins");
        assert!(has_started);
        line
    }

    /// Takes everything that the bridge sends.
    fn sent(&mut self) -> Vec<Frame> {
        let mut bytes = Vec::new();
        loop {
            let unsent = self.bridge.unsent(self.now);
            if unsent.is_empty() {
                break;
            }
            bytes.extend(unsent);
            let len = unsent.len();
            self.bridge.sent(len, self.now);
        }
        decode(&bytes)
            .into_iter()
            .map(|frame| frame.expect("the line damages nothing"))
            .collect()
    }

    fn receive(&mut self, kind: u8, sequence: u8) -> Result<(), SessionError> {
        self.bridge
            .handle_input(&encode(kind, sequence, &[]), self.now, |_| {})?;
        self.bridge.handle_timeout(self.now)
    }

    fn connect(&mut self, client: u32) {
        self.bridge
            .send(0, Event::Connect(ClientId(client)))
            .expect("there is space");
    }

    /// Lets time pass, with a board that replies to each frame with a control frame.
    fn pass(
        &mut self,
        time: Duration,
        mut reply: impl FnMut(&Frame) -> Option<(u8, u8)>,
    ) -> Result<(), SessionError> {
        let end = self.now + time;
        loop {
            for frame in self.sent() {
                if let Some((kind, sequence)) = reply(&frame) {
                    self.receive(kind, sequence)?;
                }
            }
            let at = self.bridge.poll_timeout();
            if at > end {
                self.now = end;
                return Ok(());
            }
            self.now = self.now.max(at);
            self.bridge.handle_timeout(self.now)?;
        }
    }

    /// How long it takes until the session ends because nothing is acknowledged.
    fn until_unacknowledged(&mut self, reply: impl FnMut(&Frame) -> Option<(u8, u8)>) -> Duration {
        let began = self.now;
        let ended = self.pass(Duration::from_secs(100), reply);
        assert_eq!(ended, Err(SessionError::Unacknowledged));
        self.now.saturating_duration_since(began)
    }
}

/// The timeout in `PROTOCOL.md`, to the second between two pings.
fn assert_is_timeout(time: Duration) {
    assert!((29..=31).contains(&time.as_secs()), "{time:?}");
}

#[test]
fn a_session_in_which_nothing_is_acknowledged_ends() {
    let mut line = Line::established();
    line.connect(1);
    // The board is alive, and replies to pings.
    let time = line.until_unacknowledged(|frame| (frame.kind == PING).then_some((ACK, 0)));
    assert_is_timeout(time);
}

#[test]
fn a_session_with_wrong_acknowledgements_only_ends() {
    // Of frames that were never sent, and of those before the session's first.
    for wrong in [2, 100, 127, 128, 200, 255] {
        for kind in [ACK, REJ, RNR] {
            let mut line = Line::established();
            line.connect(1);
            assert_is_timeout(line.until_unacknowledged(|_| Some((kind, wrong))));
        }
    }
}

#[test]
fn a_board_that_rejects_the_same_frame_for_ever_ends_the_session() {
    let mut line = Line::established();
    line.connect(1);
    let mut last = Ok(());
    // Ten a second, so that the retransmission timeout never expires.
    for _ in 0..1000 {
        line.now = line.now + Duration::from_millis(100);
        line.sent();
        last = line.receive(REJ, 0);
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last, Err(SessionError::Unacknowledged));
    assert_is_timeout(line.now.saturating_duration_since(Instant::ZERO));
}

#[test]
fn wrong_acknowledgements_lose_and_repeat_nothing() {
    let mut line = Line::established();
    // All sequence numbers, and some twice.
    for sent in 0..300_u32 {
        let next = sent as u8;
        line.connect(sent + 1);
        let frames = line.sent();
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!((frames[0].kind, frames[0].sequence), (CONNECT, next));
        for wrong in 2..=255 {
            line.receive(ACK, next.wrapping_add(wrong))
                .expect("the session goes on");
        }
        // It is still there to be retransmitted.
        line.receive(REJ, next).expect("the session goes on");
        assert_eq!(line.sent(), frames);
        line.receive(ACK, next.wrapping_add(1))
            .expect("the session goes on");
        assert_eq!(line.sent(), []);
    }
}

#[test]
fn a_session_with_a_busy_board_does_not_end() {
    let mut line = Line::established();
    line.connect(1);
    line.pass(Duration::from_secs(3600), |frame| match frame.kind {
        PING => Some((ACK, 0)),
        _ => Some((RNR, 0)),
    })
    .expect("the board is alive");
    // It is ready.
    line.receive(REJ, 0).expect("the session goes on");
    let frames = line.sent();
    assert_eq!((frames[0].kind, frames[0].sequence), (CONNECT, 0));
}

#[test]
fn a_session_with_a_slow_board_does_not_end() {
    let mut line = Line::established();
    for client in 1..=10 {
        line.connect(client);
    }
    for acknowledged in 1..=10 {
        line.pass(Duration::from_secs(25), |frame| {
            (frame.kind == PING).then_some((ACK, acknowledged - 1))
        })
        .expect("the board makes progress");
        line.receive(ACK, acknowledged)
            .expect("the session goes on");
    }
}

#[test]
fn a_session_without_events_does_not_end() {
    let mut line = Line::established();
    line.pass(Duration::from_secs(3600), |_| Some((ACK, 0)))
        .expect("the board is alive");
    // The time before does not count.
    line.connect(1);
    let time = line.until_unacknowledged(|_| Some((ACK, 0)));
    assert_is_timeout(time);
}

#[test]
fn a_board_that_is_busy_without_a_cause_is_sent_to() {
    let mut line = Line::established();
    line.receive(RNR, 0).expect("the session goes on");
    line.connect(1);
    let frames = line.sent();
    assert_eq!((frames[0].kind, frames[0].sequence), (CONNECT, 0));
}
