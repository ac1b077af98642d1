//! A client's session with the node that has its room, over as many connections as it takes.

use super::{Forward, GatewayRooms, Routes, UNLIMITED};
use crate::{
    directory::Location,
    rooms::{
        BEHIND, LATE, MOVED, SESSION_LOST, STOPPING,
        worker::{Worker, poll_timer},
    },
    stream::Stream,
    ws::{
        connection::READ_BYTES,
        message_reader::{MessageReader, ReadEnd, Received},
        send_queue::SendQueue,
    },
};
use core::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use stateroom_wasmi_host::{MessagePayload, RoomKey};
use stateroom_wasmi_resume::{ClientError, Frame, Incoming, Message, MessageRef};
use std::{rc::Rc, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tungstenite::protocol::{CloseFrame, Role};

/// Bytes of pongs and acknowledgements, and of what frames add to messages, that wait for a node; beyond that it
/// is not read from.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// What is done for one client.
pub(super) struct Link {
    worker: Rc<Worker<GatewayRooms>>,
    routes: Arc<Routes>,
    key: RoomKey,
}

/// How that ends.
pub(super) enum Ended {
    /// The client has left its room.
    Left,
    /// The client is to be closed with this code and reason.
    Closed(u16, String),
}

/// Why a connection to a node has ended.
enum LinkEnd {
    /// It was lost, or the room is elsewhere: the session may go on over another one.
    Lost,
    /// The same, as it is if the node's process has ended.
    Died,
    /// The session is over.
    Over(Ended),
    /// The same, unless the node has lost the room to another one without knowing it.
    Doubtful(Ended),
    /// The node cannot go on with the session now. If no other one does either, it is over.
    Refused(Ended),
}

/// How far a connection to a node has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Whether the node has said anything.
    was_heard: bool,
    /// Whether the session has gone on over it.
    was_open: bool,
}

/// Time between two attempts to reach a node, unless the directory has something new.
const MIN_PAUSE: Duration = Duration::from_millis(5);
pub(super) const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Time for which a gateway does not believe a node that knows less of a session than the gateway does: it may
/// have lost the room to another node, and not know that yet.
const DOUBT: Duration = Duration::from_secs(3);

/// Time after which a message from a node is acknowledged even if no more come.
const ACK_DELAY: Duration = Duration::from_secs(1);

/// Bytes after which one acknowledges before there are many messages.
const ACK_BYTES: usize = 64 << 10;

impl Link {
    pub(super) fn new(worker: Rc<Worker<GatewayRooms>>, routes: Arc<Routes>, key: RoomKey) -> Self {
        Self {
            worker,
            routes,
            key,
        }
    }

    /// Forwards the client until it has left, or must be closed.
    pub(super) async fn run(self) {
        let ended = self.forward().await;
        self.worker.with(|rooms| rooms.finish(self.key, ended));
        self.worker.notify();
    }

    async fn forward(&self) -> Ended {
        let mut changes = self.routes.directory.changes();
        let (mut asked, mut pause) = (None, Duration::ZERO);
        let mut until = Instant::now() + self.routes.owner_timeout;
        let mut doubted_since: Option<Instant> = None;
        let mut refused = None;
        loop {
            changes.mark_unchanged();
            let state = self.worker.with(|rooms| {
                let forward = rooms.forwards.get_mut(&self.key)?;
                forward.is_linked = false;
                let is_gone = forward.is_leaving && !forward.has_said_hello;
                forward.client.suspicion = forward.suspicion();
                forward.client.order.attempt += 1;
                (!is_gone).then(|| forward.client.clone())
            });
            let Some(client) = state else {
                return Ended::Left;
            };
            let location = self.routes.directory.locate(&client.room);
            if asked.replace(location) != Some(location) {
                // It is not asked less often because another node was asked in vain.
                pause = Duration::ZERO;
            }
            let began = Instant::now();
            let (mut progress, mut is_reached, mut process) = (Progress::default(), false, None);
            let served = async {
                let stream = self.routes.open(location, &client).await;
                let (stream, reached) = stream.map_err(|_| LinkEnd::Lost)?;
                (is_reached, process) = (true, reached);
                self.serve(stream, &mut progress).await
            };
            let end = tokio::select! {
                biased;
                // First, since the directory says soon what has become of a node that has ended.
                Err(end) = served => end,
                () = self.routes.moved(&mut changes, &client.room, location) => LinkEnd::Lost,
            };
            if let (LinkEnd::Died, Some(process)) = (&end, process)
                && process.has_ended().await
            {
                self.worker.with(|rooms| {
                    let forward = rooms.forwards.get_mut(&self.key);
                    forward.map(Forward::node_died)
                });
            }
            match end {
                LinkEnd::Over(ended) => return ended,
                // Nobody else has its rooms.
                LinkEnd::Doubtful(ended) if matches!(location, Location::Leaf(_)) => return ended,
                LinkEnd::Doubtful(ended) => {
                    let doubted_since = *doubted_since.get_or_insert_with(Instant::now);
                    if doubted_since.elapsed() >= DOUBT {
                        return ended;
                    }
                }
                LinkEnd::Refused(ended) => refused = Some(ended),
                LinkEnd::Lost | LinkEnd::Died => {}
            }
            if progress.was_open {
                (doubted_since, refused) = (None, None);
                // Not without end if each is lost at once.
                let is_brief = began.elapsed() < MAX_PAUSE;
                pause = if is_brief { MIN_PAUSE } else { Duration::ZERO };
                until = Instant::now() + self.routes.owner_timeout;
            } else if !matches!(location, Location::Leaf(_))
                && (progress.was_heard
                    || is_reached
                        && client.suspicion.must_be_alone()
                        && began.elapsed() < self.routes.silence)
            {
                // A node had the room, and waited for its journal, or let the client wait for its turn.
                until += began.elapsed();
            }
            if Instant::now() >= until {
                let reason = "the node of the room cannot be reached";
                return refused.unwrap_or_else(|| Ended::Closed(1013, reason.into()));
            }
            // Also sleeping for no time takes a millisecond.
            if !pause.is_zero() {
                tokio::select! {
                    () = changed(&mut changes) => {}
                    () = sleep(pause) => {}
                }
            }
            pause = (2 * pause).clamp(MIN_PAUSE, MAX_PAUSE);
        }
    }

    /// Serves a connection until it ends.
    async fn serve(&self, stream: Stream, progress: &mut Progress) -> Result<Infallible, LinkEnd> {
        let mut connection = NodeConnection::new(self.key, stream, &self.routes);
        self.worker.with(|rooms| connection.begin(rooms));
        let mut timer = pin!(sleep_until(Instant::now()));
        let end = poll_fn(|cx| {
            loop {
                let now = Instant::now();
                let polled = self
                    .worker
                    .with_buffer(|rooms, buffer| connection.poll(rooms, buffer, cx, now));
                *progress = connection.progress;
                match polled {
                    Ok(deadline) if poll_timer(timer.as_mut(), deadline, cx).is_pending() => {
                        return Poll::Pending;
                    }
                    Ok(_) => {}
                    Err(end) => return Poll::Ready(end),
                }
            }
        });
        Err(end.await)
    }
}

impl Routes {
    /// Waits until a room is known to be at another node, or again at this one after nobody had it: it may have
    /// been cut off, and connections that have lost packets need as long again to notice that it is back.
    pub(super) async fn moved(
        &self,
        changes: &mut watch::Receiver<()>,
        room: &str,
        from: Location,
    ) {
        let mut was_gone = false;
        loop {
            changed(changes).await;
            match self.directory.locate(room) {
                Location::Unknown => was_gone = true,
                location if location != from || was_gone => return,
                _ => {}
            }
        }
    }
}

/// Waits until a directory has something new; without end if it has ended.
pub(super) async fn changed(changes: &mut watch::Receiver<()>) {
    if changes.changed().await.is_err() {
        core::future::pending::<()>().await;
    }
}

/// A connection to the node of a client's room.
struct NodeConnection {
    key: RoomKey,
    stream: Stream,
    reader: MessageReader,
    /// Read from the stream, but not by the reader yet.
    unread: Vec<u8>,
    progress: Progress,
    /// Whether the node was told that the client leaves.
    said_goodbye: bool,
    /// When something must be acknowledged.
    ack_at: Option<Instant>,
    /// Bytes of messages that were not acknowledged.
    unacknowledged: usize,
    heard_at: Instant,
    silence: Duration,
    /// When it ends if the client has left, and the node does not take its session on.
    leaving_until: Option<Instant>,
    owner_timeout: Duration,
}

impl NodeConnection {
    fn new(key: RoomKey, stream: Stream, routes: &Routes) -> Self {
        // The byte that says that it is a message.
        let max_bytes = routes.max_message_bytes.saturating_add(1);
        Self {
            key,
            stream,
            reader: MessageReader::of_peer(Role::Client, max_bytes),
            unread: Vec::new(),
            progress: Progress::default(),
            said_goodbye: false,
            ack_at: None,
            unacknowledged: 0,
            heard_at: Instant::now(),
            silence: routes.silence,
            leaving_until: None,
            owner_timeout: routes.owner_timeout,
        }
    }

    /// Says hello, and before that a ping: the reply to that tells at once that the node is there.
    fn begin(&mut self, rooms: &mut GatewayRooms) {
        let total = rooms.outgoing.clone();
        if let Some(forward) = rooms.forwards.get_mut(&self.key) {
            forward.outgoing = SendQueue::new(UNLIMITED, total);
            forward.has_said_hello = true;
            self.reader.ping(&mut forward.outgoing);
            let hello = forward.session.hello();
            forward.outgoing.push_control(&hello);
        }
    }

    /// Sends what there is for the node, and passes what has come from it to the client. Returns the next
    /// deadline.
    fn poll(
        &mut self,
        rooms: &mut GatewayRooms,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Instant, LinkEnd> {
        if let Some(forward) = rooms.forwards.get_mut(&self.key) {
            forward.waker.clone_from(cx.waker());
        }
        // What has come is read even if nothing can be sent any more: it may say why.
        let read = self.read(rooms, buffer, cx, now);
        let client = rooms.connection(self.key);
        if let Some(client) = client.and_then(|client| rooms.clients.get(client)) {
            client.flush(now);
        }
        rooms.remove_slow();
        read?;
        let forward = rooms.forwards.get_mut(&self.key).ok_or(LinkEnd::Lost)?;
        let is_due = self.ack_at.is_some_and(|at| at <= now) || self.unacknowledged >= ACK_BYTES;
        if let Some(ack) = forward.session.ack(is_due) {
            forward.outgoing.push_control(&ack);
            (self.ack_at, self.unacknowledged) = (None, 0);
        }
        if forward.is_leaving && forward.session.is_open() && !self.said_goodbye {
            self.said_goodbye = true;
            forward.outgoing.push_control(&Frame::Goodbye.to_string());
        }
        self.write(rooms, cx)?;
        let silent_at = self.heard_at + self.silence;
        if now >= silent_at {
            return Err(LinkEnd::Lost);
        }
        let forward = rooms.forwards.get(&self.key).ok_or(LinkEnd::Lost)?;
        if forward.is_leaving && !forward.session.is_open() {
            let until = now + self.owner_timeout;
            if now >= *self.leaving_until.get_or_insert(until) {
                return Err(LinkEnd::Over(Ended::Left));
            }
        } else {
            self.leaving_until = None;
        }
        let deadlines = self.ack_at.into_iter().chain(self.leaving_until);
        Ok(deadlines.fold(silent_at, Instant::min))
    }

    fn write(&mut self, rooms: &mut GatewayRooms, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        let forward = rooms.forwards.get_mut(&self.key).ok_or(LinkEnd::Lost)?;
        while !forward.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, forward.outgoing.unsent()) {
                Poll::Pending => break,
                Poll::Ready(Ok(written @ 1..)) => forward.outgoing.sent(written),
                // What it has sent before was read.
                Poll::Ready(_) => return Err(self.died()),
            }
        }
        Ok(())
    }

    /// Reads up to the length of the buffer, and no more than the client takes.
    fn read(
        &mut self,
        rooms: &mut GatewayRooms,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), LinkEnd> {
        let mut filled = self.unread.len();
        buffer[..filled].copy_from_slice(&self.unread);
        self.unread.clear();
        let mut total = 0;
        loop {
            let mut input = &buffer[..filled];
            let is_held = self.pass_on(rooms, &mut input, cx, now)?;
            if is_held {
                self.unread = Vec::from(input);
                return Ok(());
            }
            // The beginning of a frame's header.
            let kept = input.len();
            buffer.copy_within(filled - kept..filled, 0);
            let mut space = ReadBuf::new(&mut buffer[kept..]);
            let polled = match total >= READ_BYTES {
                true => {
                    // The others have their turn first.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                false => Pin::new(&mut self.stream).poll_read(cx, &mut space),
            };
            let read = space.filled().len();
            match polled {
                Poll::Pending => {
                    self.unread = Vec::from(&buffer[..kept]);
                    return Ok(());
                }
                Poll::Ready(Ok(())) if read > 0 => {}
                Poll::Ready(_) => return Err(self.died()),
            }
            filled = kept + read;
            total += read;
        }
    }

    /// Passes messages to the client; returns whether it takes no more for now.
    fn pass_on(
        &mut self,
        rooms: &mut GatewayRooms,
        input: &mut &[u8],
        cx: &Context<'_>,
        now: Instant,
    ) -> Result<bool, LinkEnd> {
        loop {
            let client = rooms.connection(self.key);
            if let Some(client) = client.and_then(|client| rooms.clients.get(client))
                && !client.queue.is_below_half()
            {
                client.flush(now);
                if !client.queue.is_below_half() {
                    client.drained = Some(cx.waker().clone());
                    // It is not silent, but not read from.
                    self.heard_at = now;
                    return Ok(true);
                }
            }
            let forward = rooms.forwards.get_mut(&self.key).ok_or(LinkEnd::Lost)?;
            // It asks for pongs without taking them.
            let (_, of_client) = forward.session.unacknowledged_size();
            if forward.outgoing.len() > of_client + MAX_CONTROL_BYTES {
                return Ok(true);
            }
            let message = match self.reader.read(input, &mut forward.outgoing) {
                Ok(Received::Message(message)) => message,
                Ok(Received::Nothing) => return Ok(false),
                Ok(_) => {
                    self.heard(now);
                    continue;
                }
                Err(ReadEnd::Closed(frame)) => {
                    let has_joined = forward.has_joined;
                    return Err(self.closed(frame, has_joined));
                }
                Err(ReadEnd::Violation(frame)) => return Err(violation(&frame)),
            };
            self.heard(now);
            let frame = match &message {
                tungstenite::Message::Text(text) => Frame::from_text(text),
                tungstenite::Message::Binary(bytes) => Frame::from_bytes(bytes),
                // The reader returns no others.
                _ => continue,
            };
            let frame = frame.map_err(|error| violation(&error))?;
            self.receive(rooms, frame, now)?;
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.progress.was_heard = true;
    }

    fn receive(
        &mut self,
        rooms: &mut GatewayRooms,
        frame: Frame<'_>,
        now: Instant,
    ) -> Result<(), LinkEnd> {
        let forward = rooms.forwards.get_mut(&self.key).ok_or(LinkEnd::Lost)?;
        let before = forward.session.unacknowledged_size();
        let is_ack = matches!(frame, Frame::Ack(_));
        let incoming = forward.session.receive_frame(frame);
        let has_handled = is_ack && forward.session.unacknowledged_size() < before;
        let incoming = incoming.map_err(|error| match error {
            // It has fewer of the client's messages than were acknowledged.
            ClientError::InvalidCount if !self.progress.was_open => {
                LinkEnd::Doubtful(session_lost())
            }
            error => violation(&error),
        })?;
        let client = rooms.connection(self.key);
        match incoming {
            Incoming::Message(message) => {
                let payload = match message {
                    MessageRef::Text(text) => MessagePayload::Text(text),
                    MessageRef::Binary(bytes) => MessagePayload::Bytes(bytes),
                };
                self.unacknowledged += payload.len();
                self.ack_at.get_or_insert(now + ACK_DELAY);
                if let Some(client) = client {
                    rooms.clients.deliver(client, payload);
                }
                return Ok(());
            }
            Incoming::New { was_lost: true } => return Err(LinkEnd::Over(session_lost())),
            Incoming::New { was_lost: false } | Incoming::Resumed => {
                self.progress.was_open = true;
                rooms.resumed += u64::from(incoming == Incoming::Resumed);
                let forward = rooms.forwards.get_mut(&self.key).ok_or(LinkEnd::Lost)?;
                forward.is_linked = true;
                for frame in forward.session.unacknowledged() {
                    let payload = match &frame {
                        Message::Text(text) => MessagePayload::Text(text),
                        Message::Binary(bytes) => MessagePayload::Bytes(bytes),
                    };
                    // Without limits it has space.
                    let _ = forward.outgoing.push(payload);
                }
                let has_joined = core::mem::replace(&mut forward.has_joined, true);
                if !has_joined
                    && let Some(client) = client.and_then(|client| rooms.clients.get(client))
                {
                    client.admit();
                }
            }
            Incoming::Nothing => {}
        }
        // Something may have been acknowledged.
        if let Some(forward) = rooms.forwards.get_mut(&self.key) {
            forward.acknowledged(has_handled);
        }
        rooms.count(self.key);
        if let Some(client) = client.and_then(|client| rooms.clients.get(client))
            && client.waits_for_room
        {
            client.wake();
        }
        Ok(())
    }

    /// The connection has ended without a word. Before the session goes on, the node has nothing of the client.
    const fn died(&self) -> LinkEnd {
        match self.progress.was_open {
            true => LinkEnd::Died,
            false => LinkEnd::Lost,
        }
    }

    /// What follows when the node has closed the connection.
    fn closed(&self, frame: Option<CloseFrame>, has_joined: bool) -> LinkEnd {
        let Some(CloseFrame { code, reason }) = frame else {
            return LinkEnd::Lost;
        };
        match (u16::from(code), reason.as_str()) {
            (1000, _) if self.said_goodbye => LinkEnd::Over(Ended::Left),
            // It comes back, or another node has the room then.
            MOVED | STOPPING | LATE => LinkEnd::Lost,
            SESSION_LOST | (BEHIND, _) => LinkEnd::Doubtful(session_lost()),
            // It has too many rooms, or too much to do. Whoever is new is told at once.
            (1013, reason) if has_joined && !self.progress.was_open => {
                LinkEnd::Refused(Ended::Closed(1013, reason.into()))
            }
            (code, reason) => LinkEnd::Over(Ended::Closed(code, reason.into())),
        }
    }
}

/// Another connection would end in the same way.
fn violation(error: &dyn fmt::Display) -> LinkEnd {
    let reason = format!("the node of the room violates the protocol: {error}");
    log::debug!("{reason}");
    LinkEnd::Over(Ended::Closed(1011, reason))
}

/// The client must be told: it has left its room, and what it has sent last may not have arrived.
fn session_lost() -> Ended {
    Ended::Closed(1012, "the room has lost its clients".into())
}
