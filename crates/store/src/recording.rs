//! What rooms do, in files that `replay` reads.

use core::time::Duration;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use stateroom_wasmi_host::{Escaped, ModuleHash, SnapshotInfo};
use stateroom_wasmi_server::journal::{
    Batch, Done, Journal, JournalError, LogEntries, LogEntry, ReplayCost, RoomFile, RoomNumber,
    RoomSnapshot, RoomWrite, Stored, UnfinishedRoom,
};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

/// A journal that also writes what each room does into files of a folder, for `stateroom-wasmi replay`.
///
/// Rooms are kept by another journal, or not at all: then they end with the process, as without a journal.
/// Files that cannot be written are no reason not to go on.
pub struct Recorder {
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    journal: Option<Arc<dyn Journal>>,
    secret: [u8; 32],
}

/// A recording that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The room when the recording began, and all that it did since.
    pub room: RoomFile,
    /// Whether the file ends in the middle of something, as it does after a crash.
    pub is_cut: bool,
}

/// The beginning of a file; then there are chunks, the first of which is a room. Each is its kind (a byte), its
/// length and the CRC-32 of its bytes (four bytes each, little endian), and those.
const MAGIC: &[u8; 5] = b"SRRR\x01";

/// A [`RoomFile`].
const ROOM: u8 = 1;

/// Events in the format of [`LogEntries`].
const EVENTS: u8 = 2;

/// The length of a file after which another one is begun at the next snapshot.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Files that are open at the same time.
const MAX_OPEN_FILES: usize = 64;

/// Time between two messages that something was not recorded.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

const EXTENSION: &str = "recording";

impl Recording {
    /// Reads a recording; none if the bytes are not one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let (first, after) = read_chunk(rest)?;
        let mut room = match first {
            (ROOM, room) => RoomFile::decode(room)?,
            _ => return None,
        };
        rest = after;
        let mut is_cut = false;
        while !rest.is_empty() && !is_cut {
            match read_chunk(rest) {
                Some(((EVENTS, events), after)) => {
                    room.tail.extend_from_slice(events);
                    rest = after;
                }
                _ => is_cut = true,
            }
        }
        let is_well_formed = LogEntries::new(&room.tail).all(|entry| entry.is_ok());
        is_well_formed.then_some(Self { room, is_cut })
    }
}

type Chunk<'a> = (u8, &'a [u8]);

/// A chunk, and the bytes behind it; none if it is not whole.
fn read_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    let is_whole = crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    is_whole.then_some(((*kind, body), rest))
}

fn write_chunk(kind: u8, body: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    to.push(kind);
    to.extend(length.to_le_bytes());
    to.extend(crc32fast::hash(body).to_le_bytes());
    to.extend_from_slice(body);
    Ok(())
}

impl Recorder {
    /// Records into a folder, which is created if there is none, files of no more than `max_bytes` together:
    /// beyond, those go that were written to the longest time ago.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created or read.
    pub fn open(
        folder: &Path,
        max_bytes: u64,
        journal: Option<Arc<dyn Journal>>,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut secret = [0; 32];
        match &journal {
            Some(journal) => secret = journal.secret(),
            None => getrandom::fill(&mut secret).map_err(io::Error::other)?,
        }
        let (jobs, receiver) = mpsc::channel();
        let mut files = Files::open(folder, max_bytes)?;
        let inner = journal.clone();
        let thread = thread::Builder::new().name("recorder".into());
        let writer = thread.spawn(move || run(&receiver, &mut files, inner.as_ref()))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            journal,
            secret,
        })
    }

    fn submit(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return };
        // The thread has ended only if it has panicked.
        if let Err(mpsc::SendError(job)) = jobs.send(job) {
            job.fail();
        }
    }
}

/// Something to do, in order.
enum Job {
    Load(Box<str>, Done<Stored>),
    Loaded(Box<RoomFile>, RoomNumber),
    KeepModule(ModuleHash, Box<[u8]>),
    LoadModule(ModuleHash, Done<Option<Vec<u8>>>),
    Write(Batch, Done<()>),
}

impl Job {
    fn fail(self) {
        match self {
            Self::Load(_, done) => done(Err(JournalError::Closed)),
            Self::LoadModule(_, done) => done(Err(JournalError::Closed)),
            Self::Write(_, done) => done(Err(JournalError::Closed)),
            Self::Loaded(..) | Self::KeepModule(..) => {}
        }
    }
}

fn run(jobs: &Receiver<Job>, files: &mut Files, journal: Option<&Arc<dyn Journal>>) {
    let mut last_number = 0;
    for job in jobs {
        match (job, journal) {
            (Job::Loaded(room, number), _) => files.begin(number, &room),
            (Job::Write(batch, done), journal) => {
                files.write(&batch);
                match journal {
                    Some(journal) => journal.write(batch, done),
                    None => done(Ok(())),
                }
            }
            (Job::Load(id, done), Some(journal)) => journal.load(&id, done),
            (Job::Load(_, done), None) => {
                last_number += 1;
                done(Ok(Stored::New(RoomNumber(last_number))));
            }
            (Job::KeepModule(hash, wasm), Some(journal)) => journal.keep_module(hash, &wasm),
            (Job::LoadModule(hash, done), Some(journal)) => journal.load_module(hash, done),
            (Job::LoadModule(_, done), None) => done(Ok(None)),
            (Job::KeepModule(..), None) => {}
        }
    }
}

impl Journal for Recorder {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn unfinished(&self) -> Vec<UnfinishedRoom> {
        let journal = self.journal.as_ref();
        journal.map_or_else(Vec::new, |journal| journal.unfinished())
    }

    fn load(&self, id: &str, done: Done<Stored>) {
        let (name, jobs) = (Box::<str>::from(id), self.jobs.clone());
        // The recording of a room that is restored begins with what was stored of it, before anything is
        // written of it.
        let done = move |stored: Result<Stored, JournalError>| {
            if let (Ok(Stored::Room(stored)), Some(jobs)) = (&stored, jobs) {
                let room = RoomFile {
                    id: name,
                    snapshot: stored.snapshot.clone(),
                    tail: stored.tail.clone(),
                };
                // Fails if the thread has panicked.
                let _ = jobs.send(Job::Loaded(Box::new(room), stored.number));
            }
            done(stored);
        };
        self.submit(Job::Load(id.into(), Box::new(done)));
    }

    /// Without a recording that begins there.
    fn peek(&self, id: &str, done: Done<Stored>) {
        self.submit(Job::Load(id.into(), done));
    }

    fn replaying(&self, worker: usize, event: Option<(RoomNumber, u64)>) {
        if let Some(journal) = &self.journal {
            journal.replaying(worker, event);
        }
    }

    fn restored(&self, room: RoomNumber) {
        if let Some(journal) = &self.journal {
            journal.restored(room);
        }
    }

    fn replay_cost(&self) -> ReplayCost {
        let journal = self.journal.as_ref();
        journal.map_or_else(ReplayCost::default, |journal| journal.replay_cost())
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

impl Drop for Recorder {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // It has panicked if this fails, which was reported.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// The files of a folder.
struct Files {
    folder: PathBuf,
    max_bytes: u64,
    /// Of all recordings in the folder.
    bytes: u64,
    rooms: HashMap<RoomNumber, RoomRecording>,
    /// Rooms whose files are open, those that were written to last at the end.
    open: VecDeque<RoomNumber>,
    /// Files that are complete, the oldest first.
    complete: VecDeque<(PathBuf, u64)>,
    logged_at: Option<Instant>,
    /// Makes names unique.
    last_file: u64,
}

/// Those of a batch, by their rooms.
type Events<'a> = HashMap<RoomNumber, Vec<LogEntry<'a>>>;

/// The file that a room is recorded into.
struct RoomRecording {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    module: Option<ModuleHash>,
}

impl Files {
    fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut complete = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let is_recording = path.extension().is_some_and(|it| it == EXTENSION);
            if is_recording && metadata.is_file() {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                complete.push((modified, path, metadata.len()));
            }
        }
        complete.sort();
        Ok(Self {
            folder: folder.into(),
            max_bytes,
            bytes: complete.iter().map(|(.., bytes)| bytes).sum(),
            rooms: HashMap::new(),
            open: VecDeque::new(),
            complete: complete
                .into_iter()
                .map(|(_, path, bytes)| (path, bytes))
                .collect(),
            logged_at: None,
            last_file: 0,
        })
    }

    fn write(&mut self, batch: &Batch) {
        let mut events = Events::default();
        for entry in LogEntries::new(batch.events()).flatten() {
            events.entry(entry.room).or_default().push(entry);
        }
        for (number, write) in batch.rooms() {
            match write {
                RoomWrite::Snapshot { id, snapshot } => {
                    self.saved(*number, id, snapshot, &mut events);
                }
                RoomWrite::Remove | RoomWrite::Discard | RoomWrite::Quarantine(_) => {
                    self.append_events(*number, &events.remove(number).unwrap_or_default());
                    self.end(*number);
                }
            }
        }
        for (number, events) in events {
            self.append_events(number, &events);
        }
    }

    /// A room was saved: a file may begin here, with those of its events that are not in the snapshot.
    fn saved(
        &mut self,
        number: RoomNumber,
        id: &str,
        snapshot: &RoomSnapshot,
        events: &mut Events<'_>,
    ) {
        let module = module_of(snapshot);
        let goes_on = self
            .rooms
            .get(&number)
            .is_some_and(|room| room.module == module && room.bytes < MAX_FILE_BYTES);
        if goes_on {
            return;
        }
        if let Some(events) = events.get_mut(&number) {
            let saved = events.partition_point(|entry| entry.number < snapshot.events);
            let saved: Vec<_> = events.drain(..saved).collect();
            self.append_events(number, &saved);
        }
        let room = RoomFile {
            id: id.into(),
            snapshot: snapshot.clone(),
            tail: Vec::new(),
        };
        self.begin(number, &room);
    }

    fn append_events(&mut self, number: RoomNumber, events: &[LogEntry<'_>]) {
        if events.is_empty() {
            return;
        }
        let (mut body, mut chunk) = (Vec::new(), Vec::new());
        events.iter().for_each(|event| event.encode(&mut body));
        match write_chunk(EVENTS, &body, &mut chunk) {
            Ok(()) => self.append(number, &chunk),
            Err(error) => {
                self.end(number);
                self.log_failure(&error);
            }
        }
    }

    fn begin(&mut self, number: RoomNumber, room: &RoomFile) {
        const MAX_NAME: usize = 80;
        self.end(number);
        let mut name: String = utf8_percent_encode(&room.id, NON_ALPHANUMERIC).to_string();
        name.truncate(MAX_NAME);
        let created = loop {
            self.last_file += 1;
            let path = self.folder.join(format!(
                "{name}-{}-{}.{EXTENSION}",
                number.0, self.last_file
            ));
            match File::create_new(&path) {
                Ok(file) => break Ok((path, file)),
                // Of an earlier process.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => break Err(error),
            }
        };
        let (path, file) = match created {
            Ok(created) => created,
            Err(error) => return self.log_failure(&error),
        };
        let recording = RoomRecording {
            path,
            file: Some(file),
            bytes: 0,
            module: module_of(&room.snapshot),
        };
        self.rooms.insert(number, recording);
        self.open.push_back(number);
        let mut beginning = MAGIC.to_vec();
        match write_chunk(ROOM, &room.encode(), &mut beginning) {
            Ok(()) => self.append(number, &beginning),
            Err(error) => {
                self.end(number);
                self.log_failure(&error);
            }
        }
    }

    /// Appends to a room's file, if it has one.
    fn append(&mut self, number: RoomNumber, bytes: &[u8]) {
        let Some(room) = self.rooms.get_mut(&number) else {
            return;
        };
        let appended = match &mut room.file {
            Some(file) => file.write_all(bytes),
            None => {
                let file = File::options().append(true).open(&room.path);
                file.and_then(|mut file| {
                    self.open.push_back(number);
                    let written = file.write_all(bytes);
                    room.file = Some(file);
                    written
                })
            }
        };
        room.bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        if let Err(error) = appended {
            // What follows could not be read behind a piece of this.
            self.end(number);
            self.log_failure(&error);
        }
        self.close_surplus();
        self.remove_surplus();
    }

    /// A room is not recorded into its file any more.
    fn end(&mut self, number: RoomNumber) {
        if let Some(room) = self.rooms.remove(&number) {
            self.complete.push_back((room.path, room.bytes));
            self.open.retain(|open| *open != number);
        }
    }

    fn close_surplus(&mut self) {
        while self.open.len() > MAX_OPEN_FILES {
            let oldest = self.open.pop_front();
            if let Some(room) = oldest.and_then(|oldest| self.rooms.get_mut(&oldest)) {
                room.file = None;
            }
        }
    }

    fn remove_surplus(&mut self) {
        while self.bytes > self.max_bytes {
            let Some((path, bytes)) = self.complete.pop_front() else {
                // All that is left is being written to: the longest of these ends.
                let longest = self.rooms.iter().max_by_key(|(_, room)| room.bytes);
                match longest.map(|(number, _)| *number) {
                    Some(number) => self.end(number),
                    None => return,
                }
                continue;
            };
            self.bytes -= bytes;
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                self.log_failure(&error);
            }
        }
    }

    fn log_failure(&mut self, error: &io::Error) {
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            let folder = Escaped::new(self.folder.display()).to_string();
            log::error!("not all that rooms do is recorded in {folder:?}: {error}");
        }
    }
}

fn module_of(snapshot: &RoomSnapshot) -> Option<ModuleHash> {
    let info = SnapshotInfo::read(&snapshot.room).ok()?;
    Some(info.module)
}
