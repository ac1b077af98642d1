//! Records what SQLite does with the files of a folder.
//!
//! SQLite reaches its files through a table of functions, its *VFS*. This one is the operating system's, with
//! the functions replaced that change files or synchronise them: those are written down, and then done, but
//! that nothing is really synchronised, which would take most of the time. All else, locks and shared memory
//! above all, is what a store has in production. Crates with a safe interface for a VFS have one
//! that is whole (`sqlite-plugin`, which also needs libclang to be built), so that these would not be tested.
//!
//! It is the default from the first [`Recorder`] on, and leaves files of other folders alone.
#![allow(
    unsafe_code,
    reason = "a VFS is a table of functions in C; what makes each call sound is written beside it"
)]

use super::Step;
use core::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::atomic::{AtomicBool, Ordering},
};
use rusqlite::ffi;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Records a folder until it is dropped.
pub struct Recorder {
    folder: PathBuf,
    recording: Arc<Recording>,
}

#[derive(Default)]
struct Recording {
    steps: Mutex<Vec<Step>>,
    is_full: AtomicBool,
    refused: Mutex<u64>,
    has_refused: Condvar,
}

impl Recorder {
    /// Records what happens to the files of this folder, which is there.
    pub fn new(folder: &Path) -> Self {
        install();
        // SQLite resolves links, too.
        let folder = folder.canonicalize().expect("a folder");
        let recording = Arc::new(Recording::default());
        lock(&shared().folders).insert(folder.clone(), recording.clone());
        Self { folder, recording }
    }

    /// Records something that did not go through SQLite.
    pub fn push(&self, step: Step) {
        lock(&self.recording.steps).push(step);
    }

    /// A function that does the same.
    pub fn handle(&self) -> impl Fn(Step) + Send + Sync + Clone + 'static {
        let recording = self.recording.clone();
        move |step| lock(&recording.steps).push(step)
    }

    /// From now on there is no space, or again some, for the index of the write-ahead log, which is in shared
    /// memory of a file.
    pub fn set_index_full(&self, is_full: bool) {
        self.recording.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Waits until this was refused so often.
    pub fn wait_until_refused(&self, times: u64) {
        let recording = &*self.recording;
        let refused = lock(&recording.refused);
        let waited = recording
            .has_refused
            .wait_timeout_while(refused, crate::TIMEOUT, |refused| *refused < times);
        let (_refused, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out());
    }

    /// What has happened since the last time.
    pub fn take_steps(&self) -> Vec<Step> {
        core::mem::take(&mut lock(&self.recording.steps))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&shared().folders).remove(&self.folder);
    }
}

/// What the functions below know.
struct Shared {
    /// The operating system's VFS, which is never removed.
    base: Pointer<ffi::sqlite3_vfs>,
    folders: Mutex<HashMap<PathBuf, Arc<Recording>>>,
    /// Open files that are recorded, by the addresses of their `sqlite3_file`s.
    files: Mutex<HashMap<usize, File>>,
    /// For each table of functions that the base has for files, ours.
    methods: Mutex<HashMap<usize, &'static ffi::sqlite3_io_methods>>,
}

#[derive(Clone)]
struct File {
    name: String,
    recording: Arc<Recording>,
    base: &'static ffi::sqlite3_io_methods,
}

struct Pointer<T>(*mut T);

// SAFETY: SQLite's VFS objects may be used by any thread, and are constant once they are registered.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// The functions below may be called while [`install`] still runs.
fn shared() -> &'static Shared {
    SHARED.wait()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() {
    SHARED.get_or_init(|| {
        // SAFETY: a null name asks for the default VFS. It is valid for as long as the process runs.
        let base = unsafe { ffi::sqlite3_vfs_find(core::ptr::null()) };
        assert!(!base.is_null(), "SQLite has a VFS");
        // SAFETY: it is not null, and nobody writes to it. The copy has the same functions and data, and a
        // name, which lives as long as the process; SQLite sets `pNext` itself.
        let vfs = unsafe { &*base };
        let recording = Box::leak(Box::new(ffi::sqlite3_vfs {
            zName: c"recording".as_ptr(),
            pNext: core::ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            ..*vfs
        }));
        let shared = Shared {
            base: Pointer(base),
            folders: Mutex::default(),
            files: Mutex::default(),
            methods: Mutex::default(),
        };
        // SAFETY: it lives as long as the process. Its functions find `SHARED`: they are called for files of
        // databases that are opened from now on, by other threads perhaps a moment before that is set, which
        // `shared` waits for.
        let registered = unsafe { ffi::sqlite3_vfs_register(recording, 1) };
        assert_eq!(registered, ffi::SQLITE_OK);
        shared
    });
}

/// The name of a file and the recording of its folder, if there is one.
///
/// # Safety
///
/// It is null or a string in C.
unsafe fn recorded(path: *const c_char) -> Option<(String, Arc<Recording>, PathBuf)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let name = path.file_name()?.to_str()?.to_owned();
    let recording = lock(&shared().folders).get(path.parent()?)?.clone();
    Some((name, recording, path.into()))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let base = shared().base.0;
    // SAFETY: SQLite passes null or a path.
    let recorded = unsafe { recorded(path) };
    let is_new = recorded.as_ref().is_some_and(|(_, _, path)| !path.exists());
    // SAFETY: the arguments are SQLite's, and `file` has the size that the base asks for, since the copy
    // asks for the same.
    let result =
        unsafe { ((*base).xOpen.expect("a VFS opens"))(base, path, file, flags, flags_out) };
    let Some((name, recording, _)) = recorded.filter(|_| result == ffi::SQLITE_OK) else {
        return result;
    };
    if is_new {
        let is_journal = flags & ffi::SQLITE_OPEN_MAIN_DB == 0;
        lock(&recording.steps).push(Step::Create {
            name: name.clone(),
            is_journal,
        });
    }
    // SAFETY: an open file has a table of functions, and those of the base are static.
    let methods: &'static ffi::sqlite3_io_methods = unsafe { &*(*file).pMethods };
    let opened = File {
        name,
        recording,
        base: methods,
    };
    lock(&shared().files).insert(file as usize, opened);
    // SAFETY: `file` is open and SQLite's own until `close`; only its table is another one, with functions
    // that call those of the base.
    unsafe { (*file).pMethods = ours(methods) };
    result
}

/// The functions of the base, with some replaced.
fn ours(base: &'static ffi::sqlite3_io_methods) -> &'static ffi::sqlite3_io_methods {
    let mut methods = lock(&shared().methods);
    methods
        .entry(core::ptr::from_ref(base) as usize)
        .or_insert_with(|| {
            Box::leak(Box::new(ffi::sqlite3_io_methods {
                xClose: Some(close),
                xWrite: Some(write),
                xTruncate: Some(truncate),
                xSync: Some(sync),
                xShmMap: base.xShmMap.map(|_| map_shared_memory as _),
                ..*base
            }))
        })
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    syncs_folder: c_int,
) -> c_int {
    let base = shared().base.0;
    // SAFETY: SQLite passes a path.
    let recorded = unsafe { recorded(path) };
    let really_syncs = if recorded.is_some() { 0 } else { syncs_folder };
    // SAFETY: the arguments are SQLite's.
    let result = unsafe { ((*base).xDelete.expect("a VFS deletes"))(base, path, really_syncs) };
    if let Some((name, recording, _)) = recorded.filter(|_| result == ffi::SQLITE_OK) {
        let is_synced = syncs_folder != 0;
        lock(&recording.steps).push(Step::Delete { name, is_synced });
    }
    result
}

/// The file at this address, which is open.
fn file(file: *mut ffi::sqlite3_file) -> File {
    let files = lock(&shared().files);
    files.get(&(file as usize)).expect("it is open").clone()
}

impl File {
    fn push(&self, step: impl FnOnce(String) -> Step) {
        lock(&self.recording.steps).push(step(self.name.clone()));
    }
}

unsafe extern "C" fn close(address: *mut ffi::sqlite3_file) -> c_int {
    let file = lock(&shared().files).remove(&(address as usize));
    let file = file.expect("it is open");
    // SAFETY: the arguments are SQLite's, and the file is one of the base's.
    unsafe { (file.base.xClose.expect("a file is closed"))(address) }
}

unsafe extern "C" fn write(
    address: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let file = file(address);
    // SAFETY: SQLite passes so many bytes.
    let written = unsafe { core::slice::from_raw_parts(bytes.cast::<u8>(), length as usize) };
    // Before it is done, as nothing else of this folder may be recorded in between that has seen it.
    file.push(|name| Step::Write {
        name,
        offset: offset as usize,
        bytes: written.into(),
    });
    // SAFETY: the arguments are SQLite's, and the file is one of the base's.
    unsafe { (file.base.xWrite.expect("a file is written"))(address, bytes, length, offset) }
}

unsafe extern "C" fn truncate(
    address: *mut ffi::sqlite3_file,
    length: ffi::sqlite3_int64,
) -> c_int {
    let file = file(address);
    file.push(|name| Step::Truncate {
        name,
        length: length as usize,
    });
    // SAFETY: the arguments are SQLite's, and the file is one of the base's.
    unsafe { (file.base.xTruncate.expect("a file is truncated"))(address, length) }
}

unsafe extern "C" fn sync(address: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // The other flag says that the file's times do not matter.
    let is_full = flags & !ffi::SQLITE_SYNC_DATAONLY == ffi::SQLITE_SYNC_FULL;
    file(address).push(|name| Step::Sync { name, is_full });
    ffi::SQLITE_OK
}

unsafe extern "C" fn map_shared_memory(
    address: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extends: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    let file = file(address);
    let recording = &*file.recording;
    if extends != 0 && recording.is_full.load(Ordering::SeqCst) {
        *lock(&recording.refused) += 1;
        recording.has_refused.notify_all();
        return ffi::SQLITE_IOERR_SHMSIZE;
    }
    let map = file.base.xShmMap.expect("only replaced where it is");
    // SAFETY: the arguments are SQLite's, and the file is one of the base's.
    unsafe { map(address, region, size, extends, memory) }
}
