//! Modules that are read again while they are served.

use crate::{
    diagnosis,
    module_file::ModuleFile,
    watch::{Changes, settle},
};
use stateroom_wasmi_host::{Escaped, ModuleHash};
use stateroom_wasmi_server::ServerControl;
use std::{error::Error, io, path::Path, sync::Arc};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
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
fn reload(module: &Path, control: &ServerControl) {
    report(module, control, replace(module, None, control));
}

/// Does so if it is another one than that which is `served`. Returns that which is served then.
pub(crate) fn reload_changed(
    module: &Path,
    served: ModuleHash,
    control: &ServerControl,
) -> ModuleHash {
    let replaced = replace(module, Some(served), control);
    let now = replaced.as_ref().map_or(served, |hash| *hash);
    match &replaced {
        Ok(hash) if *hash == served => control.set_notice(None),
        _ => report(module, control, replaced),
    }
    now
}

/// Serves a module unless it is already `served`.
fn replace(
    module: &Path,
    served: Option<ModuleHash>,
    control: &ServerControl,
) -> Result<ModuleHash, String> {
    let file = ModuleFile::read(module).map_err(|error| error.to_string())?;
    let hash = ModuleHash::of(&file.wasm);
    if served != Some(hash) {
        let replaced = control.replace_module(&file.wasm);
        replaced.map_err(|error| diagnosis::explain(&error, &file.wasm).to_string())?;
    }
    Ok(hash)
}

fn report(module: &Path, control: &ServerControl, replaced: Result<ModuleHash, String>) {
    match replaced {
        Ok(_) => {
            let module = Escaped::new(module.display());
            log::info!("{module} was read again: rooms go on with it");
            control.set_notice(None);
        }
        Err(error) => {
            log::error!("the module stays as it was: {error}");
            control.set_notice(Some(format!("The module stays as it was: {error}")));
        }
    }
}
