//! What can be changed while a server runs.

use crate::{config::ModuleLoader, http::Notice, rooms::worker_pool::WorkerPool};
use stateroom_wasmi_host::LoadError;
use std::sync::Arc;

/// Changes a server while it runs; of [`Server::control`](crate::Server::control).
#[derive(Clone)]
pub struct ServerControl {
    workers: Arc<WorkerPool>,
    loader: Option<ModuleLoader>,
    notice: Notice,
}

impl ServerControl {
    pub(crate) fn new(
        workers: Arc<WorkerPool>,
        loader: Option<ModuleLoader>,
        notice: Notice,
    ) -> Self {
        Self {
            workers,
            loader,
            notice,
        }
    }

    /// Serves another module from now on, in the binary format. Open rooms go on with a fresh guest of it,
    /// which is told of their clients; these stay connected, and what the rooms had in memory is lost.
    /// Stored rooms follow [`ServerConfig::upgrade`](crate::ServerConfig::upgrade) when they are opened.
    ///
    /// Loads the module on this thread, which may take many milliseconds.
    ///
    /// # Errors
    ///
    /// If the module cannot be loaded; then nothing has changed.
    ///
    /// # Panics
    ///
    /// For the rooms of a board, whose module is the firmware's.
    pub fn replace_module(&self, wasm: &[u8]) -> Result<(), LoadError> {
        let loader = self.loader.as_ref().expect("a board has its own modules");
        // Each worker has an interpreter engine of its own. All must load, or none changes.
        let modules = (0..self.workers.len()).map(|_| loader.load(wasm));
        let modules = modules.collect::<Result<Vec<_>, _>>()?;
        self.workers.replace_module(modules);
        Ok(())
    }

    /// Shows a text on the page, such as why a module was not built; none shows nothing.
    pub fn set_notice(&self, text: Option<String>) {
        self.notice.set(text);
    }
}
