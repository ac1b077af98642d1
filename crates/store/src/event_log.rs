//! The table of events, and what of it rooms still need.

use crate::{error::StoreError, rooms::from_sql};
use rusqlite::{Connection, Row, types::ValueRef};
use stateroom_wasmi_server::journal::{Batch, LogEntries, LogEntry, RoomNumber};
use std::collections::{BTreeMap, HashMap};

/// What each room needs of the log.
///
/// What a transaction changes here is not undone if that fails: it is tried again, or nothing is written any
/// more, and until then only rows are kept that might be deleted.
#[derive(Default)]
pub(crate) struct LogIndex {
    rooms: HashMap<RoomNumber, Tail>,
    /// How many rooms need the log from a row on.
    needed: BTreeMap<i64, usize>,
    /// The last row.
    last_row: i64,
    /// Rows up to this one were deleted.
    deleted: i64,
    /// The last row when rows were last deleted.
    trimmed_at: i64,
}

/// The events of a room since its snapshot.
struct Tail {
    first_row: i64,
    /// The number of the event after the last.
    next_event: u64,
}

/// What was found when the log was read.
#[derive(Default)]
pub(crate) struct FoundTails {
    /// For each room its events since its snapshot, in the format of the log.
    pub(crate) events: HashMap<RoomNumber, Vec<u8>>,
    /// Rooms of which events may be missing.
    pub(crate) damaged: HashMap<RoomNumber, String>,
}

/// Rows that are deleted at once: what a transaction can do in a millisecond or two. If more have come, twice
/// as many as those are.
const DELETED_AT_ONCE: i64 = 256;

impl LogIndex {
    /// Reads the log. `saved` has how many events each room's snapshot contains.
    pub(crate) fn read(
        connection: &Connection,
        saved: &HashMap<RoomNumber, u64>,
    ) -> Result<(Self, FoundTails), StoreError> {
        let (mut index, mut found) = (Self::default(), FoundTails::default());
        let mut statement = connection.prepare("SELECT n, events, rooms FROM log ORDER BY n")?;
        let mut rows = statement.query([])?;
        let mut first_row = None;
        while let Some(row) = rows.next()? {
            let n: i64 = row.get(0)?;
            first_row.get_or_insert(n);
            index.last_row = n;
            let (events, rooms) = (bytes(row, 1)?, bytes(row, 2)?);
            match intact(&events).and_then(entries) {
                Some(entries) => {
                    for entry in entries {
                        index.found(n, &entry, saved, &mut found);
                    }
                }
                None => found.is_damaged(n, &rooms)?,
            }
        }
        index.deleted = first_row.map_or(index.last_row, |first| first - 1);
        index.trimmed_at = index.last_row;
        Ok((index, found))
    }

    fn found(
        &mut self,
        n: i64,
        entry: &LogEntry<'_>,
        saved: &HashMap<RoomNumber, u64>,
        found: &mut FoundTails,
    ) {
        let Some(events) = saved.get(&entry.room) else {
            // The room was removed.
            return;
        };
        if entry.number < *events {
            return;
        }
        self.add(n, entry.room, entry.number);
        let mut log = Batch::default();
        log.log(entry.room, entry.number, entry.event);
        let tail = found.events.entry(entry.room).or_default();
        tail.extend_from_slice(log.events());
    }

    fn add(&mut self, n: i64, room: RoomNumber, number: u64) {
        let needed = &mut self.needed;
        let tail = self.rooms.entry(room).or_insert_with(|| {
            *needed.entry(n).or_default() += 1;
            Tail {
                first_row: n,
                next_event: 0,
            }
        });
        tail.next_event = number.saturating_add(1);
    }

    /// Writes events in a row.
    pub(crate) fn write(&mut self, connection: &Connection, events: &[u8]) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.last_row += 1;
        let mut rooms: Vec<u64> = Vec::new();
        for entry in LogEntries::new(events).flatten() {
            self.add(self.last_row, entry.room, entry.number);
            if rooms.last() != Some(&entry.room.0) {
                rooms.push(entry.room.0);
            }
        }
        rooms.sort_unstable();
        rooms.dedup();
        let rooms: Vec<u8> = rooms.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut statement =
            connection.prepare_cached("INSERT INTO log (n, events, rooms) VALUES (?1, ?2, ?3)")?;
        statement
            .execute((self.last_row, sealed(events), sealed(&rooms)))
            .map(drop)
    }

    /// A room's snapshot contains this many events.
    pub(crate) fn saved(&mut self, room: RoomNumber, events: u64) {
        let is_contained = |tail: &Tail| tail.next_event <= events;
        if self.rooms.get(&room).is_some_and(is_contained) {
            self.forget(room);
        }
    }

    /// A room needs the log no longer.
    pub(crate) fn forget(&mut self, room: RoomNumber) {
        if let Some(tail) = self.rooms.remove(&room)
            && let Some(count) = self.needed.get_mut(&tail.first_row)
        {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&tail.first_row);
            }
        }
    }

    /// How many rows of the log there are from the first on that a room needs.
    pub(crate) fn rows_of(&self, room: RoomNumber) -> i64 {
        let tail = self.rooms.get(&room);
        tail.map_or(0, |tail| self.last_row - tail.first_row + 1)
    }

    /// The events of a room since its snapshot.
    pub(crate) fn read_tail(
        &self,
        connection: &Connection,
        room: RoomNumber,
        saved: u64,
    ) -> rusqlite::Result<Vec<u8>> {
        let mut log = Batch::default();
        if let Some(tail) = self.rooms.get(&room) {
            let mut statement =
                connection.prepare_cached("SELECT events FROM log WHERE n >= ?1 ORDER BY n")?;
            let mut rows = statement.query([tail.first_row])?;
            while let Some(row) = rows.next()? {
                let events = bytes(row, 0)?;
                // What is missing is noticed when the rest is replayed.
                for entry in intact(&events).and_then(entries).unwrap_or_default() {
                    if entry.room == room && entry.number >= saved {
                        log.log(room, entry.number, entry.event);
                    }
                }
            }
        }
        Ok(log.events().into())
    }

    /// Deletes rows that no room needs.
    pub(crate) fn trim(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let first_needed = self.needed.first_key_value().map(|(row, _)| *row);
        let unneeded = first_needed.map_or(self.last_row, |first| first - 1);
        if unneeded <= self.deleted {
            return Ok(());
        }
        let at_once = DELETED_AT_ONCE.max(2 * (self.last_row - self.trimmed_at));
        let up_to = unneeded.min(self.deleted.saturating_add(at_once));
        let mut statement = connection.prepare_cached("DELETE FROM log WHERE n <= ?1")?;
        statement.execute([up_to])?;
        self.deleted = up_to;
        self.trimmed_at = self.last_row;
        Ok(())
    }
}

impl FoundTails {
    /// Notes which rooms a damaged row harms.
    fn is_damaged(&mut self, n: i64, rooms: &[u8]) -> Result<(), StoreError> {
        let rooms = intact(rooms).ok_or_else(|| {
            StoreError::Damaged(format!("row {n} of the log, and which rooms are in it"))
        })?;
        for room in rooms.chunks_exact(8) {
            let room = room.try_into().map_or(0, u64::from_le_bytes);
            let reason = format!("row {n} of the log is damaged");
            self.damaged.insert(RoomNumber(room), reason);
        }
        Ok(())
    }
}

/// The bytes of a value; of one of another type none, whose checksum is wrong.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) => bytes.into(),
        _ => Vec::new(),
    })
}

/// None if they are malformed.
fn entries(events: &[u8]) -> Option<Vec<LogEntry<'_>>> {
    LogEntries::new(events).collect::<Result<_, _>>().ok()
}

/// The bytes with their checksum behind them.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(bytes.len() + 4);
    sealed.extend_from_slice(bytes);
    sealed.extend(crc32fast::hash(bytes).to_le_bytes());
    sealed
}

/// The bytes before their checksum, if that is right.
pub(crate) fn intact(sealed: &[u8]) -> Option<&[u8]> {
    let (bytes, checksum) = sealed.split_last_chunk()?;
    (crc32fast::hash(bytes) == u32::from_le_bytes(*checksum)).then_some(bytes)
}

/// How many events each snapshot contains.
pub(crate) fn saved_events(
    connection: &Connection,
) -> Result<HashMap<RoomNumber, u64>, StoreError> {
    let mut statement = connection.prepare("SELECT number, events FROM rooms")?;
    let rows = statement.query_map([], |row| {
        // The row of another type is damaged; all of its events are kept.
        let events = row.get(1).unwrap_or(0);
        Ok((RoomNumber(from_sql(row.get(0)?)), from_sql(events)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
