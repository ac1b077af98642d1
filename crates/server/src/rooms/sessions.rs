//! Sessions of clients that come back (`stateroom.resume.1`).

use crate::{
    rooms::{Order, tokens::TokenHash},
    ws::{connection::ConnectionKey, send_queue::QueuedBytes},
};
use core::{cell::RefCell, net::IpAddr};
use stateroom_wasmi_host::MessagePayload;
use stateroom_wasmi_resume::{InvalidCount, Window, WindowFull};
use std::{collections::HashMap, rc::Rc};

/// A client's session: what it has sent, and what it may not have received.
#[derive(Debug)]
pub(crate) struct Session {
    /// Of its secret.
    pub(super) hash: TokenHash,
    /// Tells it from other sessions of a client of the same id.
    pub(super) number: u64,
    /// The latest handshake of those that it went on over; zero if that is not known.
    pub(super) sequence: u64,
    /// Messages that the room has accepted.
    received: u64,
    /// Those of them that the room has handled, which are logged in a journaled room: no more is
    /// acknowledged.
    handled: u64,
    /// What those cost that were handled since the last acknowledgement.
    unacknowledged_cost: u32,
    /// Messages of the present connection that were accepted before, and are dropped.
    duplicates: u64,
    sent: Window<Kept>,
    /// Its secret, until the client is told.
    pub(super) unannounced: Option<Box<str>>,
    /// Whether the client has left for good.
    has_ended: bool,
    /// Tells the last time without a connection from those before.
    pub(super) absence: u64,
    /// A connection whose client waits until it may go on; as long as it is there, the absence does not end.
    pub(super) waiting: Option<ConnectionKey>,
    limits: SessionLimits,
    /// Bytes in all queues, these included.
    total: QueuedBytes,
    /// Counts it until it ends.
    permit: SessionPermit,
}

/// How many sessions there are, in all and of each address that began some.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionCounts(Rc<RefCell<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of_peers: HashMap<IpAddr, usize>,
}

/// A session that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct SessionPermit {
    counts: SessionCounts,
    peer: Option<IpAddr>,
}

impl SessionCounts {
    pub(super) fn all(&self) -> usize {
        self.0.borrow().all
    }

    pub(super) fn of_peer(&self, peer: IpAddr) -> usize {
        self.0.borrow().of_peers.get(&peer).copied().unwrap_or(0)
    }

    /// Counts a session of an address; that of one that was stored is not known.
    pub(super) fn permit(&self, peer: Option<IpAddr>) -> SessionPermit {
        let mut counts = self.0.borrow_mut();
        counts.all += 1;
        if let Some(peer) = peer {
            *counts.of_peers.entry(peer).or_default() += 1;
        }
        SessionPermit {
            counts: self.clone(),
            peer,
        }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.0.borrow_mut();
        counts.all -= 1;
        if let Some(peer) = self.peer
            && let Some(count) = counts.of_peers.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                counts.of_peers.remove(&peer);
            }
        }
    }
}

/// How much of what was sent is kept for one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    is_text: bool,
    bytes: Box<[u8]>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Kept {
    fn new(payload: MessagePayload<'_>) -> Self {
        Self {
            is_text: payload.text().is_some(),
            bytes: payload.as_bytes().into(),
        }
    }

    /// The message. What claims to be text was text.
    pub(crate) fn payload(&self) -> MessagePayload<'_> {
        match core::str::from_utf8(&self.bytes) {
            Ok(text) if self.is_text => MessagePayload::Text(text),
            _ => MessagePayload::Bytes(&self.bytes),
        }
    }
}

/// Small messages after which one acknowledges, and fewer that are long: the client keeps them until then.
const ACK_INTERVAL: u32 = 16;

impl Session {
    pub(super) fn new(
        hash: TokenHash,
        number: u64,
        limits: SessionLimits,
        total: QueuedBytes,
        permit: SessionPermit,
    ) -> Self {
        Self {
            permit,
            hash,
            number,
            sequence: 0,
            received: 0,
            handled: 0,
            unacknowledged_cost: 0,
            duplicates: 0,
            sent: Window::default(),
            unannounced: None,
            has_ended: false,
            absence: number,
            waiting: None,
            limits,
            total,
        }
    }

    /// The client comes back, and has received so many messages. Returns how many of its own it need not
    /// send again.
    pub(super) fn resume(&mut self, received: u64) -> Result<u64, InvalidCount> {
        self.acknowledge(received)?;
        self.duplicates = self.received - self.handled;
        self.unacknowledged_cost = 0;
        Ok(self.handled)
    }

    /// The client leaves for good. Returns what to acknowledge before that, unless the room is still to handle
    /// something.
    pub(super) fn end(&mut self) -> Option<u64> {
        self.has_ended = true;
        match self.is_settled() {
            true => self.acknowledge_all(),
            false => None,
        }
    }

    /// Whether the room has handled all that it has accepted.
    pub(super) const fn is_settled(&self) -> bool {
        self.handled == self.received
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Of its last connection, which may be gone.
    pub(super) fn last_order(&self) -> Option<Order> {
        let order = Order {
            sequence: self.sequence,
            attempt: 0,
        };
        (self.sequence > 0).then_some(order)
    }

    /// The address that began it, if that is known.
    pub(super) const fn peer(&self) -> Option<IpAddr> {
        self.permit.peer
    }

    /// Whether the client's next message was accepted before.
    pub(super) fn take_duplicate(&mut self) -> bool {
        let is_duplicate = self.duplicates > 0;
        self.duplicates -= u64::from(is_duplicate);
        is_duplicate
    }

    /// The room has accepted a message.
    pub(super) fn accepted(&mut self) {
        self.received += 1;
    }

    /// Messages that the room has handled.
    pub(super) const fn handled_count(&self) -> u64 {
        self.handled
    }

    /// The room has handled a message of this cost in flight. Returns what to acknowledge: now and then, `at_once`,
    /// or since the client has left and nothing is to follow.
    pub(super) fn handled(&mut self, cost: u32, at_once: bool) -> Option<u64> {
        self.handled = (self.handled + 1).min(self.received);
        self.unacknowledged_cost = self.unacknowledged_cost.saturating_add(cost);
        let is_last = self.has_ended && self.is_settled();
        let is_due = at_once || is_last || self.unacknowledged_cost >= ACK_INTERVAL;
        is_due.then(|| self.acknowledged())
    }

    /// What is to be acknowledged, if something is.
    pub(super) fn acknowledge_all(&mut self) -> Option<u64> {
        (self.unacknowledged_cost > 0).then(|| self.acknowledged())
    }

    const fn acknowledged(&mut self) -> u64 {
        self.unacknowledged_cost = 0;
        self.handled
    }

    /// Keeps a message that is sent.
    pub(super) fn push(&mut self, payload: MessagePayload<'_>) -> Result<(), WindowFull> {
        let SessionLimits { messages, bytes } = self.limits;
        self.sent.push(Kept::new(payload), messages, bytes)?;
        self.total.set(self.total.get() + payload.len());
        Ok(())
    }

    /// The client has received so many messages.
    pub(super) fn acknowledge(&mut self, received: u64) -> Result<(), InvalidCount> {
        let before = self.sent.bytes();
        self.sent.acknowledge(received)?;
        self.total
            .set(self.total.get() - (before - self.sent.bytes()));
        Ok(())
    }

    /// What the client may not have received.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Kept> {
        self.sent.iter()
    }

    /// How many bytes are kept.
    pub(super) const fn bytes(&self) -> usize {
        self.sent.bytes()
    }

    /// What is kept of it in a journal.
    pub(super) fn store(&self, outputs_enabled: bool) -> StoredSession {
        StoredSession {
            hash: self.hash,
            sequence: self.sequence,
            received: self.received,
            outputs_enabled,
            sent: self.sent.clone(),
        }
    }

    /// A session that was stored; what it has received is as durable as itself.
    pub(super) fn restore(
        stored: StoredSession,
        number: u64,
        limits: SessionLimits,
        total: QueuedBytes,
        permit: SessionPermit,
    ) -> Self {
        total.set(total.get() + stored.sent.bytes());
        let mut session = Self::new(stored.hash, number, limits, total, permit);
        session.sequence = stored.sequence;
        session.received = stored.received;
        session.handled = stored.received;
        session.sent = stored.sent;
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.sent.bytes());
    }
}

/// A session in a journal.
#[derive(Clone, Debug)]
pub(crate) struct StoredSession {
    pub(super) hash: TokenHash,
    /// As in [`Session`].
    pub(super) sequence: u64,
    /// Messages that the room has accepted.
    pub(super) received: u64,
    /// Whether the room has begun to handle the client's connect.
    pub(super) outputs_enabled: bool,
    sent: Window<Kept>,
}

/// What was acknowledged since it was stored is not known, so that more is kept until the client comes
/// back.
const MAX_REPLAYED_MESSAGES: usize = 1 << 16;
const MAX_REPLAYED_BYTES: usize = 16 << 20;

impl StoredSession {
    pub(super) fn new(hash: TokenHash, sequence: u64) -> Self {
        Self {
            hash,
            sequence,
            received: 0,
            outputs_enabled: false,
            sent: Window::default(),
        }
    }

    /// A message is sent again by a replay.
    pub(super) fn push(&mut self, payload: MessagePayload<'_>) -> Result<(), WindowFull> {
        self.sent.push(
            Kept::new(payload),
            MAX_REPLAYED_MESSAGES,
            MAX_REPLAYED_BYTES,
        )
    }

    /// The hash, the sequence number, a flag, how many messages were received and how many sent were acknowledged,
    /// and those that were not: how many, and each as a byte (1 is text), a length and bytes. Integers are little
    /// endian.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.hash.0);
        to.extend(self.sequence.to_le_bytes());
        to.push(self.outputs_enabled.into());
        to.extend(self.received.to_le_bytes());
        to.extend(self.sent.acknowledged().to_le_bytes());
        to.extend((self.sent.len() as u32).to_le_bytes());
        for message in self.sent.iter() {
            to.push(message.is_text.into());
            to.extend((message.bytes.len() as u32).to_le_bytes());
            to.extend(&message.bytes);
        }
    }

    /// Reads a session from the beginning of these bytes, and returns the rest; none if there is no
    /// session. Earlier formats had no sequence numbers.
    pub(super) fn decode(bytes: &[u8], has_sequence: bool) -> Option<(Self, &[u8])> {
        let (hash, mut bytes) = bytes.split_first_chunk()?;
        let mut sequence = 0;
        if has_sequence {
            let (number, rest) = bytes.split_first_chunk()?;
            (sequence, bytes) = (u64::from_le_bytes(*number), rest);
        }
        let (enabled, bytes) = bytes.split_first()?;
        let (received, bytes) = bytes.split_first_chunk()?;
        let (acknowledged, bytes) = bytes.split_first_chunk()?;
        let (count, mut bytes) = bytes.split_first_chunk()?;
        let acknowledged = u64::from_le_bytes(*acknowledged);
        let mut sent = Window::continuing(acknowledged);
        for _ in 0..u32::from_le_bytes(*count) {
            let (is_text, rest) = bytes.split_first()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            bytes = rest;
            let payload = match is_text {
                0 => MessagePayload::Bytes(message),
                _ => MessagePayload::Text(core::str::from_utf8(message).ok()?),
            };
            sent.push(Kept::new(payload), usize::MAX, usize::MAX).ok()?;
        }
        let received = u64::from_le_bytes(*received);
        // Counters go on from here.
        let is_possible = received < 1 << 53 && acknowledged < 1 << 53;
        let session = Self {
            hash: TokenHash(*hash),
            sequence,
            received,
            outputs_enabled: *enabled == 1,
            sent,
        };
        is_possible.then_some((session, bytes))
    }
}
