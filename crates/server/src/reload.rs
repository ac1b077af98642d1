//! What is read from files, and read again when they have changed.

use core::time::Duration;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

/// A value from files. If they become unusable, it stays as it was.
pub(crate) struct Reloaded<T> {
    files: Vec<PathBuf>,
    what: &'static str,
    loaded: Mutex<Loaded<T>>,
}

struct Loaded<T> {
    value: Arc<T>,
    /// When the files were changed that it is from.
    changed_at: Vec<Option<SystemTime>>,
    /// When that was last looked at.
    checked_at: Instant,
}

impl<T> Reloaded<T> {
    /// `what` is for the log.
    pub(crate) fn new(what: &'static str, files: &[&Path], value: T) -> Self {
        Self {
            files: files.iter().map(PathBuf::from).collect(),
            what,
            loaded: Mutex::new(Loaded {
                value: Arc::new(value),
                changed_at: files.iter().map(|file| changed_at(file)).collect(),
                checked_at: Instant::now(),
            }),
        }
    }

    /// The value of the files as they are now, or were a few seconds ago.
    pub(crate) fn get<E: fmt::Display>(&self, load: impl FnOnce() -> Result<T, E>) -> Arc<T> {
        const CHECK_INTERVAL: Duration = Duration::from_secs(2);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.checked_at.elapsed() < CHECK_INTERVAL {
            return loaded.value.clone();
        }
        loaded.checked_at = Instant::now();
        let changed_at: Vec<_> = self.files.iter().map(|file| changed_at(file)).collect();
        if changed_at != loaded.changed_at {
            // Read once for each change: while one of several files is written, another follows.
            loaded.changed_at = changed_at;
            match load() {
                Ok(value) => {
                    loaded.value = Arc::new(value);
                    log::info!("{} was read again", self.what);
                }
                Err(error) => log::error!("{} stays as it was: {error}", self.what),
            }
        }
        loaded.value.clone()
    }
}

fn changed_at(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|file| file.modified()).ok()
}
