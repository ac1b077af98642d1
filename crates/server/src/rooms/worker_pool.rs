//! The workers of a server: the tasks that run its rooms, or one that speaks with a board.

use crate::{
    config::{ServeError, ServerConfig},
    http::rooms_endpoint::RoomSummary,
    rooms::command::{COMMANDS, Command},
    rooms::worker::Worker,
};
use stateroom_wasmi_host::abi::AbiVersion;
use std::{
    hash::{BuildHasher, RandomState},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The workers of a server.
pub(crate) struct WorkerPool {
    commands: Vec<mpsc::Sender<Command>>,
    /// The ABI that the rooms speak; none where they run elsewhere.
    abi: Option<AbiVersion>,
    hasher: RandomState,
}

impl WorkerPool {
    pub(crate) fn start(config: &ServerConfig) -> Result<Self, ServeError> {
        let seed = config.draw_seed()?;
        // Shared by the workers, since rooms are spread by their names and not evenly.
        let places = Arc::new(Semaphore::new(config.max_rooms.min(Semaphore::MAX_PERMITS)));
        let mut commands = Vec::new();
        let mut abi = None;
        for number in 0..config.workers.max(1) {
            let module = config.load()?;
            abi = Some(module.abi());
            let (sender, receiver) = mpsc::channel(COMMANDS);
            let (config, places) = (config.clone(), places.clone());
            let seed = seed.wrapping_add((number as u64) << 32);
            tokio::spawn(Worker::new(&config, module, places, seed).run(receiver));
            commands.push(sender);
        }
        Ok(Self {
            commands,
            abi,
            hasher: RandomState::new(),
        })
    }

    /// A board in the place of workers.
    #[cfg(feature = "board")]
    pub(crate) fn of_board(address: crate::BoardAddress, max_tokens: usize) -> Self {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        tokio::spawn(crate::board::run(address, max_tokens, receiver));
        Self {
            commands: Vec::from([sender]),
            abi: None,
            hasher: RandomState::new(),
        }
    }

    /// The ABI that the rooms speak, as a text.
    pub(crate) fn abi(&self) -> String {
        self.abi
            .map_or_else(|| "unknown".into(), |abi| abi.to_string())
    }

    /// The worker that has, or would have, the room of this id.
    pub(crate) fn of_room(&self, id: &str) -> mpsc::Sender<Command> {
        let place = self.hasher.hash_one(id) % self.commands.len() as u64;
        self.commands[place as usize].clone()
    }

    /// All rooms, by their ids.
    pub(crate) async fn list(&self) -> Vec<RoomSummary> {
        let mut rooms = Vec::new();
        for worker in &self.commands {
            let (reply, answer) = oneshot::channel();
            if worker.send(Command::List(reply)).await.is_ok() {
                rooms.extend(answer.await.unwrap_or_default());
            }
        }
        rooms.sort_unstable_by(|a: &RoomSummary, b| a.id.cmp(&b.id));
        rooms
    }

    /// Lets each worker handle what it was given, and close its clients.
    pub(crate) async fn stop(&self) {
        let mut answers = Vec::new();
        for worker in &self.commands {
            let (reply, answer) = oneshot::channel();
            if worker.send(Command::Stop(reply)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            let _ = answer.await;
        }
    }
}
