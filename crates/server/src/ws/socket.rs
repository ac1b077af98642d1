//! One client's connection: from its first frame to its last.

use crate::{
    config::ServerConfig,
    rate_limit::{Rate, TokenBucket},
    rooms::clients::{Close, Connection, Mailbox, Queue, QueueLimits, QueueUsage, connection},
    rooms::command::{Command, Refusal},
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use core::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Poll,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use stateroom_wasmi_host::{ClientId, RoomKey, driver::tokio::OwnedEvent};
use std::{boxed::Box, string::ToString, sync::Arc, time::Duration, vec::Vec};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, Sleep, sleep, timeout},
};
use tungstenite::error::{CapacityError, Error, ProtocolError};

/// What connections are run with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) message_bytes: usize,
    message_rate: Rate,
    client_queue: QueueLimits,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
}

impl SocketOptions {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            message_bytes: config.limits.max_message_bytes,
            message_rate: config.message_rate,
            client_queue: QueueLimits {
                messages: config.max_queued_messages.clamp(1, Semaphore::MAX_PERMITS),
                bytes: config.max_queued_bytes,
            },
            heartbeat_interval: config.heartbeat_interval.max(Duration::from_millis(1)),
            heartbeat_timeout: config.heartbeat_timeout,
        }
    }
}

/// When a client was last heard of; the reading half of a connection tells the writing half.
struct Heard {
    since: Instant,
    nanos: AtomicU64,
    /// Whether what it said waits for its room. Meanwhile it is not read from, so that it cannot be
    /// heard, and that is not its fault.
    waits: AtomicBool,
}

impl Heard {
    fn now() -> Self {
        Self {
            since: Instant::now(),
            nanos: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// It is heard now; answers when that is, in nanoseconds.
    fn again(&self) -> u64 {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
        nanos
    }

    fn last(&self) -> Instant {
        self.since + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        self.again();
    }

    /// Waits for something, during which the client is not read from.
    async fn while_it_waits<T>(&self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        // Mostly there is nothing to wait for; then the clock need not be asked.
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(something.as_mut().poll(cx))).await {
            return value;
        }
        self.set_waits(true);
        let value = something.await;
        self.set_waits(false);
        value
    }

    /// Whether the client was silent for so long.
    fn is_silent(&self, time: Duration) -> bool {
        if self.waits.load(Ordering::Relaxed) {
            self.again();
        }
        self.last().elapsed() >= time
    }
}

/// Time for the other side to take what was queued for it before it is closed.
const FAREWELL: Duration = Duration::from_secs(3);

/// Time for the other side to take a close frame and answer it.
const GOODBYE: Duration = Duration::from_secs(3);

/// Runs a connection until either side ends it.
pub(crate) async fn run(
    mut socket: WebSocket,
    worker: mpsc::Sender<Command>,
    room: Box<str>,
    token: Option<Box<str>>,
    options: SocketOptions,
    mut stopping: watch::Receiver<bool>,
) {
    let (connection, mailbox) = connection(options.client_queue);
    let number = connection.number;
    let joined = tokio::select! {
        joined = join(&worker, room, token, connection) => joined,
        _ = stopping.wait_for(|stopping| *stopping) => Err(going_away()),
    };
    let (room, client) = match joined {
        Ok(joined) => joined,
        Err(Refusal { code, reason }) => {
            let frame = CloseFrame {
                code,
                reason: reason.as_str().into(),
            };
            say_goodbye(&mut socket, Some(frame)).await;
            return;
        }
    };
    let (mut sink, mut stream) = socket.split();
    let heard = Heard::now();
    let gauge = mailbox.queue.gauge.clone();
    let frame = tokio::select! {
        end = read(&mut stream, &worker, (room, client), options, &heard, &gauge) => end,
        end = write(&mut sink, mailbox, options, &heard) => end,
    };
    let _ = worker
        .send(Command::Leave {
            room,
            client,
            connection: number,
        })
        .await;
    if let Ok(mut socket) = sink.reunite(stream) {
        say_goodbye(&mut socket, frame).await;
    }
}

async fn join(
    worker: &mpsc::Sender<Command>,
    room: Box<str>,
    token: Option<Box<str>>,
    connection: Connection,
) -> Result<(RoomKey, ClientId), Refusal> {
    let (reply, answer) = oneshot::channel();
    worker
        .send(Command::Join {
            room,
            token,
            connection,
            reply,
        })
        .await
        .map_err(|_| going_away())?;
    answer.await.unwrap_or_else(|_| Err(going_away()))
}

fn going_away() -> Refusal {
    Refusal {
        code: 1001,
        reason: "the server is stopping".to_string(),
    }
}

/// Hands what the client sends to its room. Answers what to close with; nothing if the client
/// closed, or is gone.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    worker: &mpsc::Sender<Command>,
    (room, client): (RoomKey, ClientId),
    options: SocketOptions,
    heard: &Heard,
    gauge: &QueueUsage,
) -> Option<CloseFrame> {
    let permits = permits(options);
    let on_the_way = Arc::new(Semaphore::new(permits as usize));
    let mut rate = TokenBucket::new(options.message_rate);
    loop {
        let message = match stream.next().await? {
            Ok(message) => message,
            Err(error) => return close_frame(error),
        };
        let too_early = rate.take(heard.again(), 1);
        if !too_early.is_zero() {
            heard.while_it_waits(sleep(too_early)).await;
        }
        let event = match message {
            Message::Text(text) => OwnedEvent::Text(client, text.as_str().into()),
            Message::Binary(bytes) => OwnedEvent::Bytes(client, bytes.into()),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return None,
        };
        let permit = on_the_way
            .clone()
            .acquire_many_owned(cost(&event).min(permits));
        let permit = heard.while_it_waits(permit).await.ok()?;
        // Who does not take the answers is not read from, and so gets no more of them. This comes
        // second, since what was on its way until now may have been answered meanwhile.
        gauge.half_empty().await;
        let handed_on = async {
            if worker
                .send(Command::Message {
                    room,
                    event,
                    permit,
                })
                .await
                .is_err()
            {
                // The rooms are closed. What they have sent is still to be written, so the end of
                // this connection is not to be found here.
                pending::<()>().await;
            }
        };
        heard.while_it_waits(handed_on).await;
    }
}

/// What a client may have on its way to its room, and waiting there, in units of [`cost`]: many
/// small messages or one of the greatest length; then it is not read from until the room has caught
/// up. When the room answers each of them, the answers still fit into what is left of its queue.
fn permits(options: SocketOptions) -> u32 {
    const SMALL_MESSAGES: usize = 64;
    let permits = (options.client_queue.messages / 2).clamp(1, SMALL_MESSAGES);
    permits as u32
}

/// A large message counts as many small ones.
fn cost(event: &OwnedEvent) -> u32 {
    const SMALL_BYTES: usize = 16 << 10;
    u32::try_from(event.as_event().payload_len() / SMALL_BYTES)
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

/// What to answer to frames that cannot be taken.
fn close_frame(error: axum::Error) -> Option<CloseFrame> {
    let error = error.into_inner().downcast::<Error>().ok()?;
    let (code, reason) = match *error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            (1009, std::format!("messages may have {max_size} bytes"))
        }
        Error::Utf8(_) => (1007, "the text is not UTF-8".into()),
        // The client is gone, without a word.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(error) => (1002, error.to_string()),
        _ => return None,
    };
    Some(CloseFrame {
        code,
        reason: reason.as_str().into(),
    })
}

/// Sends what the room says, and pings. Answers what to close with.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    Mailbox {
        mut queue,
        mut close,
    }: Mailbox,
    options: SocketOptions,
    heard: &Heard,
) -> Option<CloseFrame> {
    let mut batch = Vec::new();
    // These are set anew when they have run off and not for each message, which is cheaper.
    let mut ping = pin!(sleep(options.heartbeat_interval));
    let mut give_up = pin!(sleep(options.heartbeat_timeout));
    // Set when the worker has said how to close after what is queued.
    let mut last = None;
    loop {
        // A client that does not take what is sent must not keep us from closing it, and one that
        // is silent is closed whether it takes anything or not.
        let sent = tokio::select! {
            biased;
            told = &mut close, if last.is_none() => match told {
                Ok(Close { frame, after_queue: true }) => {
                    last = Some(frame);
                    give_up.as_mut().reset(Instant::now() + FAREWELL);
                    continue;
                }
                Ok(Close { frame, after_queue: false }) => return Some(frame),
                // The worker is gone, and with it the queue's other end.
                Err(_) => return last,
            },
            () = &mut give_up => {
                if last.is_some() {
                    return last;
                }
                if !heard.is_silent(options.heartbeat_timeout) {
                    give_up.as_mut().reset(heard.last() + options.heartbeat_timeout);
                    continue;
                }
                let reason = std::format!("nothing was heard for {} s", options.heartbeat_timeout.as_secs());
                return Some(CloseFrame { code: 1008, reason: reason.as_str().into() });
            }
            sent = send_some(sink, &mut queue, &mut batch, ping.as_mut()) => sent,
        };
        match sent {
            Sent::Messages => {}
            Sent::Ping => ping
                .as_mut()
                .reset(Instant::now() + options.heartbeat_interval),
            // How to close is told before the queue ends, but perhaps after it was asked for above.
            Sent::Everything if last.is_none() => return close.await.ok().map(|close| close.frame),
            Sent::Everything => return last,
            Sent::Nothing => return None,
        }
    }
}

/// What [`send_some`] has done.
enum Sent {
    Messages,
    Ping,
    /// There is no more, and never will be.
    Everything,
    /// The connection is gone.
    Nothing,
}

/// Sends what is queued, or a ping when it is time for one. If it is cancelled, what it had begun
/// to send stays first in `batch`, or with the socket.
async fn send_some(
    sink: &mut SplitSink<WebSocket, Message>,
    queue: &mut Queue,
    batch: &mut Vec<Message>,
    ping: Pin<&mut Sleep>,
) -> Sent {
    /// Messages that are handed to the socket before it is flushed.
    const BATCH: usize = 64;
    let mut sent = Sent::Messages;
    // What was handed to the socket in the call before leaves it first, also if that was cancelled.
    if sink.flush().await.is_err() {
        return Sent::Nothing;
    }
    if batch.is_empty() {
        tokio::select! {
            biased;
            // First, so that a client whom much is sent is asked for a sign of life, too.
            () = ping => {
                batch.push(Message::Ping(Default::default()));
                sent = Sent::Ping;
            }
            taken = queue.take(batch, BATCH) => {
                if taken == 0 {
                    return Sent::Everything;
                }
                // They are taken from the end.
                batch.reverse();
            }
        }
    }
    while !batch.is_empty() {
        // Only when the sink is ready is a message taken, so that none is lost between the two.
        if poll_fn(|cx| sink.poll_ready_unpin(cx)).await.is_err() {
            return Sent::Nothing;
        }
        if let Some(message) = batch.pop()
            && sink.start_send_unpin(message).is_err()
        {
            return Sent::Nothing;
        }
    }
    sent
}

/// Sends the close frame and waits, a short time, for the other side to close.
async fn say_goodbye(socket: &mut WebSocket, frame: Option<CloseFrame>) {
    let goodbye = async {
        if let Some(frame) = frame {
            socket.send(Message::Close(Some(frame))).await?;
        }
        while let Some(message) = socket.recv().await {
            message?;
        }
        Ok::<(), axum::Error>(())
    };
    // Whoever does not listen any more does not hear it.
    let _ = timeout(GOODBYE, goodbye).await;
}
