//! The thread that writes.

use crate::{
    error::StoreError,
    event_log::LogIndex,
    fault_files::FaultFiles,
    modules, replays,
    rooms::{self, Survey},
    schema::{self, read_meta, write_meta},
    tails::Tails,
};
use core::time::Duration;
use rusqlite::{Connection, Error, ErrorCode};
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::journal::{
    Batch, Done, JournalError, RoomFile, RoomNumber, RoomWrite, Stored, StoredRoom, UnfinishedRoom,
};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Instant,
};

/// Something to do.
pub(crate) enum Job {
    Load(Box<str>, Done<Stored>),
    Write(Batch, Done<()>),
    KeepModule(ModuleHash, Box<[u8]>),
    LoadModule(ModuleHash, Done<Option<Vec<u8>>>),
    /// Adds a room, in place of the one of its id if there is one.
    Replace(RoomFile, Done<()>),
    /// A room has survived the event at which a process had ended.
    Acquit(RoomNumber),
}

/// What became of a job, before the transaction is durable.
enum Outcome {
    Written,
    Loaded(Stored),
    Module(Option<Vec<u8>>),
    /// No new room is kept.
    Full,
    Damaged(String),
}

pub(crate) struct Writer {
    connection: Connection,
    log: LogIndex,
    /// Rooms of which events may be missing, and why.
    damaged: HashMap<RoomNumber, String>,
    /// Ids of rooms that the index of ids does not find.
    unindexed: HashSet<String>,
    /// Those that are stored.
    rooms: HashSet<RoomNumber>,
    max_rooms: u64,
    next_number: u64,
    /// Numbers below are not used again after a crash.
    reserved_numbers: u64,
    fault_files: FaultFiles,
    failure: Option<Arc<str>>,
    /// Whether the store is being closed.
    pub(crate) closing: Arc<AtomicBool>,
}

/// What earlier processes have left to do.
pub(crate) struct Leftovers {
    /// Rooms that must be restored.
    pub(crate) unfinished: Vec<UnfinishedRoom>,
    /// Events at which processes have ended.
    pub(crate) suspects: HashMap<RoomNumber, u64>,
}

/// What one transaction may have.
const MAX_JOBS: usize = 4096;
const MAX_BYTES: usize = 16 << 20;

/// Time between the beginnings of two transactions under load, on disks that take less: each costs tens of
/// microseconds of processor time and some pages, however little is in it.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// Time until a transaction is tried again for which the disk had no space.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Writer {
    pub(crate) fn open(folder: &Path, max_rooms: u64) -> Result<(Self, Leftovers), StoreError> {
        Self::open_database(folder, max_rooms).map_err(|error| match error {
            StoreError::Database(error) if is_corrupt(&error) => {
                StoreError::Damaged(error.to_string())
            }
            error => error,
        })
    }

    fn open_database(folder: &Path, max_rooms: u64) -> Result<(Self, Leftovers), StoreError> {
        let connection = schema::open(folder)?;
        replays::blame(folder, &connection)?;
        let Survey {
            saved,
            waking,
            suspects,
            unindexed,
        } = Survey::read(&connection)?;
        let tails = Tails::read(&connection, &saved)?;
        for (room, reason) in tails.damaged() {
            log::error!("room number {} cannot be restored: {reason}", room.0);
        }
        tails.carry_over(&connection)?;
        let next_number = read_meta(&connection, "next_number")?;
        let next_number = next_number.and_then(|bytes| bytes.try_into().ok());
        let next_number = next_number.map_or(1, u64::from_le_bytes);
        // Whatever was noted: a number that is in use would be overwritten.
        let last_number = saved.keys().map(|number| number.0).max().unwrap_or(0);
        let next_number = next_number.max(last_number.saturating_add(1));
        schema::sync(folder, &connection)?;
        let log = LogIndex::new(&tails);
        let unfinished = unfinished(&connection, &log, waking)?;
        let writer = Self {
            connection,
            log,
            damaged: tails.damaged().clone(),
            unindexed,
            rooms: saved.into_keys().collect(),
            max_rooms,
            next_number,
            reserved_numbers: next_number,
            fault_files: FaultFiles::new(folder),
            failure: None,
            closing: Arc::default(),
        };
        let leftovers = Leftovers {
            unfinished,
            suspects,
        };
        Ok((writer, leftovers))
    }

    pub(crate) fn secret(&self) -> Result<[u8; 32], StoreError> {
        let secret = read_meta(&self.connection, "secret")?;
        let secret = secret.and_then(|secret| secret.try_into().ok());
        secret.ok_or_else(|| StoreError::Damaged("there is no secret".into()))
    }

    /// Does what comes, until nothing more can.
    pub(crate) fn run(&mut self, jobs: &Receiver<Job>) {
        let mut next_at = Instant::now();
        while let Ok(first) = jobs.recv() {
            thread::sleep(next_at.saturating_duration_since(Instant::now()));
            let began_at = Instant::now();
            let mut bytes = first.bytes();
            let mut group = Vec::from([first]);
            while group.len() < MAX_JOBS && bytes < MAX_BYTES {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += job.bytes();
                group.push(job);
            }
            // What comes one at a time is written at once.
            if group.len() > 1 {
                next_at = began_at + MIN_INTERVAL;
            }
            self.run_group(group);
        }
    }

    /// Does a group of jobs in one transaction.
    fn run_group(&mut self, group: Vec<Job>) {
        let mut logged_at: Option<Instant> = None;
        loop {
            if let Some(failure) = &self.failure {
                for job in group {
                    job.fail(JournalError::Failed((&**failure).into()));
                }
                return;
            }
            match self.transact(&group) {
                Ok(outcomes) => return self.finish(group, outcomes),
                Err(error) if is_full(&error) && !self.closing.load(Ordering::Relaxed) => {
                    const LOG_INTERVAL: Duration = Duration::from_secs(30);
                    if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        logged_at = Some(Instant::now());
                        log::error!("rooms wait, since they cannot be stored: {error}");
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => {
                    log::error!("rooms cannot be stored any more: {error}");
                    self.failure = Some(error.to_string().into());
                }
            }
        }
    }

    fn transact(&mut self, group: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        let reserved_numbers = self.reserved_numbers;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let outcomes: rusqlite::Result<Vec<_>> =
            group.iter().map(|job| self.run_job(job)).collect();
        let outcomes = outcomes.and_then(|outcomes| {
            self.log.trim(&self.connection)?;
            self.connection.execute_batch("COMMIT")?;
            Ok(outcomes)
        });
        if outcomes.is_err() {
            self.reserved_numbers = reserved_numbers;
            if !self.connection.is_autocommit() {
                // Some errors have done so themselves.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        outcomes
    }

    fn run_job(&mut self, job: &Job) -> rusqlite::Result<Outcome> {
        match job {
            Job::Write(batch, _) => self.write(batch).map(|()| Outcome::Written),
            Job::Acquit(room) => {
                replays::acquit(&self.connection, *room).map(|()| Outcome::Written)
            }
            Job::KeepModule(hash, wasm) => {
                modules::keep(&self.connection, *hash, wasm).map(|()| Outcome::Written)
            }
            Job::LoadModule(hash, _) => match modules::load(&self.connection, *hash) {
                Err(error) if is_corrupt(&error) => Ok(Outcome::Damaged(error.to_string())),
                loaded => loaded.map(Outcome::Module),
            },
            Job::Replace(room, _) => self.replace(room),
            Job::Load(id, _) => match self.load(id) {
                // Others are not harmed.
                Err(error) if is_corrupt(&error) => Ok(Outcome::Damaged(error.to_string())),
                loaded => loaded,
            },
        }
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        self.log.write(&self.connection, batch.events())?;
        for (number, write) in batch.rooms() {
            match write {
                RoomWrite::Snapshot { id, snapshot } => {
                    rooms::save(&self.connection, *number, id, snapshot)?;
                    self.rooms.insert(*number);
                    let connection = &self.connection;
                    self.log.saved(connection, *number, snapshot.events)?;
                    self.damaged.remove(number);
                }
                RoomWrite::Remove | RoomWrite::Discard => {
                    if *write == RoomWrite::Remove {
                        let (connection, log) = (&self.connection, &self.log);
                        match self.fault_files.write(connection, log, *number) {
                            // There is nothing to report, but it can be removed.
                            Err(error) if is_corrupt(&error) => {}
                            written => written?,
                        }
                    }
                    self.remove(*number)?;
                }
                RoomWrite::Quarantine(reason) => {
                    rooms::quarantine(&self.connection, *number, reason)?;
                }
            }
        }
        Ok(())
    }

    fn load(&mut self, id: &str) -> rusqlite::Result<Outcome> {
        if self.unindexed.contains(id) {
            return Ok(Outcome::Damaged("the index of ids is".into()));
        }
        let Some(row) = rooms::find(&self.connection, id)? else {
            return self.new_room();
        };
        if let Some(reason) = self.damaged.get(&row.number) {
            return Ok(Outcome::Damaged(reason.clone()));
        }
        if let Some(reason) = row.quarantine {
            return Ok(Outcome::Loaded(Stored::Quarantined(reason)));
        }
        if !row.is_intact {
            return Ok(Outcome::Damaged("the room's row is damaged".into()));
        }
        let saved = row.snapshot.events;
        let Some(tail) = self.log.read_tail(&self.connection, row.number, saved)? else {
            return Ok(Outcome::Damaged(
                "the room's row of events is damaged".into(),
            ));
        };
        Ok(Outcome::Loaded(Stored::Room(StoredRoom {
            number: row.number,
            snapshot: row.snapshot,
            tail,
        })))
    }

    fn replace(&mut self, room: &RoomFile) -> rusqlite::Result<Outcome> {
        if self.unindexed.contains(&*room.id) {
            return Ok(Outcome::Damaged("the index of ids is".into()));
        }
        let number = match rooms::number(&self.connection, &room.id)? {
            Some(old) => {
                self.remove(old)?;
                self.new_number()?
            }
            None => match self.new_room()? {
                Outcome::Loaded(Stored::New(number)) => number,
                full => return Ok(full),
            },
        };
        let mut batch = room.tail_of(number);
        let write = RoomWrite::Snapshot {
            id: room.id.clone(),
            snapshot: room.snapshot.clone(),
        };
        batch.write(number, write);
        self.write(&batch).map(|()| Outcome::Written)
    }

    fn remove(&mut self, number: RoomNumber) -> rusqlite::Result<()> {
        rooms::remove(&self.connection, number)?;
        self.rooms.remove(&number);
        self.log.forget(&self.connection, number)?;
        self.damaged.remove(&number);
        Ok(())
    }

    fn new_room(&mut self) -> rusqlite::Result<Outcome> {
        if self.rooms.len() as u64 >= self.max_rooms {
            return Ok(Outcome::Full);
        }
        Ok(Outcome::Loaded(Stored::New(self.new_number()?)))
    }

    fn new_number(&mut self) -> rusqlite::Result<RoomNumber> {
        /// Reserved together, since rooms are often opened and seldom more than that in a process.
        const RESERVED: u64 = 1024;
        if self.next_number >= self.reserved_numbers {
            let reserved = self.next_number + RESERVED;
            write_meta(&self.connection, "next_number", &reserved.to_le_bytes())?;
            self.reserved_numbers = reserved;
        }
        let number = RoomNumber(self.next_number);
        self.next_number += 1;
        Ok(number)
    }

    /// The group is durable.
    fn finish(&self, group: Vec<Job>, outcomes: Vec<Outcome>) {
        for (job, outcome) in group.into_iter().zip(outcomes) {
            match (job, outcome) {
                (job, Outcome::Full) => job.fail(JournalError::TooManyRooms {
                    limit: self.max_rooms,
                }),
                (job, Outcome::Damaged(reason)) => job.fail(JournalError::Damaged(reason.into())),
                (Job::Write(_, done) | Job::Replace(_, done), _) => done(Ok(())),
                (Job::Acquit(_) | Job::KeepModule(..), _) => {}
                (Job::LoadModule(_, done), Outcome::Module(module)) => done(Ok(module)),
                (Job::Load(_, done), Outcome::Loaded(stored)) => done(Ok(stored)),
                // No job has another's outcome.
                (job, _) => job.fail(JournalError::Closed),
            }
        }
    }
}

/// Rooms with events since their snapshots, and those with a time to wake up.
fn unfinished(
    connection: &Connection,
    log: &LogIndex,
    waking: Vec<(RoomNumber, Box<str>, Duration)>,
) -> rusqlite::Result<Vec<UnfinishedRoom>> {
    let waking = waking.into_iter();
    let mut rooms: Vec<_> = waking
        .filter(|(number, ..)| !log.has_tail(*number))
        .map(|(_, id, wake_at)| UnfinishedRoom {
            id,
            wake_at: Some(wake_at),
        })
        .collect();
    for number in log.with_tails() {
        if let Some(id) = rooms::restorable(connection, number)? {
            let wake_at = None;
            rooms.push(UnfinishedRoom { id, wake_at });
        }
    }
    Ok(rooms)
}

impl Job {
    pub(crate) fn fail(self, error: JournalError) {
        match self {
            Self::Load(_, done) => done(Err(error)),
            Self::Write(_, done) | Self::Replace(_, done) => done(Err(error)),
            Self::LoadModule(_, done) => done(Err(error)),
            Self::Acquit(_) | Self::KeepModule(..) => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Load(id, _) => id.len(),
            Self::Write(batch, _) => batch.bytes(),
            Self::KeepModule(_, wasm) => wasm.len(),
            Self::Replace(room, _) => room.snapshot.room.len() + room.tail.len(),
            Self::Acquit(_) | Self::LoadModule(..) => 0,
        }
    }
}

/// Whether the same may succeed later: there is no space, be it for the index of the write-ahead log, or another
/// program has locked the database.
fn is_full(error: &Error) -> bool {
    let Some(error) = error.sqlite_error() else {
        return false;
    };
    error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
        || matches!(
            error.code,
            ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked
        )
}

/// Whether what was read is damaged, be it a page or a value of a row.
pub(crate) fn is_corrupt(error: &Error) -> bool {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => true,
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
    }
}
