//! The events of rooms since their snapshots, and the table of those that earlier processes have logged.
//!
//! When a store is opened, what rooms need of the log is moved to a row for each of them, and the log begins
//! anew: a room that is not restored keeps its own events, and not those of all others.

use crate::{
    error::StoreError,
    event_log::{bytes, entries, intact, sealed},
    rooms::{self, from_sql, to_sql},
};
use rusqlite::{Connection, OptionalExtension, types::ValueRef};
use stateroom_wasmi_server::journal::{LogEntry, RoomNumber};
use std::collections::HashMap;

/// The events of each room since its snapshot.
#[derive(Default)]
pub(crate) struct Tails {
    events: HashMap<RoomNumber, Tail>,
    /// Rooms of which events may be missing, and why.
    damaged: HashMap<RoomNumber, String>,
    /// Those with a row in the table, and whether it is intact.
    carried: HashMap<RoomNumber, bool>,
    /// Those with a row in the table that are there no more.
    unneeded: Vec<RoomNumber>,
}

#[derive(Default)]
struct Tail {
    /// In the format of the log.
    events: Vec<u8>,
    /// The number of the event after the last.
    next_event: u64,
}

impl Tails {
    /// Reads the table and the log. `saved` has how many events each room's snapshot contains.
    pub(crate) fn read(
        connection: &Connection,
        saved: &HashMap<RoomNumber, u64>,
    ) -> Result<Self, StoreError> {
        let mut tails = Self::default();
        let mut statement = connection.prepare("SELECT room, events, damage FROM tails")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let room = RoomNumber(from_sql(row.get(0)?));
            if !saved.contains_key(&room) {
                tails.unneeded.push(room);
                continue;
            }
            let sealed = bytes(row, 1)?;
            let events = intact(&sealed).and_then(entries);
            tails.carried.insert(room, events.is_some());
            match events {
                Some(events) => events.iter().for_each(|entry| tails.add(entry, saved)),
                None => tails.add_damage(room, "its row of events is damaged".into()),
            }
            if row.get_ref(2)? != ValueRef::Null {
                tails.add_damage(room, rooms::text(row, 2)?);
            }
        }
        let mut statement = connection.prepare("SELECT n, events, rooms FROM log ORDER BY n")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let n: i64 = row.get(0)?;
            if let Some(events) = intact(&bytes(row, 1)?).and_then(entries) {
                events.iter().for_each(|entry| tails.add(entry, saved));
                continue;
            }
            let rooms = bytes(row, 2)?;
            let rooms = intact(&rooms).ok_or_else(|| {
                StoreError::Damaged(format!("row {n} of the log, and which rooms are in it"))
            })?;
            for room in rooms.chunks_exact(8) {
                let room = RoomNumber(room.try_into().map_or(0, u64::from_le_bytes));
                if saved.contains_key(&room) {
                    tails.add_damage(room, format!("row {n} of the log is damaged"));
                }
            }
        }
        Ok(tails)
    }

    fn add(&mut self, entry: &LogEntry<'_>, saved: &HashMap<RoomNumber, u64>) {
        // Otherwise the room was removed, or its snapshot contains the event.
        if saved
            .get(&entry.room)
            .is_some_and(|events| entry.number >= *events)
        {
            let tail = self.events.entry(entry.room).or_default();
            entry.encode(&mut tail.events);
            tail.next_event = entry.number.saturating_add(1);
        }
    }

    fn add_damage(&mut self, room: RoomNumber, reason: String) {
        self.damaged.entry(room).or_insert(reason);
    }

    /// The events of a room, in the format of the log.
    pub(crate) fn of(&self, room: RoomNumber) -> &[u8] {
        self.events.get(&room).map_or(&[], |tail| &tail.events)
    }

    /// Rooms of which events may be missing, and why.
    pub(crate) fn damaged(&self) -> &HashMap<RoomNumber, String> {
        &self.damaged
    }

    /// Rooms with events, and the number of the event after those.
    pub(crate) fn next_events(&self) -> impl Iterator<Item = (RoomNumber, u64)> {
        let damaged = self.damaged.keys().map(|room| (*room, 0));
        let intact = self.events.iter();
        damaged.chain(intact.map(|(room, tail)| (*room, tail.next_event)))
    }

    /// Makes these the table, and empties the log. That events may be missing is noted, since nothing else
    /// tells it from then on.
    pub(crate) fn carry_over(&self, connection: &Connection) -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        let is_needed = |room| self.events.contains_key(room) || self.damaged.contains_key(room);
        let contained = self.carried.keys().filter(|room| !is_needed(room));
        for room in self.unneeded.iter().chain(contained) {
            remove(&transaction, *room)?;
        }
        let has_logged = "SELECT EXISTS (SELECT 1 FROM log)";
        if transaction.query_row(has_logged, [], |row| row.get(0))? {
            let sql = "INSERT INTO tails (room, events, damage) VALUES (?1, ?2, ?3)
                ON CONFLICT (room) DO UPDATE SET events = excluded.events, damage = excluded.damage";
            let mut statement = transaction.prepare(sql)?;
            let only_damaged = self
                .damaged
                .keys()
                .filter(|room| !self.events.contains_key(room));
            for room in self.events.keys().chain(only_damaged) {
                // A row that is damaged stays as it is.
                if self.carried.get(room) != Some(&false) {
                    let (events, damage) = (sealed(self.of(*room)), self.damaged.get(room));
                    statement.execute((to_sql(room.0), events, damage))?;
                }
            }
            transaction.execute("DELETE FROM log", [])?;
        }
        transaction.commit()
    }
}

/// The events of a room, if none may be missing.
pub(crate) fn read(connection: &Connection, room: RoomNumber) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement =
        connection.prepare_cached("SELECT events FROM tails WHERE room = ?1 AND damage IS NULL")?;
    let row = statement.query_row([to_sql(room.0)], |row| bytes(row, 0));
    Ok(row.optional()?.and_then(|row| intact(&row).map(Into::into)))
}

/// Takes what there is of a room's events for all of them.
pub(crate) fn accept_damage(connection: &Connection, room: RoomNumber) -> rusqlite::Result<()> {
    let sql = "UPDATE tails SET damage = NULL WHERE room = ?1";
    connection.execute(sql, [to_sql(room.0)]).map(drop)
}

pub(crate) fn remove(connection: &Connection, room: RoomNumber) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM tails WHERE room = ?1")?;
    statement.execute([to_sql(room.0)]).map(drop)
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
