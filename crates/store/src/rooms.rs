//! The table of rooms.

use core::time::Duration;
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use stateroom_wasmi_server::journal::{RoomNumber, RoomSnapshot};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

/// A row of the table.
pub(crate) struct RoomRow {
    pub(crate) number: RoomNumber,
    pub(crate) snapshot: RoomSnapshot,
    pub(crate) quarantine: Option<String>,
    /// Whether the row is as it was written.
    pub(crate) is_intact: bool,
}

/// Integers of SQLite have 63 bits and a sign.
pub(crate) fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

pub(crate) fn from_sql(number: i64) -> u64 {
    number.cast_unsigned()
}

/// Milliseconds since the Unix epoch; later than 292 million years is that.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

pub(crate) fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<RoomRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, events, snapshot, clients, checksum, wake_at, quarantine
         FROM rooms WHERE id = ?1",
    )?;
    statement.query_row([id], |row| read(row, id)).optional()
}

/// The number of the room of this id, in whatever state it is.
pub(crate) fn number(connection: &Connection, id: &str) -> rusqlite::Result<Option<RoomNumber>> {
    let mut statement = connection.prepare_cached("SELECT number FROM rooms WHERE id = ?1")?;
    let number = statement.query_row([id], |row| Ok(RoomNumber(from_sql(row.get(0)?))));
    number.optional()
}

/// The id of a room, unless it is in quarantine or its row is damaged.
pub(crate) fn restorable(
    connection: &Connection,
    number: RoomNumber,
) -> rusqlite::Result<Option<Box<str>>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM rooms WHERE number = ?1 AND quarantine IS NULL
            AND typeof(wake_at) IN ('integer', 'null')",
    )?;
    let id = statement.query_row([to_sql(number.0)], |row| {
        Ok(row.get_ref(0)?.as_str().ok().map(Into::into))
    });
    Ok(id.optional()?.flatten())
}

/// The room of this number, with its id.
pub(crate) fn find_number(
    connection: &Connection,
    number: RoomNumber,
) -> rusqlite::Result<Option<(String, RoomRow)>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, events, snapshot, clients, checksum, wake_at, quarantine, id
         FROM rooms WHERE number = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let id: String = row.get(7)?;
        let room = read(row, &id)?;
        Ok((id, room))
    };
    statement.query_row([to_sql(number.0)], read).optional()
}

fn read(row: &Row<'_>, id: &str) -> rusqlite::Result<RoomRow> {
    let snapshot = RoomSnapshot {
        events: from_sql(row.get(1)?),
        room: row.get(2)?,
        clients: row.get(3)?,
        wake_at: row.get::<_, Option<i64>>(5)?.map(duration),
    };
    let (number, expected) = (RoomNumber(from_sql(row.get(0)?)), row.get::<_, i64>(4)?);
    Ok(RoomRow {
        number,
        is_intact: i64::from(checksum(number, id, &snapshot)) == expected,
        snapshot,
        quarantine: row.get(6)?,
    })
}

pub(crate) fn save(
    connection: &Connection,
    number: RoomNumber,
    id: &str,
    snapshot: &RoomSnapshot,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO rooms (number, id, events, snapshot, clients, checksum, wake_at, saved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (number) DO UPDATE SET
            events = excluded.events, snapshot = excluded.snapshot, clients = excluded.clients,
            checksum = excluded.checksum, wake_at = excluded.wake_at,
            saved_at = excluded.saved_at, deaths = 0, quarantine = NULL",
    )?;
    statement
        .execute((
            to_sql(number.0),
            id,
            to_sql(snapshot.events),
            &snapshot.room,
            &snapshot.clients,
            checksum(number, id, snapshot),
            snapshot.wake_at.map(millis),
            millis(now()),
        ))
        .map(drop)
}

pub(crate) fn remove(connection: &Connection, number: RoomNumber) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM rooms WHERE number = ?1")?;
    statement.execute([to_sql(number.0)]).map(drop)
}

pub(crate) fn quarantine(
    connection: &Connection,
    number: RoomNumber,
    reason: &str,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE rooms SET quarantine = ?2 WHERE number = ?1")?;
    statement.execute((to_sql(number.0), reason)).map(drop)
}

/// What is known of all rooms when a store is opened.
#[derive(Default)]
pub(crate) struct Survey {
    /// How many events each snapshot contains.
    pub(crate) saved: HashMap<RoomNumber, u64>,
    /// Rooms that wake by themselves, and are not in quarantine.
    pub(crate) waking: Vec<(RoomNumber, Box<str>, Duration)>,
    /// The events at which processes have ended.
    pub(crate) suspects: HashMap<RoomNumber, u64>,
    /// Rooms that a look-up of their ids does not find, since the index is damaged: they must not be taken for
    /// new ones.
    pub(crate) unindexed: HashSet<String>,
}

impl Survey {
    /// Reads the table once, and its index once: with a million rooms, it is pages that take the time.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut survey = Self::default();
        let (mut table, mut index) = (IdSet::default(), IdSet::default());
        index.hasher = table.hasher.clone();
        let mut statement = connection.prepare(
            "SELECT number, id, events, wake_at, deaths, fatal_event, quarantine
             FROM rooms NOT INDEXED",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            table.add(row)?;
            survey.add(row)?;
        }
        let mut statement = connection.prepare(
            "SELECT number, id FROM rooms INDEXED BY sqlite_autoindex_rooms_1 ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            index.add(row)?;
        }
        if !index.is_sorted || (table.count, table.sum) != (index.count, index.sum) {
            survey.unindexed = unindexed(connection)?;
        }
        Ok(survey)
    }

    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let number = RoomNumber(from_sql(row.get(0)?));
        // The row of another type is damaged; all of its events are kept.
        self.saved.insert(number, from_sql(row.get(2).unwrap_or(0)));
        if let (Ok(1..), ValueRef::Integer(event)) = (row.get::<_, i64>(4), row.get_ref(5)?) {
            self.suspects.insert(number, from_sql(event));
        }
        if row.get_ref(6)? != ValueRef::Null {
            return Ok(());
        }
        match (row.get_ref(1)?.as_str(), row.get_ref(3)?) {
            (Ok(_), ValueRef::Null) => {}
            (Ok(id), ValueRef::Integer(wake_at)) => {
                self.waking.push((number, id.into(), duration(wake_at)));
            }
            _ => log::error!(
                "room number {} cannot be restored: its row is damaged",
                number.0
            ),
        }
        Ok(())
    }
}

/// Rooms' numbers and ids, of which nothing is kept but a sum of hashes: two sets with the same are equal.
struct IdSet {
    hasher: RandomState,
    sum: u64,
    count: u64,
    /// Whether they came in the order of the index, so that a look-up finds each of them there.
    is_sorted: bool,
    last: Vec<u8>,
}

impl Default for IdSet {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            sum: 0,
            count: 0,
            is_sorted: true,
            last: Vec::new(),
        }
    }
}

impl IdSet {
    /// Adds the row's first two columns.
    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let number: i64 = row.get(0)?;
        let ValueRef::Text(id) = row.get_ref(1)? else {
            self.is_sorted = false;
            return Ok(());
        };
        self.is_sorted &= self.count == 0 || *self.last < *id;
        self.last.clear();
        self.last.extend_from_slice(id);
        self.sum = self.sum.wrapping_add(self.hasher.hash_one((number, id)));
        self.count += 1;
        Ok(())
    }
}

/// The ids of rooms that are not found by them.
fn unindexed(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let sql = "SELECT id FROM rooms NOT INDEXED WHERE NOT EXISTS (
        SELECT 1 FROM rooms AS found INDEXED BY sqlite_autoindex_rooms_1
        WHERE found.id = rooms.id AND found.number = rooms.number)";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| text(row, 0))?;
    rows.collect()
}

/// Whether the row of this room can be read, and is as it was written.
pub(crate) fn is_intact(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    match find(connection, id) {
        Err(error) if crate::writer::is_corrupt(&error) => Ok(false),
        found => Ok(found?.is_some_and(|row| row.is_intact)),
    }
}

/// A text, whatever is stored.
pub(crate) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into(),
        _ => String::new(),
    })
}

/// Of all of a room's row but when it was saved and what is known of its deaths: numbers in 8 bytes, little
/// endian, byte strings after their length. A time that there is not is -1.
fn checksum(number: RoomNumber, id: &str, snapshot: &RoomSnapshot) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.0.to_le_bytes());
    hasher.update(&snapshot.events.to_le_bytes());
    hasher.update(&snapshot.wake_at.map_or(-1, millis).to_le_bytes());
    for bytes in [id.as_bytes(), &snapshot.room, &snapshot.clients] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize()
}
