//! What operators look at and change.

use crate::{
    Store,
    error::StoreError,
    modules, replays,
    rooms::{self, duration, from_sql, to_sql},
    schema,
    tails::{self, Tails, saved_events},
    writer::Job,
};
use core::time::Duration;
use rusqlite::{Connection, types::ValueRef};
use stateroom_wasmi_server::journal::{
    Done, Journal, JournalError, LogEntries, RoomFile, RoomNumber, RoomWrite, Stored,
};
use std::{path::Path, sync::mpsc};

/// A store that is read, maybe while a server writes.
#[derive(Debug)]
pub struct Reader(Connection);

/// What is stored of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomDetails {
    /// The room's id.
    pub id: Box<str>,
    /// Bytes of its snapshot, and of what is known of its clients.
    pub bytes: u64,
    /// Events in its snapshot.
    pub events: u64,
    /// Events since.
    pub events_since: u64,
    /// Bytes of those.
    pub bytes_since: u64,
    /// When it was saved, since the Unix epoch.
    pub saved_at: Duration,
    /// When it wakes by itself, since the Unix epoch.
    pub wake_at: Option<Duration>,
    /// Whether it can be restored.
    pub state: RoomState,
}

/// Whether a room can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomState {
    /// As far as is known.
    Stored,
    /// The process has ended while it replayed an event of the room, so often in a row.
    Suspect {
        /// The number of the event.
        event: u64,
        /// How often.
        deaths: u32,
    },
    /// It is not restored any more, and why.
    Quarantined(String),
    /// What is stored is damaged, and what of it.
    Damaged(String),
}

impl Reader {
    /// Opens the store of a folder.
    ///
    /// # Errors
    ///
    /// If there is none of this version, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        schema::open_to_read(folder).map(Self)
    }

    /// All rooms, in the order of their ids.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn rooms(&self) -> Result<Vec<RoomDetails>, StoreError> {
        let transaction = self.0.unchecked_transaction()?;
        let tails = Tails::read(&transaction, &saved_events(&transaction)?)?;
        let mut statement = transaction.prepare(
            "SELECT number, id, length(snapshot) + length(clients), events, saved_at, wake_at,
                deaths, fatal_event, quarantine
             FROM rooms ORDER BY id",
        )?;
        let rows = statement.query_map([], |row| {
            let number = RoomNumber(from_sql(row.get(0)?));
            let id = rooms::text(row, 1)?;
            let tail = tails.of(number);
            let deaths = row.get(6).unwrap_or(0);
            let deaths = replays::deaths(deaths, row.get(7).unwrap_or(None));
            let is_quarantined = row.get_ref(8)? != ValueRef::Null;
            let quarantine = is_quarantined.then(|| rooms::text(row, 8)).transpose()?;
            let damage = match rooms::is_intact(&transaction, &id)? {
                true => tails.damaged().get(&number).cloned(),
                false => Some("the room's row is damaged".into()),
            };
            Ok(RoomDetails {
                id: id.into(),
                bytes: from_sql(row.get(2).unwrap_or(0)),
                events: from_sql(row.get(3).unwrap_or(0)),
                events_since: LogEntries::new(tail).count() as u64,
                bytes_since: tail.len() as u64,
                saved_at: duration(row.get(4).unwrap_or(0)),
                wake_at: row.get(5).unwrap_or(None).map(duration),
                state: match (damage, quarantine, deaths) {
                    (Some(damage), ..) => RoomState::Damaged(damage),
                    (None, Some(reason), _) => RoomState::Quarantined(reason),
                    (None, None, None) => RoomState::Stored,
                    (None, None, Some((event, deaths))) => RoomState::Suspect { event, deaths },
                },
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A room with its events.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be read.
    pub fn export(&self, id: &str) -> Result<RoomFile, StoreError> {
        let transaction = self.0.unchecked_transaction()?;
        let row = rooms::find(&transaction, id)?.ok_or(StoreError::UnknownRoom)?;
        let tails = Tails::read(&transaction, &saved_events(&transaction)?)?;
        if !row.is_intact || tails.damaged().contains_key(&row.number) {
            return Err(StoreError::Damaged("this room is".into()));
        }
        Ok(RoomFile {
            id: id.into(),
            snapshot: row.snapshot,
            tail: tails.of(row.number).into(),
        })
    }
}

/// What operators change while no server runs.
impl Store {
    /// Adds a room that was exported.
    ///
    /// # Errors
    ///
    /// If there is a room of its id, or it cannot be written.
    pub fn import(&self, room: &RoomFile) -> Result<(), StoreError> {
        let number = match self.wait(|done| self.load(&room.id, done))? {
            Stored::New(number) => number,
            Stored::Room(_) | Stored::Quarantined(_) => return Err(StoreError::RoomExists),
        };
        let mut batch = room.tail_of(number);
        let write = RoomWrite::Snapshot {
            id: room.id.clone(),
            snapshot: room.snapshot.clone(),
        };
        batch.write(number, write);
        self.wait(|done| self.write(batch, done))
    }

    /// Adds a room that was exported, in place of the one of its id if there is one, in whatever state that is:
    /// after a crash there is either of them.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn replace(&self, room: &RoomFile) -> Result<(), StoreError> {
        self.wait(|done| self.submit(Job::Replace(room.clone(), done)))
    }

    /// Waits until the journal has done something.
    fn wait<T: Send + 'static>(&self, submit: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
        let (send, receive) = mpsc::channel();
        submit(Box::new(move |result| drop(send.send(result))));
        let result = receive.recv();
        let result = result.unwrap_or(Err(JournalError::Closed));
        result.map_err(StoreError::Journal)
    }

    /// Removes the rooms that were not saved since this time, since the Unix epoch, and then the modules that
    /// no room has; returns how many rooms.
    ///
    /// # Errors
    ///
    /// If another process has the store open, or it cannot be written.
    pub fn prune(folder: &Path, before: Duration) -> Result<usize, StoreError> {
        let _lock = crate::lock(folder)?;
        let connection = schema::open_existing(folder)?;
        let sql = "DELETE FROM rooms WHERE saved_at < ?1";
        let removed = connection.execute(sql, [rooms::millis(before)])?;
        modules::remove_unused(&connection)?;
        Ok(removed)
    }

    /// Lets a room that is in quarantine be restored again. If events of it were damaged, what there is of
    /// them is taken for all.
    ///
    /// # Errors
    ///
    /// If another process has the store open, there is no such room, or it cannot be written.
    pub fn release(folder: &Path, id: &str) -> Result<(), StoreError> {
        let _lock = crate::lock(folder)?;
        let connection = schema::open_existing(folder)?;
        let room = rooms::number(&connection, id)?.ok_or(StoreError::UnknownRoom)?;
        let sql = "UPDATE rooms SET deaths = 0, quarantine = NULL WHERE number = ?1";
        connection.execute(sql, [to_sql(room.0)])?;
        // What is damaged may still be in the log, of a process that had not opened the store since.
        Tails::read(&connection, &saved_events(&connection)?)?.carry_over(&connection)?;
        tails::accept_damage(&connection, room)?;
        // What cannot be read is no loss that could be accepted: nothing tells what is in it.
        match Tails::read(&connection, &saved_events(&connection)?)?
            .damaged()
            .get(&room)
        {
            Some(damage) => Err(StoreError::Damaged(damage.clone())),
            None => Ok(()),
        }
    }
}
