//! Modules that are read again while they are served.

use crate::{
    diagnosis,
    module_file::ModuleFile,
    watch::{Changes, settle},
};
use stateroom_wasmi_host::Escaped;
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
pub(crate) fn reload(module: &Path, control: &ServerControl) {
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
        }
        Err(error) => {
            log::error!("the module stays as it was: {error}");
            control.set_notice(Some(format!("The module stays as it was: {error}")));
        }
    }
}
