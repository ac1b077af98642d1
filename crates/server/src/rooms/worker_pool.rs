//! The workers of a server: the tasks that run its rooms, or one that holds the link to a board.

use crate::{
    config::{ServeError, ServerConfig},
    http::{RoomSummary, ThrottledStream},
    rate_limit::{Rate, TokenBucket},
    rooms::{
        command::{Command, MAX_QUEUED_COMMANDS},
        handover::NewConnection,
        worker::Worker,
    },
    ws::socket::{self, SocketOptions},
};
use stateroom_wasmi_host::abi::AbiVersion;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot, watch},
};
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::{Role, WebSocketConfig};

/// The workers of a server.
pub(crate) struct WorkerPool {
    workers: Vec<mpsc::Sender<Command>>,
    socket: SocketOptions,
    byte_rate: Rate,
    stopping: watch::Sender<bool>,
    /// Each connection holds a receiver.
    connections: watch::Sender<()>,
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
            socket: SocketOptions::new(config),
            byte_rate: config.byte_rate,
            stopping: watch::Sender::new(false),
            connections: watch::Sender::new(()),
            abi,
            hasher: RandomState::new(),
        })
    }

    /// A pool whose only worker is the bridge to a board.
    #[cfg(feature = "board")]
    pub(crate) fn for_board(address: crate::BoardAddress, config: &ServerConfig) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_COMMANDS);
        tokio::spawn(crate::board::run(address, config.max_tokens, receiver));
        Self {
            workers: Vec::from([sender]),
            socket: SocketOptions::new(config),
            byte_rate: config.byte_rate,
            stopping: watch::Sender::new(false),
            connections: watch::Sender::new(()),
            abi: None,
            hasher: RandomState::new(),
        }
    }

    /// The rooms' ABI, as text.
    pub(crate) fn abi(&self) -> String {
        self.abi
            .map_or_else(|| "unknown".into(), |abi| abi.to_string())
    }

    /// Passes a connection on to its room.
    pub(crate) fn connect(&self, connection: NewConnection) {
        let NewConnection {
            stream,
            unread,
            permit,
            address,
            room,
            token,
        } = connection;
        log::trace!("the connection of {address} is a WebSocket");
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        let bytes = TokenBucket::new(self.byte_rate);
        let stream = ThrottledStream::new(stream, permit, bytes, Duration::MAX);
        let (options, stopping) = (self.socket, self.stopping.subscribe());
        let worker = self.worker_of(&room);
        let open = self.connections.subscribe();
        tokio::spawn(async move {
            let config = WebSocketConfig::default()
                .read_buffer_size(8 << 10)
                .max_message_size(Some(options.max_message_bytes))
                .max_frame_size(Some(options.max_message_bytes));
            let websocket = WebSocketStream::from_partially_read(
                stream,
                unread.into(),
                Role::Server,
                Some(config),
            )
            .await;
            socket::run(websocket, worker, room, token, options, stopping).await;
            drop(open);
        });
    }

    /// The worker to which the room of this id is assigned.
    fn worker_of(&self, id: &str) -> mpsc::Sender<Command> {
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
        let _ = self.stopping.send(true);
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
        // Each connection ends by itself, within its timeouts for draining and closing.
        self.connections.closed().await;
    }
}
