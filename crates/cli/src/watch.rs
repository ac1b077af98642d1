//! Changes in the file system.

use crate::module_file::module_path;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// Waits until nothing has changed for a moment: what writes a file may do so in several steps.
pub(crate) async fn settle(changed: &Notify) {
    const QUIET: Duration = Duration::from_millis(200);
    while timeout(QUIET, changed.notified()).await.is_ok() {}
}

/// Notifies of changes in the file system until it is dropped.
pub(crate) struct Changes(
    #[expect(dead_code, reason = "it watches until it is dropped")] RecommendedWatcher,
);

impl Changes {
    /// Of a file, which may be replaced by another one; or of what `serve` reads of a folder.
    pub(crate) fn of_file(file: &Path, changed: Arc<Notify>) -> notify::Result<Self> {
        let file = module_path(file);
        let name = file.file_name().map(ToOwned::to_owned);
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.map_or_else(|| PathBuf::from("."), ToOwned::to_owned);
        let is_file = move |path: &Path| path.file_name() == name.as_deref();
        Self::watch(&folder, RecursiveMode::NonRecursive, is_file, changed)
    }

    /// Of all files in a folder and below that `counts` says count.
    pub(crate) fn of_folder(
        folder: &Path,
        counts: impl Fn(&Path) -> bool + Send + 'static,
        changed: Arc<Notify>,
    ) -> notify::Result<Self> {
        Self::watch(folder, RecursiveMode::Recursive, counts, changed)
    }

    fn watch(
        folder: &Path,
        mode: RecursiveMode,
        counts: impl Fn(&Path) -> bool + Send + 'static,
        changed: Arc<Notify>,
    ) -> notify::Result<Self> {
        let handle = move |event: notify::Result<notify::Event>| {
            let has_changed = match event {
                Ok(event) => !event.kind.is_access() && event.paths.iter().any(|path| counts(path)),
                // Some were lost.
                Err(_) => true,
            };
            if has_changed {
                changed.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(handle)?;
        watcher.watch(folder, mode)?;
        Ok(Self(watcher))
    }
}
