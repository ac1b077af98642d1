//! Rooms that survive the process: their snapshots and the events since, in an SQLite database.
//!
//! ```no_run
//! use stateroom_wasmi_server::{Server, ServerConfig};
//! use stateroom_wasmi_store::Store;
//! use std::sync::Arc;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open("rooms".as_ref())?;
//! let config = ServerConfig::new(std::fs::read("chat.wasm")?).journal(Some(Arc::new(store)));
//! Server::bind(config).await?.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Store`] is a folder with the file `rooms.sqlite`, which `sqlite3` and other tools can read, and
//! what SQLite keeps beside it. One process at a time writes; [`Reader`] reads at the same time.
//! `docs/durability.md` says what is promised, and what that rests on.
//!
//! All that is passed to the store at the same time becomes one transaction (*group commit*), which is
//! durable when SQLite has synchronised its log with the disk (`synchronous = FULL`). Events are written
//! in the order in which they come, a row for each transaction, and are deleted when no room needs them. What
//! is left of them when a store is opened is moved to a row for each room.

#![forbid(unsafe_code)]

mod error;
mod event_log;
mod fault_files;
mod modules;
mod recording;
mod replays;
mod rooms;
mod schema;
mod tails;
mod tools;
mod writer;

pub use self::{
    error::StoreError,
    recording::{Recorder, Recording},
    tools::{Reader, RoomDetails, RoomState},
};

use self::{
    replays::Replays,
    writer::{Job, Writer},
};
use core::{fmt, time::Duration};
use fs4::{FileExt, TryLockError};
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::journal::{
    Batch, Done, Journal, JournalError, RoomNumber, Stored, UnfinishedRoom,
};
use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// A folder of rooms, opened to be written. When it is dropped, what was passed to it is written first,
/// unless the disk is full.
pub struct Store {
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Whether it is being closed: then a full disk is an error.
    closing: Arc<AtomicBool>,
    secret: [u8; 32],
    unfinished: Vec<UnfinishedRoom>,
    replays: Mutex<Replays>,
    /// Locked as long as it is open.
    _lock: File,
}

/// Rooms that a store keeps unless it is told otherwise.
pub const DEFAULT_MAX_ROOMS: u64 = 1_000_000;

impl Store {
    /// Opens a folder, which is created if there is none. It keeps up to [`DEFAULT_MAX_ROOMS`] rooms.
    ///
    /// # Errors
    ///
    /// If another process has it open, it is not a store of this version, or it is damaged. Then nothing has
    /// been changed.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, DEFAULT_MAX_ROOMS)
    }

    /// Opens a folder that keeps up to so many rooms: a stranger may ask for any number of them. No new one
    /// is loaded beyond that ([`JournalError::TooManyRooms`]).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(folder: &Path, max_rooms: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::Folder)?;
        let lock = lock(folder)?;
        let (mut writer, leftovers) = Writer::open(folder, max_rooms)?;
        let (secret, closing) = (writer.secret()?, writer.closing.clone());
        let (jobs, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name("store".into());
        let writer = thread
            .spawn(move || writer.run(&receiver))
            .map_err(StoreError::Folder)?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            closing,
            secret,
            unfinished: leftovers.unfinished,
            replays: Mutex::new(Replays::new(folder, leftovers.suspects)),
            _lock: lock,
        })
    }

    fn submit(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return };
        // The thread has ended only if it has panicked.
        if let Err(mpsc::SendError(job)) = jobs.send(job) {
            job.fail(JournalError::Closed);
        }
    }
}

/// Time for another process to end: one that is replaced may still be saving its rooms.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// # Errors
///
/// If another process has the folder open.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let options = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .clone();
    let lock = options
        .open(folder.join("lock"))
        .map_err(StoreError::Folder)?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match FileExt::try_lock(&lock) {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(StoreError::Locked);
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_TIMEOUT / 40),
            Err(TryLockError::Error(error)) => return Err(StoreError::Folder(error)),
        }
    }
}

impl Journal for Store {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn unfinished(&self) -> Vec<UnfinishedRoom> {
        self.unfinished.clone()
    }

    fn load(&self, id: &str, done: Done<Stored>) {
        self.submit(Job::Load(id.into(), done));
    }

    fn replaying(&self, worker: usize, event: Option<(RoomNumber, u64)>) {
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the note, a room that ends the process is only found out later.
        match replays.note(worker, event) {
            Ok(None) => {}
            Ok(Some(room)) => self.submit(Job::Acquit(room)),
            Err(error) => log::debug!("cannot note what is replayed: {error}"),
        }
    }

    fn keep_module(&self, hash: ModuleHash, wasm: &[u8]) {
        self.submit(Job::KeepModule(hash, wasm.into()));
    }

    fn load_module(&self, hash: ModuleHash, done: Done<Option<Vec<u8>>>) {
        self.submit(Job::LoadModule(hash, done));
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        self.submit(Job::Write(batch, done));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // It has panicked if this fails, which was reported.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
