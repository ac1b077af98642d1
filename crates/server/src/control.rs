//! What can be changed while a server runs.

use crate::{
    config::ModuleLoader,
    http::Notice,
    journal::{Journal, JournalError, UnfinishedRoom},
    rooms::{load::ServerLoad, worker_pool::WorkerPool},
};
use core::future::Future;
use stateroom_wasmi_host::{LoadError, ModuleHash};
use std::sync::Arc;

/// Changes a server while it runs; of [`Server::control`](crate::Server::control).
#[derive(Clone)]
pub struct ServerControl {
    workers: Arc<WorkerPool>,
    loader: Option<ModuleLoader>,
    journal: Option<Arc<dyn Journal>>,
    notice: Notice,
}

impl ServerControl {
    pub(crate) fn new(
        workers: Arc<WorkerPool>,
        loader: Option<ModuleLoader>,
        journal: Option<Arc<dyn Journal>>,
        notice: Notice,
    ) -> Self {
        Self {
            workers,
            loader,
            journal,
            notice,
        }
    }

    /// Serves another module from now on, in the binary format. Rooms go on with it as
    /// [`ServerConfig::upgrade`](crate::ServerConfig::upgrade) says, stored ones when they are opened. The
    /// clients of open rooms stay connected.
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
        if let Some(journal) = &self.journal {
            journal.keep_module(ModuleHash::of(wasm), wasm);
        }
        self.workers.replace_module(modules);
        Ok(())
    }

    /// Shows a text on the page, such as why a module was not built; none shows nothing.
    pub fn set_notice(&self, text: Option<String>) {
        self.notice.set(text);
    }

    /// Restores rooms that this node has taken over, at a pace that leaves the others their turns; those that
    /// are asked for come first, also before others of earlier calls. The
    /// [`directory`](crate::ServerConfig::directory) must say that they are [here](crate::Location::Here)
    /// already. Rooms that are open are left as they are: a node that may have had some of these before, and
    /// has not noticed that it lost them, must [`abandon`](Self::abandon) them first. Needs a journal.
    pub fn adopt(&self, rooms: Vec<UnfinishedRoom>) {
        self.workers.adopt(rooms);
    }

    /// Gives up the rooms for whose ids `moves` returns true, for another node to take over: each stops
    /// between two events, is saved, and is dropped; its clients are told to find it again, and those that
    /// this or another node forwards notice nothing. Begins at once; the future, which need not be polled,
    /// resolves when all of that is durable and the rooms are gone. Rooms in memory are lost.
    ///
    /// The [directory](crate::ServerConfig::directory) must not say any more that these rooms are
    /// [here](crate::Location::Here), or they would be opened again.
    ///
    /// # Errors
    ///
    /// [`JournalError::NotOwned`] if some of the rooms, which it names, were another node's meanwhile, and so
    /// were dropped as they are by [`abandon`](Self::abandon); [`JournalError::Closed`] if the server ends
    /// meanwhile.
    pub fn release(
        &self,
        moves: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static {
        self.workers.release(Arc::new(moves))
    }

    /// What the rooms take, and have done since this was asked last, in groups: of each room's id, `group_of` says
    /// in which of so many it is, and rooms of others do not count.
    pub fn load(
        &self,
        groups: usize,
        group_of: impl Fn(&str) -> usize + Send + Sync + 'static,
    ) -> impl Future<Output = ServerLoad> + Send + 'static {
        let workers = self.workers.clone();
        let group_of = Arc::new(group_of);
        async move { workers.load(groups, group_of).await }
    }

    /// Drops the rooms for whose ids `is_lost` returns true, at once and without writing anything: another
    /// node has them. What they have sent and is not durable is never seen by anybody; their clients are told
    /// to find them again, as by [`release`](Self::release), and the same is true of the directory. Begins at
    /// once; the future, which need not be polled, resolves when the rooms are gone.
    pub fn abandon(
        &self,
        is_lost: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.workers.abandon(Arc::new(is_lost))
    }
}
