//! What the rooms of a worker write into the journal, and what waits until it is durable.

use crate::{
    journal::{
        Batch, Durability, Journal, JournalError, ReplayCost, RoomNumber, RoomSnapshot, RoomWrite,
        Stored,
    },
    rooms::stored_clients::Credentials,
    ws::connection::{Connection, ConnectionKey},
};
use core::time::Duration;
use hashbrown::HashSet;
use stateroom_wasmi_host::{EventRecord, Instant, ModuleHash, RoomKey};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};
use tokio::{sync::Notify, time};

/// A worker's side of the journal.
///
/// What the rooms do in a turn is one batch. What they send is held in the clients' queues until that is
/// durable, so that nobody has seen what a crash could undo.
pub(crate) struct Journaling {
    journal: Arc<dyn Journal>,
    /// Where the journal's results go, and who is woken.
    results: (Sender<JournalResult>, Receiver<JournalResult>),
    notify: Arc<Notify>,
    batch: Batch,
    /// Whether something is held for the batch.
    holds: bool,
    /// The number of the last batch that was passed to the journal; they count from 1.
    submitted: u64,
    /// Batches that are not known to be durable, with their bytes and when they were submitted.
    in_flight: VecDeque<(u64, usize, time::Instant)>,
    /// The last batch that is durable.
    durable: u64,
    in_flight_bytes: usize,
    /// Connections whose queues hold something, for each batch.
    held: VecDeque<Held>,
    /// For each batch, rooms whose outputs are held, with how many.
    held_outputs: VecDeque<(u64, RoomKey, HeldOutputs)>,
    /// Rooms that have sent something in this turn.
    sending: Vec<RoomKey>,
    /// Rooms with events since their snapshots, by the time to save them. In order, since the interval is
    /// constant.
    unsaved: VecDeque<(Instant, RoomKey)>,
    /// Rooms whose tails have become long.
    long_tails: Vec<RoomKey>,
    scratch: Vec<u8>,
    /// The number of the worker.
    worker: usize,
    /// What was last noted as being replayed.
    replaying: Option<(RoomNumber, u64)>,
}

/// What a journal has done.
pub(crate) enum JournalResult {
    /// Batches up to this one are durable.
    Durable(u64),
    /// As [`Durable`](Self::Durable), but what is of these rooms in this batch was not written.
    Lost(u64, Vec<RoomNumber>),
    /// What was loaded, with the number of the load.
    Loaded(Box<str>, u64, Result<Stored, JournalError>),
    /// A module that stored rooms have.
    Module(ModuleHash, Result<Option<Vec<u8>>, JournalError>),
    Failed(JournalError),
}

/// What a room has written.
#[derive(Debug)]
pub(crate) struct RoomLog {
    pub(crate) number: RoomNumber,
    durability: Durability,
    /// The first batch that may have something of it.
    first_batch: u64,
    /// The number of the next event.
    next_event: u64,
    replay_cost: ReplayCost,
    /// What it would cost to replay the events since the snapshot, in units of fuel.
    tail_cost: u64,
    has_tail: bool,
    /// Fuel that the room had used at its last event.
    fuel_used: u64,
    snapshot_bytes: usize,
    /// Whether nothing of the room is kept when it has ended.
    pub(crate) is_unwanted: bool,
    /// Outputs that are held.
    held: HeldOutputs,
    /// Those of this turn.
    sent: HeldOutputs,
}

/// A connection whose queue holds something of a room, which it may not be in any more, and which may have ended.
struct Held {
    batch: u64,
    connection: ConnectionKey,
    room: RoomNumber,
    /// As in [`RoomLog`].
    first_batch: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct HeldOutputs {
    messages: usize,
    bytes: usize,
}

/// Time after its first event since its snapshot when a room is saved, however little has happened: bounds
/// the log, which is kept from the oldest event on that a room needs.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// Time after which a room is tried to be saved again that could not be.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of a worker's batches that are not durable; beyond, its journaled rooms wait.
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;

impl Journaling {
    /// Of the `worker`th worker.
    pub(crate) fn new(journal: Arc<dyn Journal>, worker: usize) -> Self {
        Self {
            journal,
            results: channel(),
            notify: Arc::default(),
            batch: Batch::default(),
            holds: false,
            submitted: 0,
            in_flight: VecDeque::new(),
            durable: 0,
            in_flight_bytes: 0,
            held: VecDeque::new(),
            held_outputs: VecDeque::new(),
            sending: Vec::new(),
            unsaved: VecDeque::new(),
            long_tails: Vec::new(),
            scratch: Vec::new(),
            worker,
            replaying: None,
        }
    }

    /// Notified when there is a result.
    pub(crate) fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }

    pub(crate) fn next_result(&self) -> Option<JournalResult> {
        self.results.1.try_recv().ok()
    }

    /// A room has been restored, or is not to be.
    pub(crate) fn restored(&self, room: RoomNumber) {
        self.journal.restored(room);
    }

    pub(crate) fn load(&self, id: &str, load: u64) {
        let (results, notify) = (self.results.0.clone(), self.notify.clone());
        let name = Box::from(id);
        let done = move |stored| {
            // Fails if the worker has ended.
            let _ = results.send(JournalResult::Loaded(name, load, stored));
            notify.notify_one();
        };
        self.journal.load(id, Box::new(done));
    }

    pub(crate) fn load_module(&self, hash: ModuleHash) {
        let (results, notify) = (self.results.0.clone(), self.notify.clone());
        let done = move |module| {
            // Fails if the worker has ended.
            let _ = results.send(JournalResult::Module(hash, module));
            notify.notify_one();
        };
        self.journal.load_module(hash, Box::new(done));
    }

    /// Notes which event is about to be replayed, or none.
    pub(crate) fn replaying(&mut self, event: Option<(RoomNumber, u64)>) {
        if self.replaying != event {
            self.replaying = event;
            self.journal.replaying(self.worker, event);
        }
    }

    /// Logs an event of a room, and behind it by what a client that has connected may come back.
    pub(crate) fn log(
        &mut self,
        key: RoomKey,
        log: &mut RoomLog,
        record: &EventRecord<'_>,
        credentials: &Credentials,
        now: Instant,
    ) {
        self.scratch.clear();
        record.encode(&mut self.scratch);
        credentials.encode(&mut self.scratch);
        self.batch.log(log.number, log.next_event, &self.scratch);
        log.next_event += 1;
        if !log.has_tail {
            log.has_tail = true;
            self.unsaved.push_back((now + SAVE_INTERVAL, key));
        }
        let was_long = log.is_tail_long();
        log.count(record, self.scratch.len());
        if !was_long && log.is_tail_long() {
            self.long_tails.push(key);
        }
    }

    /// Replaces what is stored of a room.
    pub(crate) fn save(&mut self, log: &mut RoomLog, id: &str, mut snapshot: RoomSnapshot) {
        snapshot.events = log.next_event;
        log.snapshot_bytes = snapshot.room.len() + snapshot.clients.len();
        log.tail_cost = 0;
        log.has_tail = false;
        let id = id.into();
        self.batch
            .write(log.number, RoomWrite::Snapshot { id, snapshot });
    }

    /// A room cannot be restored.
    pub(crate) fn quarantine(&mut self, number: RoomNumber, reason: String) {
        self.batch.write(number, RoomWrite::Quarantine(reason));
    }

    /// A room is not to be restored any more, and nothing is to be kept of it.
    pub(crate) fn discard(&mut self, number: RoomNumber) {
        self.batch.write(number, RoomWrite::Discard);
    }

    /// A room has ended.
    pub(crate) fn remove(&mut self, log: &RoomLog) {
        let write = match log.is_unwanted {
            true => RoomWrite::Discard,
            false => RoomWrite::Remove,
        };
        self.batch.write(log.number, write);
    }

    /// The rooms that are to be saved now: their tails are long, or of this age.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<RoomKey> {
        let mut due = core::mem::take(&mut self.long_tails);
        while let Some((_, key)) = self.unsaved.front().filter(|(at, _)| *at <= now) {
            due.push(*key);
            self.unsaved.pop_front();
        }
        due
    }

    /// Tries to save a room again that could not be saved.
    pub(crate) fn retry(&mut self, key: RoomKey) {
        self.long_tails.push(key);
    }

    /// When [`take_due`](Self::take_due) returns a room.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.long_tails.is_empty() {
            true => self.unsaved.front().map(|(at, _)| *at),
            // It is tried again now and then.
            false => Some(now + RETRY_INTERVAL),
        }
    }

    /// The batch that outputs of this turn wait for.
    pub(crate) fn batch_to_hold_for(&self) -> u64 {
        self.submitted + 1
    }

    /// The last batch that has something in it; it may not be submitted yet.
    pub(crate) fn last_batch(&self) -> u64 {
        let is_pending = !self.batch.is_empty() || self.holds;
        self.submitted + u64::from(is_pending)
    }

    /// The last batch that is durable.
    pub(crate) const fn last_durable(&self) -> u64 {
        self.durable
    }

    /// Holds what is queued for a connection from now on until this turn's batch is durable, if that is how the room
    /// of this log sends.
    pub(crate) fn hold(&mut self, log: &RoomLog, key: ConnectionKey, connection: &mut Connection) {
        let batch = self.batch_to_hold_for();
        if log.holds_outputs() && connection.queue.hold(batch) {
            self.holds = true;
            self.held.push_back(Held {
                batch,
                connection: key,
                room: log.number,
                first_batch: log.first_batch,
            });
        }
    }

    /// Connections that hold something of these rooms, of which this batch has written nothing.
    pub(crate) fn held_of(
        &self,
        batch: u64,
        rooms: &HashSet<RoomNumber>,
    ) -> impl Iterator<Item = ConnectionKey> {
        let held = self.held.iter();
        let lost = held.filter(move |it| it.first_batch <= batch && rooms.contains(&it.room));
        lost.map(|it| it.connection)
    }

    /// A durable room has sent a message.
    pub(crate) fn note_sent(&mut self, key: RoomKey, log: &mut RoomLog, bytes: usize) {
        if log.sent.messages == 0 {
            self.sending.push(key);
        }
        for sums in [&mut log.sent, &mut log.held] {
            sums.messages += 1;
            sums.bytes += bytes;
        }
    }

    /// The rooms that have sent something in this turn; their outputs are to be passed to
    /// [`hold_outputs`](Self::hold_outputs).
    pub(crate) fn take_sending(&mut self) -> Vec<RoomKey> {
        core::mem::take(&mut self.sending)
    }

    pub(crate) fn hold_outputs(&mut self, key: RoomKey, log: &mut RoomLog) {
        let sent = core::mem::take(&mut log.sent);
        self.held_outputs.push_back((self.submitted + 1, key, sent));
    }

    /// Passes what has happened in this turn to the journal.
    pub(crate) fn submit(&mut self) {
        if self.batch.is_empty() && !self.holds {
            return;
        }
        self.holds = false;
        self.submitted += 1;
        let (number, batch) = (self.submitted, core::mem::take(&mut self.batch));
        self.in_flight
            .push_back((number, batch.bytes(), time::Instant::now()));
        self.in_flight_bytes += batch.bytes();
        let (results, notify) = (self.results.0.clone(), self.notify.clone());
        let done = move |written: Result<(), JournalError>| {
            let result = match written {
                Ok(()) => JournalResult::Durable(number),
                Err(JournalError::NotOwned { rooms }) => JournalResult::Lost(number, rooms),
                Err(error) => JournalResult::Failed(error),
            };
            // Fails if the worker has ended.
            let _ = results.send(result);
            notify.notify_one();
        };
        self.journal.write(batch, Box::new(done));
    }

    /// Batches up to this one are durable. `took` is called with how long each of them took, and `release`
    /// with the connections that held something for them.
    pub(crate) fn durable(
        &mut self,
        batch: u64,
        mut took: impl FnMut(Duration),
        mut release: impl FnMut(ConnectionKey),
    ) {
        self.durable = self.durable.max(batch);
        while let Some((_, bytes, submitted_at)) = self
            .in_flight
            .front()
            .filter(|(number, ..)| *number <= batch)
        {
            took(submitted_at.elapsed());
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
        while self.held.front().is_some_and(|held| held.batch <= batch) {
            if let Some(held) = self.held.pop_front() {
                release(held.connection);
            }
        }
    }

    /// The next room whose outputs are not held any more, since batches up to this one are durable.
    pub(crate) fn next_released(&mut self, batch: u64) -> Option<(RoomKey, ReleasedOutputs)> {
        let (number, key, outputs) = *self.held_outputs.front()?;
        (number <= batch).then(|| {
            self.held_outputs.pop_front();
            (key, ReleasedOutputs(outputs))
        })
    }

    /// Connections whose queues hold something.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = ConnectionKey> {
        core::mem::take(&mut self.held)
            .into_iter()
            .map(|held| held.connection)
    }

    /// Bytes that are not known to be durable.
    pub(crate) const fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Whether all that was written is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.batch.is_empty() && !self.holds
    }

    /// Whether a room may run: what is not durable is bounded, in all and for each room.
    pub(crate) fn is_ready(&self, log: &RoomLog, max_messages: usize, max_bytes: usize) -> bool {
        self.in_flight_bytes + self.batch.bytes() < MAX_IN_FLIGHT_BYTES
            && log.held.messages <= max_messages
            && log.held.bytes <= max_bytes
    }
}

/// Outputs that are not held any more.
#[derive(Clone, Copy)]
pub(crate) struct ReleasedOutputs(HeldOutputs);

impl RoomLog {
    /// Of a room that has written this many events.
    pub(crate) fn new(number: RoomNumber, durability: Durability, events: u64) -> Self {
        const NONE: HeldOutputs = HeldOutputs {
            messages: 0,
            bytes: 0,
        };
        Self {
            number,
            durability,
            first_batch: 0,
            next_event: events,
            replay_cost: ReplayCost::default(),
            tail_cost: 0,
            has_tail: false,
            fuel_used: u64::MAX,
            snapshot_bytes: 0,
            is_unwanted: false,
            held: NONE,
            sent: NONE,
        }
    }

    /// What it writes is in the next batch or later.
    pub(crate) fn begin_in(&mut self, journaling: &Journaling) {
        self.first_batch = journaling.batch_to_hold_for();
        self.replay_cost = journaling.journal.replay_cost();
    }

    /// Whether a batch may have something of it.
    pub(crate) const fn is_in(&self, batch: u64) -> bool {
        self.first_batch <= batch
    }

    /// Whether what the room sends waits for the journal.
    pub(crate) const fn holds_outputs(&self) -> bool {
        matches!(self.durability, Durability::Durable)
    }

    /// The number of the next event.
    pub(crate) const fn next_event(&self) -> u64 {
        self.next_event
    }

    pub(crate) const fn has_tail(&self) -> bool {
        self.has_tail
    }

    /// Whether the tail has become so long that the room must be saved even if that takes long.
    pub(crate) const fn is_overdue(&self) -> bool {
        self.tail_cost >= 4 * self.max_tail_cost()
    }

    pub(crate) fn release(&mut self, outputs: ReleasedOutputs) {
        self.held.messages = self.held.messages.saturating_sub(outputs.0.messages);
        self.held.bytes = self.held.bytes.saturating_sub(outputs.0.bytes);
    }

    fn count(&mut self, record: &EventRecord<'_>, bytes: usize) {
        const COST_OF_BYTE: u64 = 16;
        // What the event before has used.
        let fuel = record.fuel_used.saturating_sub(self.fuel_used);
        self.fuel_used = record.fuel_used;
        self.tail_cost = self
            .tail_cost
            .saturating_add(self.replay_cost.event + COST_OF_BYTE * bytes as u64 + fuel);
    }

    /// A snapshot is worth its bytes when the events since would take many times as long to replay.
    const fn max_tail_cost(&self) -> u64 {
        const COST_OF_BYTE: u64 = 200;
        let cost = COST_OF_BYTE * self.snapshot_bytes as u64;
        let limit = self.replay_cost.limit;
        if cost > limit { cost } else { limit }
    }

    const fn is_tail_long(&self) -> bool {
        self.tail_cost >= self.max_tail_cost()
    }
}
