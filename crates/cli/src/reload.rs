//! Modules that are read again while they are served.

use crate::{diagnosis, module_file::ModuleFile};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use stateroom_wasmi_host::Escaped;
use stateroom_wasmi_server::ServerControl;
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// Reads a module again until it is dropped.
pub(crate) struct Reload {
    task: JoinHandle<()>,
    _changes: Option<Changes>,
}

impl Reload {
    /// At each SIGHUP, and with `watch` when the module changes.
    pub(crate) fn start(
        module: &Path,
        watch: bool,
        control: ServerControl,
    ) -> Result<Self, Box<dyn Error>> {
        let asked = Arc::new(Notify::new());
        let changes = watch.then(|| Changes::of_file(module, asked.clone()));
        let changes = changes.transpose()?;
        let hangups = hangups()?;
        let module = module.to_owned();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = asked.notified() => settle(&asked).await,
                    () = hangups.notified() => {}
                }
                let (module, control) = (module.clone(), control.clone());
                // Fails if it has panicked.
                let _ = spawn_blocking(move || reload(&module, &control)).await;
            }
        });
        Ok(Self {
            task,
            _changes: changes,
        })
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notified at each SIGHUP.
fn hangups() -> io::Result<Arc<Notify>> {
    let notify = Arc::new(Notify::new());
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut hangup, notify) = (signal(SignalKind::hangup())?, notify.clone());
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                notify.notify_one();
            }
        });
    }
    Ok(notify)
}

/// Serves a module as it is now; one that cannot be served leaves the one before.
pub(crate) fn reload(module: &Path, control: &ServerControl) -> bool {
    let replaced = ModuleFile::read(module)
        .map_err(|error| error.to_string())
        .and_then(|file| {
            let replaced = control.replace_module(&file.wasm);
            replaced.map_err(|error| diagnosis::explain(&error, &file.wasm).to_string())
        });
    match replaced {
        Ok(()) => {
            let module = Escaped::new(module.display());
            log::info!("{module} was read again: rooms go on with it");
            control.set_notice(None);
            true
        }
        Err(error) => {
            log::error!("the module stays as it was: {error}");
            control.set_notice(Some(format!("The module stays as it was: {error}")));
            false
        }
    }
}

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
    fn of_file(file: &Path, changed: Arc<Notify>) -> notify::Result<Self> {
        let file = match file.is_dir() {
            true => file.join("server.wasm"),
            false => file.to_owned(),
        };
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
