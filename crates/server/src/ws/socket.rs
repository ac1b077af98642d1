//! One client's connection, from the upgrade to the close handshake.

use crate::{
    config::ServerConfig,
    rate_limit::{Rate, TokenBucket},
    rooms::command::{Command, JoinRejection},
    ws::{
        heartbeat::Liveness,
        send_queue::{
            ClientReceiver, ClientSender, CloseRequest, QueueLimits, QueueUsage, SendQueue,
            channel, close_frame,
        },
    },
};
use core::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use stateroom_wasmi_host::{ClientId, OwnedEvent, RoomKey};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_tungstenite::WebSocketStream;
use tungstenite::{
    Message,
    error::{CapacityError, Error, ProtocolError},
    protocol::CloseFrame,
};

pub(crate) type WebSocket = WebSocketStream<crate::http::ThrottledStream>;

/// The options of all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) max_message_bytes: usize,
    message_rate: Rate,
    queue_limits: QueueLimits,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
}

impl SocketOptions {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            max_message_bytes: config.limits.max_message_bytes,
            message_rate: config.message_rate,
            queue_limits: QueueLimits {
                messages: config.max_queued_messages.clamp(1, Semaphore::MAX_PERMITS),
                bytes: config.max_queued_bytes,
            },
            heartbeat_interval: config.heartbeat_interval.max(Duration::from_millis(1)),
            heartbeat_timeout: config.heartbeat_timeout,
        }
    }
}

/// Time for the client to take its queued messages before a requested close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the client to take our close frame and return its own.
const CLOSE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a connection until either side ends it.
pub(crate) async fn run(
    mut socket: WebSocket,
    worker: mpsc::Sender<Command>,
    room: Box<str>,
    token: Option<Box<str>>,
    options: SocketOptions,
    mut stopping: watch::Receiver<bool>,
) {
    let (sender, receiver) = channel(options.queue_limits);
    let connection_id = sender.connection_id;
    let joined = tokio::select! {
        joined = join(&worker, room, token, sender) => joined,
        _ = stopping.wait_for(|stopping| *stopping) => Err(JoinRejection::stopping()),
    };
    let (room, client) = match joined {
        Ok(joined) => joined,
        Err(JoinRejection { code, reason }) => {
            close_handshake(&mut socket, Some(close_frame(code, &reason))).await;
            return;
        }
    };
    let (mut sink, mut stream) = socket.split();
    let liveness = Liveness::new();
    let usage = receiver.queue.usage.clone();
    let frame = tokio::select! {
        end = read(&mut stream, &worker, (room, client), options, &liveness, &usage) => end,
        end = write(&mut sink, receiver, options, &liveness) => end,
    };
    let leave = Command::Leave {
        room,
        client,
        connection_id,
    };
    let _ = worker.send(leave).await;
    if let Ok(mut socket) = sink.reunite(stream) {
        close_handshake(&mut socket, frame).await;
    }
}

async fn join(
    worker: &mpsc::Sender<Command>,
    room: Box<str>,
    token: Option<Box<str>>,
    sender: ClientSender,
) -> Result<(RoomKey, ClientId), JoinRejection> {
    let (reply, joined) = oneshot::channel();
    worker
        .send(Command::Join {
            room,
            token,
            sender,
            reply,
        })
        .await
        .map_err(|_| JoinRejection::stopping())?;
    joined
        .await
        .unwrap_or_else(|_| Err(JoinRejection::stopping()))
}

/// Passes the client's messages to its room. Returns the frame to close with; none if the client
/// closed or the connection is lost.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    worker: &mpsc::Sender<Command>,
    (room, client): (RoomKey, ClientId),
    options: SocketOptions,
    liveness: &Liveness,
    usage: &QueueUsage,
) -> Option<CloseFrame> {
    let max_credits = max_credits(options);
    let credits = Arc::new(Semaphore::new(max_credits as usize));
    let mut rate = TokenBucket::new(options.message_rate);
    loop {
        let message = match stream.next().await? {
            Ok(message) => message,
            Err(error) => return frame_of_error(error),
        };
        let pause = rate.consume(liveness.touch(), 1);
        if !pause.is_zero() {
            liveness.while_paused(sleep(pause)).await;
        }
        let event = match message {
            Message::Text(text) => OwnedEvent::message(client, text.as_str()),
            Message::Binary(bytes) => OwnedEvent::message(client, Vec::from(bytes)),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            Message::Close(_) => return None,
        };
        let credit = credits
            .clone()
            .acquire_many_owned(cost(&event).min(max_credits));
        let credit = liveness.while_paused(credit).await.ok()?;
        // Backpressure: do not read from a client whose send queue is over half full. Checked after
        // the credit, since the room may have replied to earlier messages meanwhile.
        usage.below_half().await;
        let pass_on = async {
            let message = Command::Message {
                room,
                event,
                credit,
            };
            if worker.send(message).await.is_err() {
                // The worker has stopped. Its remaining messages are still to be written, so only
                // the writing half ends this connection.
                pending::<()>().await;
            }
        };
        liveness.while_paused(pass_on).await;
    }
}

/// What a client may have in flight to its room and queued there, in units of [`cost`]: many small
/// messages or one of maximum length; beyond that it is not read from. If the room replies to each
/// of them, the replies still fit into the other half of the send queue.
fn max_credits(options: SocketOptions) -> u32 {
    const SMALL_MESSAGES: usize = 64;
    let credits = (options.queue_limits.messages / 2).clamp(1, SMALL_MESSAGES);
    credits as u32
}

/// A large message costs as much as several small ones.
fn cost(event: &OwnedEvent) -> u32 {
    const SMALL_BYTES: usize = 16 << 10;
    u32::try_from(event.as_event().payload_len() / SMALL_BYTES)
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

/// The frame to close with after a read error; none if the connection is lost.
fn frame_of_error(error: Error) -> Option<CloseFrame> {
    let (code, reason) = match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            (1009, format!("the message exceeds {max_size} bytes"))
        }
        Error::Utf8(_) => (1007, "the text is not UTF-8".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(error) => (1002, error.to_string()),
        _ => return None,
    };
    Some(close_frame(code, &reason))
}

/// Sends the room's messages, and pings. Returns the frame to close with; none if the connection is
/// lost.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    ClientReceiver {
        mut queue,
        mut close,
    }: ClientReceiver,
    options: SocketOptions,
    liveness: &Liveness,
) -> Option<CloseFrame> {
    let mut batch = Vec::new();
    // Reset when they fire and not for each message, which is cheaper.
    let mut ping = pin!(sleep(options.heartbeat_interval));
    let mut deadline = pin!(sleep(options.heartbeat_timeout));
    // Set by a request to close after draining the queue.
    let mut final_frame = None;
    loop {
        // Selected together, so that neither a client that takes nothing nor a silent one can
        // delay its close.
        let sent = tokio::select! {
            biased;
            request = &mut close, if final_frame.is_none() => match request {
                Ok(CloseRequest { frame, drain: true }) => {
                    final_frame = Some(frame);
                    deadline.as_mut().reset(Instant::now() + DRAIN_TIMEOUT);
                    continue;
                }
                Ok(CloseRequest { frame, drain: false }) => return Some(frame),
                // The worker is gone, and so is the queue's sender.
                Err(_) => return final_frame,
            },
            () = &mut deadline => {
                if final_frame.is_some() {
                    return final_frame;
                }
                if !liveness.is_silent_for(options.heartbeat_timeout) {
                    deadline.as_mut().reset(liveness.last() + options.heartbeat_timeout);
                    continue;
                }
                let reason = format!("no data for {} s", options.heartbeat_timeout.as_secs());
                return Some(close_frame(1008, &reason));
            }
            sent = send_batch(sink, &mut queue, &mut batch, ping.as_mut()) => sent,
        };
        match sent {
            Sent::Messages => {}
            Sent::Ping => ping
                .as_mut()
                .reset(Instant::now() + options.heartbeat_interval),
            // The request precedes the end of the queue, but may have come after it was polled.
            Sent::QueueEnded if final_frame.is_none() => {
                return close.await.ok().map(|request| request.frame);
            }
            Sent::QueueEnded => return final_frame,
            Sent::ConnectionLost => return None,
        }
    }
}

/// The outcome of [`send_batch`].
enum Sent {
    Messages,
    Ping,
    /// The worker has dropped the sender, and everything is sent.
    QueueEnded,
    ConnectionLost,
}

/// Sends queued messages, or a ping when it is due. If it is cancelled, unsent messages stay in
/// `batch` or with the socket.
async fn send_batch(
    sink: &mut SplitSink<WebSocket, Message>,
    queue: &mut SendQueue,
    batch: &mut Vec<Message>,
    ping: Pin<&mut Sleep>,
) -> Sent {
    /// Messages that are passed to the socket before it is flushed.
    const MAX_BATCH: usize = 64;
    let mut sent = Sent::Messages;
    // Flushes what the previous call passed to the socket, even if that was cancelled.
    if sink.flush().await.is_err() {
        return Sent::ConnectionLost;
    }
    if batch.is_empty() {
        tokio::select! {
            biased;
            // First, so that a client that is sent a lot is pinged, too.
            () = ping => {
                batch.push(Message::Ping(Default::default()));
                sent = Sent::Ping;
            }
            received = queue.receive(batch, MAX_BATCH) => {
                if received == 0 {
                    return Sent::QueueEnded;
                }
                // They are popped from the end.
                batch.reverse();
            }
        }
    }
    while !batch.is_empty() {
        // A message leaves the batch only when the sink is ready, so that cancelling loses none.
        if poll_fn(|cx| sink.poll_ready_unpin(cx)).await.is_err() {
            return Sent::ConnectionLost;
        }
        if let Some(message) = batch.pop()
            && sink.start_send_unpin(message).is_err()
        {
            return Sent::ConnectionLost;
        }
    }
    sent
}

/// Sends the close frame and waits, for a bounded time, until the client closes.
async fn close_handshake(socket: &mut WebSocket, frame: Option<CloseFrame>) {
    let handshake = async {
        if let Some(frame) = frame {
            socket.send(Message::Close(Some(frame))).await?;
        }
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<(), Error>(())
    };
    // On an error or a timeout the connection is dropped anyway.
    let _ = timeout(CLOSE_HANDSHAKE_TIMEOUT, handshake).await;
}
