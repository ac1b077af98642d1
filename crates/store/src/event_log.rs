//! The table of events, and what of it rooms still need.

use crate::tails::{self, Tails};
use rusqlite::{Connection, Row, types::ValueRef};
use stateroom_wasmi_server::journal::{LogEntries, LogEntry, RoomNumber};
use std::collections::{BTreeMap, HashMap};

/// What each room needs of the log.
///
/// What a transaction changes here is not undone if that fails: it is tried again, or nothing is written any
/// more, and until then only rows are kept that might be deleted.
#[derive(Default)]
pub(crate) struct LogIndex {
    rooms: HashMap<RoomNumber, LoggedTail>,
    /// How many rooms need the log from a row on.
    needed: BTreeMap<i64, usize>,
    /// The last row.
    last_row: i64,
    /// Rows up to this one were deleted.
    deleted: i64,
    /// The last row when rows were last deleted.
    trimmed_at: i64,
    /// Rooms with events of earlier processes, and the number of the event after those.
    carried: HashMap<RoomNumber, u64>,
}

/// The events of a room since its snapshot, in this process.
struct LoggedTail {
    first_row: i64,
    /// The number of the event after the last.
    next_event: u64,
}

/// Rows that are deleted at once: what a transaction can do in a millisecond or two. If more have come, twice
/// as many as those are.
const DELETED_AT_ONCE: i64 = 256;

impl LogIndex {
    /// An empty log, beside these events of earlier processes.
    pub(crate) fn new(tails: &Tails) -> Self {
        Self {
            carried: tails.next_events().collect(),
            ..Self::default()
        }
    }

    /// Whether a room has events since its snapshot.
    pub(crate) fn has_tail(&self, room: RoomNumber) -> bool {
        self.rooms.contains_key(&room) || self.carried.contains_key(&room)
    }

    /// The rooms with events since their snapshots, while none were logged in this process.
    pub(crate) fn with_tails(&self) -> impl Iterator<Item = RoomNumber> {
        self.carried.keys().copied()
    }

    fn add(&mut self, n: i64, room: RoomNumber, number: u64) {
        let needed = &mut self.needed;
        let tail = self.rooms.entry(room).or_insert_with(|| {
            *needed.entry(n).or_default() += 1;
            LoggedTail {
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
    pub(crate) fn saved(
        &mut self,
        connection: &Connection,
        room: RoomNumber,
        events: u64,
    ) -> rusqlite::Result<()> {
        let is_contained = |tail: &LoggedTail| tail.next_event <= events;
        if self.rooms.get(&room).is_some_and(is_contained) {
            self.forget_logged(room);
        }
        if self.carried.get(&room).is_some_and(|next| *next <= events) {
            tails::remove(connection, room)?;
            self.carried.remove(&room);
        }
        Ok(())
    }

    /// A room needs its events no longer.
    pub(crate) fn forget(
        &mut self,
        connection: &Connection,
        room: RoomNumber,
    ) -> rusqlite::Result<()> {
        self.forget_logged(room);
        if self.carried.remove(&room).is_some() {
            tails::remove(connection, room)?;
        }
        Ok(())
    }

    fn forget_logged(&mut self, room: RoomNumber) {
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

    /// The events of a room since its snapshot; none if those of earlier processes are damaged.
    pub(crate) fn read_tail(
        &self,
        connection: &Connection,
        room: RoomNumber,
        saved: u64,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut tail = Vec::new();
        let mut add = |events: &[u8]| {
            // What is missing is noticed when the rest is replayed.
            for entry in entries(events).unwrap_or_default() {
                if entry.room == room && entry.number >= saved {
                    entry.encode(&mut tail);
                }
            }
        };
        if self.carried.contains_key(&room) {
            match tails::read(connection, room)? {
                Some(events) => add(&events),
                None => return Ok(None),
            }
        }
        if let Some(logged) = self.rooms.get(&room) {
            let mut statement =
                connection.prepare_cached("SELECT events FROM log WHERE n >= ?1 ORDER BY n")?;
            let mut rows = statement.query([logged.first_row])?;
            while let Some(row) = rows.next()? {
                add(intact(&bytes(row, 0)?).unwrap_or_default());
            }
        }
        Ok(Some(tail))
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

/// The bytes of a value; of one of another type none, whose checksum is wrong.
pub(crate) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) => bytes.into(),
        _ => Vec::new(),
    })
}

/// None if they are malformed.
pub(crate) fn entries(events: &[u8]) -> Option<Vec<LogEntry<'_>>> {
    LogEntries::new(events).collect::<Result<_, _>>().ok()
}

/// The bytes with their checksum behind them.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
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
