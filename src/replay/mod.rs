//! What happened in a room, event by event, and running it again.
//!
//! A guest is deterministic: given the same events at the same times, a room does the same. So a
//! snapshot and the records of the events since are the room, wherever they are replayed.

mod error;

pub use self::error::ReplayError;

use crate::{
    event::{ClientId, Event, MessagePayload},
    snapshot::bytes::{Malformed, Reader, Writer},
    time::Instant,
};
use alloc::vec::Vec;

/// An event that a room began to handle: all that it depends on besides the room's state.
///
/// [`Room::set_recording`](crate::Room::set_recording) makes a room keep them,
/// [`Room::replay`](crate::Room::replay) runs them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventRecord<'a> {
    /// Room time.
    pub at: Instant,
    /// Fuel that the room had used before ([`Room::fuel_used`](crate::Room::fuel_used)). A replay that
    /// used another amount has done something else.
    pub fuel_used: u64,
    /// What happened.
    pub event: RecordedEvent<'a>,
}

/// What a guest was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedEvent<'a> {
    /// A fresh guest was made and initialised.
    Start,
    /// A guest that was started after a fault handled the connect of a client that was connected before.
    Rejoin(ClientId),
    /// The timer fired.
    Timer,
    /// The event was given to the room.
    Outside(Event<'a>),
}

const START: u8 = 0;
const REJOIN: u8 = 1;
const TIMER: u8 = 2;
const CONNECT: u8 = 3;
const DISCONNECT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;

impl<'a> EventRecord<'a> {
    /// Appends the record as bytes; `docs/snapshots.md` is the format.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let writer = &mut Writer::new(to);
        let (kind, client) = match self.event {
            RecordedEvent::Start => (START, None),
            RecordedEvent::Rejoin(client) => (REJOIN, Some(client)),
            RecordedEvent::Timer => (TIMER, None),
            RecordedEvent::Outside(Event::Connect(client)) => (CONNECT, Some(client)),
            RecordedEvent::Outside(Event::Disconnect(client)) => (DISCONNECT, Some(client)),
            RecordedEvent::Outside(Event::Message(client, payload)) => match payload {
                MessagePayload::Text(_) => (TEXT, Some(client)),
                MessagePayload::Bytes(_) => (BYTES, Some(client)),
            },
        };
        writer.byte(kind);
        writer.number(self.at.as_nanos());
        writer.number(self.fuel_used);
        if let Some(client) = client {
            writer.number(client.0.into());
        }
        if let RecordedEvent::Outside(Event::Message(_, payload)) = self.event {
            writer.sized(payload.as_bytes());
        }
    }

    /// Reads a record from the beginning of these bytes, and returns the bytes after it. Nothing is
    /// allocated.
    ///
    /// # Errors
    ///
    /// If there is no record.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ReplayError> {
        let reader = &mut Reader::new(bytes);
        let record = Self::read(reader).map_err(|Malformed| ReplayError::Malformed)?;
        Ok((record, reader.rest()))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let kind = reader.byte()?;
        let at = Instant::from_nanos(reader.number()?);
        let fuel_used = reader.number()?;
        let mut client = || {
            let client = ClientId(reader.fitting()?);
            client.is_valid().then_some(client).ok_or(Malformed)
        };
        let event = match kind {
            START => RecordedEvent::Start,
            REJOIN => RecordedEvent::Rejoin(client()?),
            TIMER => RecordedEvent::Timer,
            CONNECT => RecordedEvent::Outside(Event::Connect(client()?)),
            DISCONNECT => RecordedEvent::Outside(Event::Disconnect(client()?)),
            TEXT => {
                let (client, text) = (client()?, reader.text()?);
                RecordedEvent::Outside(Event::Message(client, MessagePayload::Text(text)))
            }
            BYTES => {
                let (client, bytes) = (client()?, reader.sized()?);
                RecordedEvent::Outside(Event::Message(client, MessagePayload::Bytes(bytes)))
            }
            _ => return Err(Malformed),
        };
        Ok(Self {
            at,
            fuel_used,
            event,
        })
    }
}
