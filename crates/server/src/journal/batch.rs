//! What a worker writes at once, and the format of logged events.

use super::{RoomNumber, RoomSnapshot};
use core::fmt;

/// What happened in rooms of one worker: made durable as a whole or not at all.
///
/// A snapshot contains the events before it, also those of this batch, so their order does not matter.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    log: Vec<u8>,
    rooms: Vec<(RoomNumber, RoomWrite)>,
}

/// What becomes of what is stored of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomWrite {
    /// It is replaced by this, and its events up to there are not needed any more.
    Snapshot {
        /// The room's id.
        id: Box<str>,
        /// The snapshot.
        snapshot: RoomSnapshot,
    },
    /// The room's guest has failed for good, and so the room has ended: it is removed.
    Remove,
    /// The room was ended from outside: it is removed, and nothing of it is kept.
    Discard,
    /// What is stored stays as it is, but cannot be restored: it is not tried again. This is why.
    Quarantine(String),
}

impl Batch {
    /// Appends an event of a room: the `number`th, counted from 0 and without gaps.
    pub fn log(&mut self, room: RoomNumber, number: u64, event: &[u8]) {
        let entry = LogEntry {
            room,
            number,
            event,
        };
        entry.encode(&mut self.log);
    }

    /// Adds a room's new snapshot, or its end.
    pub fn write(&mut self, room: RoomNumber, write: RoomWrite) {
        self.rooms.push((room, write));
    }

    /// The events, in order, to be read by [`LogEntries`].
    #[must_use]
    pub fn events(&self) -> &[u8] {
        &self.log
    }

    /// The rooms that are written, in order.
    #[must_use]
    pub fn rooms(&self) -> &[(RoomNumber, RoomWrite)] {
        &self.rooms
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && self.rooms.is_empty()
    }

    /// About how many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_room = |write: &RoomWrite| match write {
            RoomWrite::Snapshot { id, snapshot } => {
                id.len() + snapshot.room.len() + snapshot.clients.len()
            }
            RoomWrite::Remove | RoomWrite::Discard | RoomWrite::Quarantine(_) => 0,
        };
        let rooms = self.rooms.iter().map(|(_, write)| of_room(write));
        self.log.len() + rooms.sum::<usize>()
    }
}

/// Reads logged events. Each is three numbers (room, number of the event, length) in LEB128 and the
/// event's bytes.
#[derive(Clone, Debug)]
pub struct LogEntries<'a>(&'a [u8]);

/// A logged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// The event's room.
    pub room: RoomNumber,
    /// Which event of the room it is.
    pub number: u64,
    /// The event.
    pub event: &'a [u8],
}

impl LogEntry<'_> {
    /// Appends the event, to be read by [`LogEntries`].
    pub fn encode(&self, to: &mut Vec<u8>) {
        write_number(to, self.room.0);
        write_number(to, self.number);
        write_number(to, self.event.len() as u64);
        to.extend_from_slice(self.event);
    }
}

/// The bytes are no logged events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedLog;

impl fmt::Display for MalformedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log is malformed")
    }
}

impl std::error::Error for MalformedLog {}

impl<'a> LogEntries<'a> {
    /// Reads the events in these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that were not read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn read(&mut self) -> Result<LogEntry<'a>, MalformedLog> {
        let room = RoomNumber(self.read_number()?);
        let number = self.read_number()?;
        let length = usize::try_from(self.read_number()?).map_err(|_| MalformedLog)?;
        let (event, rest) = self.0.split_at_checked(length).ok_or(MalformedLog)?;
        self.0 = rest;
        Ok(LogEntry {
            room,
            number,
            event,
        })
    }

    fn read_number(&mut self) -> Result<u64, MalformedLog> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(MalformedLog)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(MalformedLog);
            }
            number |= bits << shift;
            if *byte < 0x80 {
                return Ok(number);
            }
        }
        Err(MalformedLog)
    }
}

/// Ends at the first error.
impl<'a> Iterator for LogEntries<'a> {
    type Item = Result<LogEntry<'a>, MalformedLog>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

fn write_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_were_written() {
        let entries = [
            (RoomNumber(1), 0, &b"first"[..]),
            (RoomNumber(u64::MAX), u64::MAX, b""),
            (RoomNumber(300), 128, &[7; 1000]),
        ];
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        for (room, number, event) in entries {
            batch.log(room, number, event);
        }
        let read: Result<Vec<_>, _> = LogEntries::new(batch.events()).collect();
        let read: Vec<_> = read
            .expect("well-formed")
            .into_iter()
            .map(|entry| (entry.room, entry.number, entry.event))
            .collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn what_is_cut_is_malformed() {
        let mut batch = Batch::default();
        batch.log(RoomNumber(200), 5, b"event");
        for length in 1..batch.events().len() {
            let mut entries = LogEntries::new(&batch.events()[..length]);
            assert_eq!(entries.next(), Some(Err(MalformedLog)), "{length}");
            assert_eq!(entries.next(), None);
        }
        let too_long = [0xff; 11];
        let mut entries = LogEntries::new(&too_long);
        assert_eq!(entries.next(), Some(Err(MalformedLog)));
    }
}
