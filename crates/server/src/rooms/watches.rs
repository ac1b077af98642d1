//! What operators see of rooms while they watch them.

use crate::rate_limit::{Rate, TokenBucket, nanos_since};
use bytes::Bytes;
use core::time::Duration;
use hashbrown::HashMap;
use serde::Serialize;
use stateroom_wasmi_host::{
    Event, MessagePayload, MessageRecipient, OutputMessage, RecordedEvent, RoomKey,
};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

/// Who watches the rooms of a worker. Without watches it costs them nothing but to ask whether there are
/// any.
#[derive(Default)]
pub(crate) struct Watches {
    rooms: HashMap<RoomKey, Vec<Watch>>,
    /// Rooms that nobody watches any more.
    ended: Vec<RoomKey>,
}

/// One operator's watch of a room: what happens there, one event for each line of JSON.
pub(crate) struct Watch {
    lines: Sender<Bytes>,
    since: Instant,
    bucket: TokenBucket,
    /// Lines that were left out since the last one.
    skipped: u64,
}

/// An event of a room, or an output.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    /// Milliseconds since the Unix epoch.
    at: u64,
    event: &'static str,
    /// That of the event, or the recipient, or who is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<u32>,
    /// The beginning of a message that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// That of another one, as hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// The length of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Lines that were left out before this one.
    #[serde(skip_serializing_if = "is_zero")]
    skipped: u64,
}

/// More could not be read, and a flood must not slow down its room.
const RATE: Rate = Rate::new(100, 200);

/// Lines that wait for an operator who reads slowly.
const MAX_WAITING: usize = 256;

/// Bytes of a message that are shown.
const SHOWN_TEXT_BYTES: usize = 1024;
const SHOWN_BYTES: usize = 256;

impl Watch {
    /// A watch, and the lines of it, which end with the room.
    pub(crate) fn new() -> (Self, Receiver<Bytes>) {
        let (lines, receiver) = channel(MAX_WAITING);
        let watch = Self {
            lines,
            since: Instant::now(),
            bucket: TokenBucket::new(RATE),
            skipped: 0,
        };
        (watch, receiver)
    }

    /// Sends a line, or leaves it out; returns false if nobody watches any more.
    fn push<'a>(&mut self, line: impl FnOnce() -> Line<'a>) -> bool {
        if self.lines.is_closed() {
            return false;
        }
        if self.lines.capacity() == 0 || !self.bucket.try_consume(nanos_since(self.since)) {
            self.skipped += 1;
            return true;
        }
        let mut line = line();
        line.skipped = core::mem::take(&mut self.skipped);
        !matches!(
            self.lines.try_send(line.json().into()),
            Err(TrySendError::Closed(_))
        )
    }
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(crate) fn insert(&mut self, room: RoomKey, watch: Watch) {
        let watches = self.rooms.entry(room).or_default();
        // Of a room in which nothing happens.
        watches.retain(|watch| !watch.lines.is_closed());
        watches.push(watch);
    }

    /// Ends the watches of a room that has ended.
    pub(crate) fn remove(&mut self, room: RoomKey) {
        self.rooms.remove(&room);
    }

    /// Rooms that nobody watches any more, since this was last asked.
    pub(crate) fn take_ended(&mut self) -> Vec<RoomKey> {
        core::mem::take(&mut self.ended)
    }

    /// A room begins an event.
    pub(crate) fn event(&mut self, room: RoomKey, event: &RecordedEvent<'_>) {
        self.push(room, |at| Line::of_event(at, event));
    }

    /// A room sends something.
    pub(crate) fn output(&mut self, room: RoomKey, output: &OutputMessage<'_>) {
        self.push(room, |at| Line::of_output(at, output));
    }

    fn push<'a>(&mut self, room: RoomKey, line: impl Fn(Duration) -> Line<'a>) {
        let Some(watches) = self.rooms.get_mut(&room) else {
            return;
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = at.unwrap_or_default();
        watches.retain_mut(|watch| watch.push(|| line(at)));
        if watches.is_empty() {
            self.rooms.remove(&room);
            self.ended.push(room);
        }
    }
}

impl<'a> Line<'a> {
    /// A room begins an event; `at` is the time since the Unix epoch.
    pub(crate) fn of_event(at: Duration, event: &RecordedEvent<'a>) -> Self {
        let (name, client, payload) = match event {
            RecordedEvent::Start => ("start", None, None),
            RecordedEvent::Rejoin(client) => ("rejoin", Some(client), None),
            RecordedEvent::Timer => ("timer", None, None),
            RecordedEvent::Outside(Event::Connect(client)) => ("connect", Some(client), None),
            RecordedEvent::Outside(Event::Disconnect(client)) => ("disconnect", Some(client), None),
            RecordedEvent::Outside(Event::Message(client, payload)) => {
                ("message", Some(client), Some(*payload))
            }
        };
        Self::new(at, name, client.map(|client| client.0), payload)
    }

    /// A room sends something.
    pub(crate) fn of_output(at: Duration, output: &OutputMessage<'a>) -> Self {
        let (name, client) = match output.recipient {
            MessageRecipient::Broadcast => ("to all", None),
            MessageRecipient::Client(client) => ("to", Some(client.0)),
            MessageRecipient::EveryoneExcept(client) => ("to all but", Some(client.0)),
        };
        Self::new(at, name, client, Some(output.payload))
    }

    fn new(
        at: Duration,
        event: &'static str,
        client: Option<u32>,
        payload: Option<MessagePayload<'a>>,
    ) -> Self {
        Self {
            at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            event,
            client,
            text: payload.and_then(MessagePayload::text).map(shown),
            hex: payload.filter(|it| it.text().is_none()).map(hex),
            bytes: payload.map(|payload| payload.len()),
            skipped: 0,
        }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// As much of a text as is shown.
fn shown(text: &str) -> &str {
    let mut end = text.len().min(SHOWN_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn hex(payload: MessagePayload<'_>) -> String {
    let bytes = payload.as_bytes();
    let bytes = &bytes[..bytes.len().min(SHOWN_BYTES)];
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
