//! What a room did until it failed, in files: the report of a fault.

use crate::{event_log::LogIndex, rooms};
use rusqlite::Connection;
use stateroom_wasmi_host::Escaped;
use stateroom_wasmi_server::journal::{RoomFile, RoomNumber};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Keeps the rooms that have failed lately, in the folder `faults` of the store.
pub(crate) struct FaultFiles {
    folder: PathBuf,
    written_at: Option<Instant>,
}

/// Files that are kept; those with the lowest numbers go first.
const MAX_FILES: usize = 100;

/// A guest can fail at will: time between two files.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rows of the log that are read for a file, which other rooms wait for.
const MAX_ROWS: i64 = 2000;

impl FaultFiles {
    pub(crate) fn new(store: &Path) -> Self {
        Self {
            folder: store.join("faults"),
            written_at: None,
        }
    }

    /// Writes a room that is about to be removed. Its events are in the log, also those of this transaction.
    pub(crate) fn write(
        &mut self,
        connection: &Connection,
        log: &LogIndex,
        number: RoomNumber,
    ) -> rusqlite::Result<()> {
        let is_early = self.written_at.is_some_and(|at| at.elapsed() < INTERVAL);
        if is_early || log.rows_of(number) > MAX_ROWS {
            return Ok(());
        }
        let Some((id, row)) = rooms::find_number(connection, number)? else {
            return Ok(());
        };
        let snapshot = row.snapshot;
        let Some(tail) = log.read_tail(connection, number, snapshot.events)? else {
            return Ok(());
        };
        self.written_at = Some(Instant::now());
        let file = RoomFile {
            id: id.as_str().into(),
            snapshot,
            tail,
        };
        let name = self.folder.join(format!("{}.room", number.0));
        // Not what the store is for: without space for it, the rooms go on.
        match self.write_file(&name, &file.encode()) {
            Ok(()) => log::info!(
                "what room {:?} did until it failed is in {:?}",
                Escaped::new(&id).at_most(256),
                Escaped::new(name.display())
            ),
            Err(error) => log::warn!("cannot write {:?}: {error}", Escaped::new(name.display())),
        }
        Ok(())
    }

    fn write_file(&self, name: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut files: Vec<(u64, PathBuf)> = fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name();
                let number = name.to_str()?.strip_suffix(".room")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        files.sort_unstable();
        let surplus = (files.len() + 1).saturating_sub(MAX_FILES);
        for (_, file) in &files[..surplus] {
            fs::remove_file(file)?;
        }
        fs::write(name, bytes)
    }
}
