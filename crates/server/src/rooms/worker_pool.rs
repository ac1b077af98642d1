//! The workers of a server: the tasks that run its rooms, or one that holds the link to a board.

use crate::{
    config::{ServeError, ServerConfig},
    http::RoomSummary,
    rooms::{
        command::{Command, MAX_QUEUED_COMMANDS},
        worker::Worker,
    },
};
use stateroom_wasmi_host::abi::AbiVersion;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The workers of a server.
pub(crate) struct WorkerPool {
    workers: Vec<mpsc::Sender<Command>>,
    /// The rooms' ABI; unknown for a board.
    abi: Option<AbiVersion>,
    hasher: RandomState,
}

impl WorkerPool {
    pub(crate) fn start(config: &ServerConfig) -> Result<Self, ServeError> {
        let seed = config.draw_seed()?;
        // Shared by all workers, since hashing room ids does not spread the rooms evenly.
        let room_permits = config.max_rooms.min(Semaphore::MAX_PERMITS);
        let room_permits = Arc::new(Semaphore::new(room_permits));
        let mut workers = Vec::new();
        let mut abi = None;
        for number in 0..config.workers.max(1) {
            let module = config.load()?;
            abi = Some(module.abi());
            let (sender, receiver) = mpsc::channel(MAX_QUEUED_COMMANDS);
            let seed = seed.wrapping_add((number as u64) << 32);
            let worker = Worker::new(config, module, room_permits.clone(), seed);
            tokio::spawn(worker.run(receiver));
            workers.push(sender);
        }
        Ok(Self {
            workers,
            abi,
            hasher: RandomState::new(),
        })
    }

    /// A pool whose only worker is the bridge to a board.
    #[cfg(feature = "board")]
    pub(crate) fn for_board(address: crate::BoardAddress, max_tokens: usize) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_COMMANDS);
        tokio::spawn(crate::board::run(address, max_tokens, receiver));
        Self {
            workers: Vec::from([sender]),
            abi: None,
            hasher: RandomState::new(),
        }
    }

    /// The rooms' ABI, as text.
    pub(crate) fn abi(&self) -> String {
        self.abi
            .map_or_else(|| "unknown".into(), |abi| abi.to_string())
    }

    /// The worker to which the room of this id is assigned.
    pub(crate) fn worker_of(&self, id: &str) -> mpsc::Sender<Command> {
        let index = self.hasher.hash_one(id) % self.workers.len() as u64;
        self.workers[index as usize].clone()
    }

    /// All rooms, ordered by id.
    pub(crate) async fn list(&self) -> Vec<RoomSummary> {
        let mut rooms = Vec::new();
        for worker in &self.workers {
            let (reply, summaries) = oneshot::channel();
            if worker.send(Command::List(reply)).await.is_ok() {
                rooms.extend(summaries.await.unwrap_or_default());
            }
        }
        rooms.sort_unstable_by(|a: &RoomSummary, b| a.id.cmp(&b.id));
        rooms
    }

    /// Lets each worker handle its queued events and close its clients.
    pub(crate) async fn stop(&self) {
        let mut replies = Vec::new();
        for worker in &self.workers {
            let (reply, stopped) = oneshot::channel();
            if worker.send(Command::Stop(reply)).await.is_ok() {
                replies.push(stopped);
            }
        }
        for stopped in replies {
            let _ = stopped.await;
        }
    }
}
