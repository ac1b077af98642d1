//! Notes of what is being replayed, by which an event is found out that ends the process each time.
//!
//! A note is the content of a file. It is not synchronised: it has to survive the process, which what was
//! written does, and not the machine.

use crate::{
    error::StoreError,
    rooms::{self, from_sql, to_sql},
};
use rusqlite::{Connection, OptionalExtension};
use stateroom_wasmi_server::journal::RoomNumber;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

/// The files of the workers.
#[derive(Default)]
pub(crate) struct Replays {
    folder: PathBuf,
    files: Vec<Option<File>>,
    /// What each worker replays.
    noted: Vec<Option<(RoomNumber, u64)>>,
    /// Events at which a process has ended.
    suspects: HashMap<RoomNumber, u64>,
}

/// Deaths in a row at the same event after which a room is not restored any more. Something that kills the
/// process again and again may do so twice at the same event by chance.
const MAX_DEATHS: u32 = 3;

const PREFIX: &str = "replaying-";

impl Replays {
    pub(crate) fn new(folder: &Path, suspects: HashMap<RoomNumber, u64>) -> Self {
        Self {
            folder: folder.into(),
            files: Vec::new(),
            noted: Vec::new(),
            suspects,
        }
    }

    /// Notes what a worker is about to replay. What it replayed before did not end the process: returns the
    /// room of that if it was suspect.
    pub(crate) fn note(
        &mut self,
        worker: usize,
        event: Option<(RoomNumber, u64)>,
    ) -> io::Result<Option<RoomNumber>> {
        if self.files.len() <= worker {
            self.files.resize_with(worker + 1, || None);
            self.noted.resize(worker + 1, None);
        }
        let survived = core::mem::replace(&mut self.noted[worker], event);
        let acquitted = survived.filter(|(room, event)| self.suspects.get(room) == Some(event));
        let acquitted = acquitted.map(|(room, _)| room);
        if let Some(room) = acquitted {
            self.suspects.remove(&room);
        }
        let file = match &mut self.files[worker] {
            Some(file) => file,
            slot => slot.insert(File::create(self.folder.join(format!("{PREFIX}{worker}")))?),
        };
        // No room has the number 0.
        let (room, number) = event.map_or((0, 0), |(room, number)| (room.0, number));
        let mut note = [0; 16];
        note[..8].copy_from_slice(&room.to_le_bytes());
        note[8..].copy_from_slice(&number.to_le_bytes());
        file.rewind()?;
        file.write_all(&note)?;
        Ok(acquitted)
    }
}

/// Counts the deaths of the processes before at what they replayed.
pub(crate) fn blame(folder: &Path, connection: &Connection) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::Folder)? {
        let entry = entry.map_err(StoreError::Folder)?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let note = fs::read(entry.path()).map_err(StoreError::Folder)?;
        if let Some((room, event)) = parse(&note) {
            count_death(connection, room, event)?;
        }
        // Counted, so that it is not counted again.
        fs::remove_file(entry.path()).map_err(StoreError::Folder)?;
    }
    Ok(())
}

fn parse(note: &[u8]) -> Option<(RoomNumber, u64)> {
    let (room, event) = note.split_first_chunk()?;
    let room = u64::from_le_bytes(*room);
    let event = u64::from_le_bytes(event.try_into().ok()?);
    (room != 0).then_some((RoomNumber(room), event))
}

fn count_death(connection: &Connection, room: RoomNumber, event: u64) -> Result<(), StoreError> {
    let sql = "UPDATE rooms SET
            deaths = CASE WHEN fatal_event = ?2 THEN deaths + 1 ELSE 1 END,
            fatal_event = ?2
        WHERE number = ?1 RETURNING deaths, id";
    let deaths = connection
        .query_row(sql, (to_sql(room.0), to_sql(event)), |row| {
            Ok((row.get::<_, u32>(0).unwrap_or(0), rooms::text(row, 1)?))
        })
        .optional()?;
    if let Some((deaths, id)) = deaths
        && deaths >= MAX_DEATHS
    {
        let reason = format!("to replay its event {event} has ended the process {deaths} times");
        log::error!(
            "room {:?} is in quarantine: {reason}",
            stateroom_wasmi_host::Escaped::new(&id).at_most(256)
        );
        rooms::quarantine(connection, room, &reason)?;
    }
    Ok(())
}

/// A room has survived the event at which a process had ended.
pub(crate) fn acquit(connection: &Connection, room: RoomNumber) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE rooms SET deaths = 0 WHERE number = ?1")?;
    statement.execute([to_sql(room.0)]).map(drop)
}

/// How often processes have ended while they replayed this event of a room.
pub(crate) fn deaths(deaths: u32, fatal_event: Option<i64>) -> Option<(u64, u32)> {
    fatal_event
        .filter(|_| deaths > 0)
        .map(|event| (from_sql(event), deaths))
}
