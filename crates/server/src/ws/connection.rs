//! A WebSocket connection while its client is in a room.

use crate::{
    config::ServerConfig,
    http::ConnectionPermit,
    rate_limit::{Rate, TokenBucket},
    rooms::{
        Claim, Order,
        trials::{Suspicion, Trial, Waiting},
    },
    stream::Stream,
    ws::{
        heartbeat::{Due, Heartbeat, HeartbeatOptions},
        message_reader::{MessageReader, ReadEnd, Received, close_frame},
        resume::Resuming,
        send_queue::{QueueLimits, QueuedBytes, SendQueue},
    },
};
use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use stateroom_wasmi_host::{ClientId, RoomKey};
use std::net::IpAddr;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tungstenite::protocol::{CloseFrame, Message, Role};

/// The options of all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionOptions {
    pub(crate) max_message_bytes: usize,
    pub(crate) message_rate: Rate,
    pub(crate) byte_rate: Rate,
    pub(crate) queue_limits: QueueLimits,
    pub(crate) heartbeat: HeartbeatOptions,
    /// Whether they come from gateways of a cluster.
    is_peer: bool,
}

impl ConnectionOptions {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            max_message_bytes: config.limits.max_message_bytes,
            message_rate: config.message_rate,
            byte_rate: config.byte_rate,
            queue_limits: QueueLimits::new(config),
            heartbeat: HeartbeatOptions {
                interval: config.heartbeat_interval.max(Duration::from_millis(1)),
                timeout: config.heartbeat_timeout,
            },
            is_peer: false,
        }
    }

    /// Those of a connection that speaks `stateroom.resume.1`, or is a gateway's: that has kept its client
    /// within the rates, and says more itself.
    pub(crate) fn of(mut self, resumes: bool, is_gateway: bool) -> Self {
        if resumes {
            // The byte that says that it is one.
            self.max_message_bytes = self.max_message_bytes.saturating_add(1);
        }
        if is_gateway {
            self.message_rate = Rate::UNLIMITED;
            self.byte_rate = Rate::UNLIMITED;
            self.is_peer = true;
        }
        self
    }
}

slotmap::new_key_type! {
    /// Names a connection of a worker, also once it is gone.
    pub(crate) struct ConnectionKey;
}

/// A connection. Its task polls it; its worker puts into its queue what the room sends.
pub(crate) struct Connection {
    pub(crate) order: Order,
    pub(super) stream: Stream,
    pub(super) reader: MessageReader,
    /// Read from the stream, but not by the reader yet.
    unread: Vec<u8>,
    /// A message that was read and waits: for its rate, or for space in the room.
    pending: Option<Message>,
    pub(crate) queue: SendQueue,
    /// Whether the worker will flush the queue at the end of its turn.
    pub(crate) is_dirty: bool,
    heartbeat: Heartbeat,
    options: ConnectionOptions,
    /// The origin of the rates' time.
    pub(super) since: Instant,
    frames: TokenBucket,
    pub(super) bytes: TokenBucket,
    /// It is over a rate until then.
    throttled_until: Option<Instant>,
    /// What its messages cost that the room has and has not handled; see [`message_cost`].
    in_flight: u32,
    /// Whether the room had no space for that message, and wakes it when there is.
    pub(crate) waits_for_room: bool,
    /// Whether its client speaks `stateroom.resume.1`.
    pub(crate) resuming: Resuming,
    /// Set if its client may be why nodes have ended.
    pub(crate) trial: Option<Trial>,
    /// Set if it must have its turn for that first.
    pub(crate) waiting: Option<Box<Waiting>>,
    /// Its client's room and id, from the join until it leaves.
    pub(crate) member: Option<(RoomKey, ClientId)>,
    /// Woken when the queue is at most half full again.
    pub(crate) drained: Option<Waker>,
    /// Whether it waits with its deferred end: for its room at another node, or for what the room is still to handle
    /// of its session.
    pub(crate) waits_to_end: bool,
    /// When what was not acknowledged is.
    ack_at: Option<Instant>,
    /// Whether the room has accepted it, so that its messages are read.
    is_admitted: bool,
    end: Option<End>,
    /// How it ends when its room has handled what the client has sent.
    deferred_end: Option<End>,
    waker: Waker,
    /// Counts it as open until it is dropped.
    pub(super) permit: ConnectionPermit,
}

/// How a connection is to end.
#[derive(Debug)]
pub(crate) enum End {
    /// The stream failed.
    Lost,
    /// The client closed. Sends what is queued, and then the reply.
    ByClient,
    /// Sends what is queued if `drain`, and then this frame.
    ByServer { frame: CloseFrame, drain: bool },
}

/// What a step of reading has found.
pub(crate) enum Step {
    /// A message for the room.
    Message(Message),
    /// Something else was read.
    Other,
    /// Nothing more now: the connection's task is woken when there may be.
    Nothing,
}

/// What was read from a stream.
#[derive(Clone, Copy)]
pub(crate) struct Filled {
    /// Bytes in the buffer.
    pub(crate) read: usize,
    /// Bytes that have come for those, which with TLS are more.
    pub(crate) received: usize,
}

/// Bytes of a worker's buffer for reading, and the most that it reads from a connection in a row.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Time for the first frame of a client that speaks `stateroom.resume.1`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client may have in flight to its room, in units of [`message_cost`]: many small messages or
/// one of maximum length; beyond that it is not read from.
const MAX_IN_FLIGHT: u32 = 64;

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        unread: Vec<u8>,
        order: Order,
        permit: ConnectionPermit,
        options: ConnectionOptions,
        total_queued: QueuedBytes,
        resuming: Resuming,
    ) -> Self {
        let now = Instant::now();
        Self {
            resuming,
            order,
            stream,
            reader: match options.is_peer {
                true => MessageReader::of_peer(Role::Server, options.max_message_bytes),
                false => MessageReader::new(options.max_message_bytes),
            },
            unread,
            pending: None,
            queue: SendQueue::new(options.queue_limits, total_queued),
            is_dirty: false,
            heartbeat: Heartbeat::new(options.heartbeat, now),
            options,
            since: now,
            frames: TokenBucket::new(options.message_rate),
            bytes: TokenBucket::new(options.byte_rate),
            throttled_until: None,
            in_flight: 0,
            waits_for_room: false,
            trial: None,
            waiting: None,
            member: None,
            drained: None,
            waits_to_end: false,
            ack_at: None,
            is_admitted: false,
            end: None,
            deferred_end: None,
            waker: Waker::noop().clone(),
            permit,
        }
    }

    /// Whether its client speaks `stateroom.resume.1`.
    pub(crate) const fn resumes(&self) -> bool {
        !matches!(self.resuming, Resuming::No)
    }

    const fn awaits_hello(&self) -> bool {
        matches!(self.resuming, Resuming::BeforeHello(_))
    }

    /// The client's address, as far as limits go, if it is known.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.permit.peer()
    }

    /// Sets whose turn it is when something changes.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        self.waker.clone_from(waker);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// The room accepts the client's messages from now on.
    pub(crate) fn admit(&mut self) {
        self.is_admitted = true;
        self.wake();
    }

    /// Requests the end; the first request counts.
    pub(crate) fn end(&mut self, end: End) {
        self.member = None;
        self.waits_for_room = false;
        self.end.get_or_insert(end);
        self.wake();
    }

    /// Whether it ends when what is queued was sent.
    pub(crate) const fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Requests a close; `drain` sends what is queued first.
    pub(crate) fn close(&mut self, code: u16, reason: &str, drain: bool) {
        let frame = close_frame(code, reason);
        self.end(End::ByServer { frame, drain });
    }

    /// As [`close`](Self::close), whatever was requested before, and without what is queued: that will never be
    /// durable.
    pub(crate) fn abandon(&mut self, code: u16, reason: &str) {
        self.queue.discard_unsent();
        self.end = None;
        self.close(code, reason, false);
    }

    /// Closes a client whose queue is full, without what is queued, which frees that at once.
    pub(crate) fn close_as_too_slow(&mut self, reason: &str) {
        self.queue.discard_unsent();
        self.close(1013, reason, false);
    }

    /// Requests the end for when the room has handled what the client has sent before, so that the client
    /// gets the replies to that. No more is read.
    pub(crate) fn defer_end(&mut self, end: End) {
        self.deferred_end.get_or_insert(end);
    }

    pub(crate) fn take_end(&mut self) -> Option<End> {
        if self.end.is_none() && self.in_flight == 0 && !self.waits_to_end {
            self.end = self.deferred_end.take();
        }
        let drains = match self.end {
            None => return None,
            Some(End::Lost | End::ByServer { drain: false, .. }) => false,
            Some(End::ByClient | End::ByServer { drain: true, .. }) => true,
        };
        // What is held is sent first, when it is let go.
        let waits = drains && self.queue.is_held();
        if waits { None } else { self.end.take() }
    }

    /// Lets go what was held for batches of the journal up to this one.
    pub(crate) fn release(&mut self, batch: u64, now: Instant) {
        self.queue.release(batch);
        self.flush(now);
        if self.end.is_some() {
            self.wake();
        }
    }

    /// Sends what is queued, as far as the client takes it. An error ends the connection.
    pub(crate) fn flush(&mut self, now: Instant) {
        let was_held = !self.queue.is_below_half();
        while !self.queue.unsent().is_empty() {
            let cx = &mut Context::from_waker(&self.waker);
            match Pin::new(&mut self.stream).poll_write(cx, self.queue.unsent()) {
                Poll::Pending => {
                    self.heartbeat.queued(now);
                    break;
                }
                Poll::Ready(Ok(written @ 1..)) => {
                    self.queue.sent(written);
                    self.heartbeat.taken(self.queue.unsent().is_empty(), now);
                }
                // The client leaves its room when its task sees that. Nothing can be sent before it any more.
                Poll::Ready(_) => {
                    self.end = Some(End::Lost);
                    return self.wake();
                }
            }
        }
        if self.queue.unsent().is_empty() {
            let is_told = !self.queue.is_held();
            self.trial.take_if(|trial| is_told && trial.is_over());
            // The rest of what TLS has encrypted; its task is woken when there is space.
            let cx = &mut Context::from_waker(&self.waker);
            if let Poll::Ready(Err(_)) = Pin::new(&mut self.stream).poll_flush(cx) {
                self.end = Some(End::Lost);
                return self.wake();
            }
        }
        if was_held && self.queue.is_below_half() {
            self.wake();
            if let Some(waker) = self.drained.take() {
                waker.wake();
            }
        }
    }

    /// Its client may be why nodes have ended: returns whether it may go on now, or must wait.
    pub(crate) fn go_on_trial(&mut self, suspicion: Suspicion, waiting: Waiting) -> bool {
        let trial = self.trial.get_or_insert(Trial::new(suspicion));
        let may_go_on = trial.has_turn() || !suspicion.must_be_alone();
        if may_go_on {
            trial.go_on(Instant::now());
        } else {
            self.waiting = Some(Box::new(waiting));
        }
        // Its task polls what it waits for.
        self.wake();
        may_go_on
    }

    /// The room that its client is to join, if it has waited for its turn and has it now.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Option<(Box<str>, Claim)>, End> {
        /// Pongs that come meanwhile; what is more is not read.
        const MAX_BYTES: usize = 1 << 10;
        let Some(waiting) = &mut self.waiting else {
            return Ok(None);
        };
        if let Poll::Ready((trial, room, claim)) = waiting.poll(cx) {
            self.trial = Some(trial);
            self.waiting = None;
            return Ok(Some((room, claim)));
        }
        // If the other end has given it up, it keeps no place.
        while self.unread.len() < MAX_BYTES {
            let mut bytes = [0; 128];
            let Some(filled) = self.fill(cx, &mut bytes, now)? else {
                break;
            };
            self.unread.extend_from_slice(&bytes[..filled.read]);
        }
        Ok(None)
    }

    /// Takes what was read before, to be passed to [`read`](Self::read).
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.unread)
    }

    /// Keeps what was read and not used.
    pub(crate) fn keep_unread(&mut self, bytes: &[u8]) {
        self.unread = Vec::from(bytes);
    }

    /// As [`keep_unread`](Self::keep_unread), of a client that is not read from for now, and so does not
    /// count as silent.
    pub(crate) fn stop_reading(&mut self, unread: &[u8], now: Instant) {
        self.keep_unread(unread);
        self.heartbeat.heard(now);
    }

    /// The next message in `input`, from which it removes what it has read.
    pub(crate) fn read(&mut self, input: &mut &[u8], now: Instant) -> Result<Step, End> {
        // Others wait behind one that waits for its room.
        let may_pass = self.waits_for_room || !self.is_held(now);
        if !may_pass {
            return Ok(Step::Nothing);
        }
        if let Some(message) = self.pending.take() {
            return Ok(Step::Message(message));
        }
        let received = self.reader.read(input, &mut self.queue)?;
        if matches!(received, Received::Nothing) {
            return Ok(Step::Nothing);
        }
        if !matches!(received, Received::Fragment) {
            self.heartbeat.heard(now);
        }
        let pause = self.frames.consume(self.nanos(now), 1);
        self.throttle(pause, now);
        Ok(match received {
            Received::Message(message) if pause.is_zero() => Step::Message(message),
            Received::Message(message) => {
                self.pending = Some(message);
                Step::Nothing
            }
            _ => Step::Other,
        })
    }

    /// Reads from the stream; none if there is nothing now.
    pub(crate) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<Option<Filled>, End> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        let received = self.stream.take_received(read);
        let pause = self.bytes.consume(self.nanos(now), received as u64);
        self.throttle(pause, now);
        match polled {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(())) if read > 0 => Ok(Some(Filled { read, received })),
            Poll::Ready(_) => Err(End::Lost),
        }
    }

    /// Whether it is not read from: by its rate, or as backpressure of its room or of its own queue.
    pub(crate) fn is_held(&mut self, now: Instant) -> bool {
        self.throttled_until.take_if(|until| *until <= now);
        (!self.is_admitted && !self.awaits_hello())
            || self.deferred_end.is_some()
            || self.is_ending()
            || self.throttled_until.is_some()
            || self.in_flight >= self.max_in_flight()
            || !self.queue.is_below_half()
    }

    /// If the room replies to each message, the replies still fit into the other half of the queue.
    fn max_in_flight(&self) -> u32 {
        let half = u32::try_from(self.options.queue_limits.messages / 2).unwrap_or(u32::MAX);
        half.clamp(1, MAX_IN_FLIGHT)
    }

    fn throttle(&mut self, pause: Duration, now: Instant) {
        if !pause.is_zero() {
            self.throttled_until = self.throttled_until.max(Some(now + pause));
        }
    }

    /// The room has taken a message of this cost.
    pub(crate) fn sent_to_room(&mut self, cost: u32) {
        self.in_flight = self.in_flight.saturating_add(cost);
    }

    /// The room has handled a message of this cost.
    pub(crate) fn handled_by_room(&mut self, cost: u32) {
        let was_full = self.in_flight >= self.max_in_flight();
        self.in_flight = self.in_flight.saturating_sub(cost);
        let may_read = was_full && self.in_flight < self.max_in_flight();
        let may_end = self.deferred_end.is_some() && self.in_flight == 0;
        if may_read || may_end {
            self.wake();
        }
    }

    /// Keeps a message that the room does not take now, to be read again.
    pub(crate) fn refuse(&mut self, message: Message) {
        self.pending = Some(message);
    }

    /// Does what is due by the time; what the client has sent must have been read, and what is queued is
    /// to be flushed. Returns when it is to be called again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Instant {
        let seconds = self.options.heartbeat.timeout.as_secs();
        // That it may go on may be held.
        if let (Some(trial), Some(_)) = (&mut self.trial, self.member)
            && self.queue.is_held()
        {
            trial.go_on(now);
        }
        match self.heartbeat.due(now) {
            Due::Nothing => {}
            Due::Ping => self.reader.ping(&mut self.queue),
            Due::Silent => self.time_out(&format!("no data for {seconds} s")),
            Due::Stalled => self.time_out(&format!("no data taken for {seconds} s")),
        }
        let mut deadline = self.heartbeat.deadline();
        if self.awaits_hello() {
            let hello_until = self.since + HELLO_TIMEOUT;
            if now >= hello_until {
                self.time_out("no hello");
            }
            deadline = deadline.min(hello_until);
        }
        let trial = self.trial.as_mut();
        let turn_until = trial.and_then(|trial| trial.handle_timeout(now));
        let others = self.throttled_until.into_iter().chain(turn_until);
        let others = others.chain(self.ack_at);
        others.fold(deadline, Instant::min)
    }

    /// As [`close`](Self::close), but the client is still in its room. One that comes back may do so: it, or its
    /// machine, was perhaps stopped.
    fn time_out(&mut self, reason: &str) {
        let code = if self.resumes() { 1013 } else { 1008 };
        let end = match self.options.is_peer {
            // Whoever it speaks for is there.
            true => End::Lost,
            false => End::ByServer {
                frame: close_frame(code, reason),
                drain: false,
            },
        };
        self.end.get_or_insert(end);
        self.wake();
    }

    /// What the room has handled is to be acknowledged soon, if the other end is a gateway, which keeps it until then.
    pub(crate) fn acknowledge_soon(&mut self) {
        /// As long as clients take with theirs.
        const INTERVAL: Duration = Duration::from_secs(1);
        if self.options.is_peer && self.ack_at.is_none() {
            self.ack_at = Some(Instant::now() + INTERVAL);
            self.wake();
        }
    }

    /// Whether that is due.
    pub(crate) fn take_ack_due(&mut self, now: Instant) -> bool {
        self.ack_at.take_if(|at| *at <= now).is_some()
    }

    /// Nanoseconds since the connection began, for its rates.
    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from((now - self.since).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a message counts for while it is in flight: a large one as much as several small ones.
pub(crate) fn message_cost(bytes: usize) -> u32 {
    const SMALL_BYTES: usize = 16 << 10;
    u32::try_from(bytes / SMALL_BYTES)
        .unwrap_or(MAX_IN_FLIGHT)
        .saturating_add(1)
        .min(MAX_IN_FLIGHT)
}

impl From<ReadEnd> for End {
    fn from(end: ReadEnd) -> Self {
        match end {
            ReadEnd::Closed(_) => Self::ByClient,
            // What is queued was sent before the violation.
            ReadEnd::Violation(frame) => Self::ByServer { frame, drain: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::trials::Trials;
    use futures_util::FutureExt;
    use std::{future::poll_fn, io::Write};
    use tokio::io::DuplexStream;

    /// A connection, and the other end of it.
    fn connect() -> (Connection, DuplexStream) {
        let limiter = crate::http::ConnectionLimiter::new(&ServerConfig::new(Vec::new()));
        let (ours, theirs) = tokio::io::duplex(64);
        let connection = Connection::new(
            Stream::Pipe(theirs),
            Vec::new(),
            Order::default(),
            limiter.admit_proxy().ok().expect("there is space"),
            ConnectionOptions::new(&ServerConfig::new(Vec::new())).of(true, true),
            QueuedBytes::default(),
            Resuming::Yes,
        );
        (connection, ours)
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_waits_for_nothing() {
        let (mut connection, ours) = connect();
        connection.queue.hold(1);
        connection.queue.push("last words".into()).expect("space");
        connection.close(1000, "", true);
        assert!(connection.take_end().is_none());
        drop(ours);
        connection.queue.write_all(b"\x89\0").expect("a ping");
        connection.flush(Instant::now());
        assert!(matches!(connection.take_end(), Some(End::Lost)));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_for_a_turn_keeps_no_place() {
        let (mut connection, ours) = connect();
        let claim = Claim {
            suspicion: Suspicion {
                deaths: 2,
                messages: 1,
            },
            ..Claim::default()
        };
        let waiting = Trials::after(Duration::from_secs(3600)).wait("lobby", &claim);
        assert!(!connection.go_on_trial(claim.suspicion, waiting));
        let mut poll = || {
            let now = Instant::now();
            let polled = poll_fn(|cx| Poll::Ready(connection.poll_turn(cx, now)));
            polled.now_or_never().expect("it is ready")
        };
        assert!(matches!(poll(), Ok(None)));
        drop(ours);
        assert!(matches!(poll(), Err(End::Lost)));
    }
}
