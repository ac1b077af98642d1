//! Many rooms, scheduled in turns.

mod budget;
mod clock;
mod room_key;
#[cfg(feature = "snapshot")]
mod snapshot;
mod timers;
mod transport;

#[cfg(feature = "std")]
pub use self::clock::SystemClock;
pub use self::{
    budget::Budget,
    clock::{Clock, ManualClock},
    room_key::RoomKey,
    transport::{RecordingTransport, SendError, SentMessage, Slice, Transport},
};

use self::timers::Timers;
use crate::{
    error::{EventError, Fault, OpenError, ReplaceError, UnknownRoom},
    event::{ClientId, Event, Output},
    fault_policy::FaultPolicy,
    limits::HostLimits,
    module::Module,
    room::{Room, RoomOptions, RoomStats},
    time::Instant,
};
use alloc::{borrow::ToOwned, boxed::Box, collections::VecDeque, vec::Vec};
use core::{fmt, mem, time::Duration};
use hashbrown::HashMap;

/// A room that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedRoom {
    /// Its key, which names no room any more.
    pub key: RoomKey,
    /// Its id, which is free again.
    pub id: Box<str>,
    /// Why its guest failed; none if the driver closed it.
    pub fault: Option<Fault>,
    /// The clients that were connected.
    pub clients: Vec<ClientId>,
    /// Its final counters and figures.
    pub stats: RoomStats,
}

/// Runs rooms: delivers their events and timers, one slice each in turn, and sends their outputs.
///
/// A driver puts in what happens ([`open`](Self::open), [`enqueue`](Self::enqueue),
/// [`close`](Self::close)), lets the host work ([`poll`](Self::poll)) and sleeps until the time that
/// `poll` returns, or until something happens. A host starts nothing by itself, so that it fits into
/// any loop.
///
/// A host keeps the time of its [`Clock`] and translates it into each room's own
/// ([room time](Instant)).
///
/// ```
/// use stateroom_wasmi_host::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let wasm = include_bytes!("../../examples/rooms/wasm/echo-c.wasm");
/// let module = Module::load(wasm, &Limits::default())?;
/// let clock = ManualClock::new();
/// let mut host = Host::new(&clock, RecordingTransport::new());
///
/// let room = host.open("lobby", &module)?;
/// host.enqueue(room, Event::Connect(ClientId(1)))?;
/// host.enqueue(room, Event::message(ClientId(1), "hello"))?;
/// let wake_at = host.poll(Budget::UNLIMITED);
///
/// let sent = &host.transport().sent;
/// assert_eq!(sent[0].payload, OwnedPayload::Text("hello".into()));
/// assert_eq!(wake_at, None, "an echo sets no timer");
/// # Ok(())
/// # }
/// ```
pub struct Host<C, T> {
    clock: C,
    transport: T,
    limits: HostLimits,
    seed: u64,
    on_fault: FaultPolicy,
    rooms: HashMap<RoomKey, Slot>,
    keys: HashMap<Box<str>, RoomKey>,
    next_key: u64,
    timers: Timers,
    queues: Queues,
}

/// The scheduler's queues. Entries are removed lazily: one counts only while its room's slot is
/// [`Queued`] there.
#[derive(Default)]
struct Queues {
    /// Rooms that have work, in the order of their turns.
    ready: VecDeque<RoomKey>,
    /// Rooms whose next turn makes an instance, which takes long and cannot be divided: no two of them
    /// have their turn before all that were ready in between.
    starting: VecDeque<RoomKey>,
    /// Turns of rooms that are ready before the next of one that starts.
    turns_before_start: usize,
    /// Rooms whose next output the transport refused, or which it lets wait.
    blocked: VecDeque<RoomKey>,
    /// Whether the last poll ended before all of these were tried again.
    has_untried: bool,
    /// Rooms that are closed and have nothing left to send.
    closed: VecDeque<RoomKey>,
}

impl Queues {
    fn push(&mut self, key: RoomKey, queued: Queued) {
        match queued {
            Queued::Nowhere => {}
            Queued::Ready => self.ready.push_back(key),
            Queued::Starting => self.starting.push_back(key),
            Queued::Blocked => self.blocked.push_back(key),
            Queued::Closed => self.closed.push_back(key),
        }
    }

    /// Whether a room has a turn.
    fn have_turn(&self) -> bool {
        !self.ready.is_empty() || !self.starting.is_empty()
    }

    /// Takes the room whose turn it is.
    fn next_turn(&mut self) -> Option<RoomKey> {
        if self.turns_before_start > 0
            && let Some(key) = self.ready.pop_front()
        {
            self.turns_before_start -= 1;
            return Some(key);
        }
        match self.starting.pop_front() {
            Some(key) => {
                self.turns_before_start = self.ready.len();
                Some(key)
            }
            None => self.ready.pop_front(),
        }
    }

    /// Removes the entries of a queue that do not count when they may outnumber those that do, so that
    /// a driver which opens and discards rooms without polling costs no memory.
    fn compact(&mut self, rooms: &HashMap<RoomKey, Slot>) {
        for (queue, queued) in [
            (&mut self.ready, Queued::Ready),
            (&mut self.starting, Queued::Starting),
            (&mut self.blocked, Queued::Blocked),
            (&mut self.closed, Queued::Closed),
        ] {
            if queue.len() > 2 * rooms.len() + 16 {
                queue.retain(|key| rooms.get(key).is_some_and(|slot| slot.queued == queued));
            }
        }
    }
}

struct Slot {
    /// Boxed, since the table of rooms moves its slots when it grows.
    room: Box<Room>,
    /// The host's time when the room was created or loaded.
    opened_at: Instant,
    /// Room time then.
    room_time_when_opened: Instant,
    queued: Queued,
    /// The room's deadline in the timer queue, in the host's time.
    deadline: Option<Instant>,
}

/// Which of the host's queues a room is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    /// None: it has nothing to do before its timer.
    Nowhere,
    Ready,
    Starting,
    Blocked,
    Closed,
}

impl<C: Clock, T: Transport> Host<C, T> {
    /// A host without rooms, with default limits.
    pub fn new(clock: C, transport: T) -> Self {
        Self::with_limits(clock, transport, HostLimits::new())
    }

    /// A host without rooms.
    pub fn with_limits(clock: C, transport: T, limits: HostLimits) -> Self {
        Self {
            clock,
            transport,
            limits,
            seed: 0,
            on_fault: FaultPolicy::Close,
            rooms: HashMap::new(),
            keys: HashMap::new(),
            next_key: 0,
            timers: Timers::default(),
            queues: Queues::default(),
        }
    }

    /// Derives the seeds of rooms that are opened from now on from this one, a different one for
    /// each. The default is 0: a host's rooms then draw the same numbers each time it is started.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets what follows when a guest fails, for rooms that are opened from now on. The default is
    /// [`FaultPolicy::Close`].
    #[must_use]
    pub const fn with_fault_policy(mut self, on_fault: FaultPolicy) -> Self {
        self.on_fault = on_fault;
        self
    }

    /// Opens a room with the host's defaults. Its module is instantiated when the host is polled; if
    /// that fails, the fault policy is applied, as when its guest fails.
    ///
    /// # Errors
    ///
    /// If the id is taken or too long, the host is full, or the module was not loaded for the fault
    /// policy.
    pub fn open(&mut self, id: &str, module: &Module) -> Result<RoomKey, OpenError> {
        self.open_with(id, module, RoomOptions::new())
    }

    /// Opens a room. Options that are not set are the host's.
    ///
    /// # Errors
    ///
    /// As [`Host::open`].
    pub fn open_with(
        &mut self,
        id: &str,
        module: &Module,
        options: RoomOptions,
    ) -> Result<RoomKey, OpenError> {
        self.check_free(id)?;
        let opened_at = self.clock.now();
        let options = self.with_defaults(options, opened_at);
        let room = Box::new(Room::suspended(module, id, options)?);
        let key = self.add(room, opened_at, Instant::ZERO, Queued::Starting);
        log!(debug, "room {:?} is open as {key}", crate::Escaped::new(id));
        Ok(key)
    }

    /// Adds a room whose id is free.
    fn add(
        &mut self,
        room: Box<Room>,
        opened_at: Instant,
        room_time_when_opened: Instant,
        queued: Queued,
    ) -> RoomKey {
        let key = RoomKey::from_bits(self.next_key);
        self.next_key += 1;
        self.keys.insert(room.id().to_owned().into_boxed_str(), key);
        let slot = Slot {
            room,
            opened_at,
            room_time_when_opened,
            queued,
            deadline: None,
        };
        self.rooms.insert(key, slot);
        self.queues.push(key, queued);
        key
    }

    /// # Errors
    ///
    /// If a room of this id cannot be added.
    fn check_free(&self, id: &str) -> Result<(), OpenError> {
        if self.keys.contains_key(id) {
            return Err(OpenError::IdTaken);
        }
        if self.rooms.len() >= self.limits.max_rooms {
            return Err(OpenError::TooManyRooms {
                limit: self.limits.max_rooms,
            });
        }
        Ok(())
    }

    /// Puts an event into a room's inbox. It is delivered when the host is polled.
    ///
    /// # Errors
    ///
    /// If the room refuses the event; then nothing has happened.
    pub fn enqueue(&mut self, key: RoomKey, event: Event<'_>) -> Result<(), EventError> {
        let slot = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        slot.room.enqueue(event)?;
        slot.wake(key, &mut self.queues);
        Ok(())
    }

    /// Closes a room: its guest is dropped without a call. What it had sent is still delivered; then
    /// [`poll_closed`](Self::poll_closed) returns the room.
    ///
    /// # Errors
    ///
    /// If the host has no such room.
    pub fn close(&mut self, key: RoomKey) -> Result<(), UnknownRoom> {
        let slot = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        slot.room.close();
        slot.deadline = None;
        if slot.room.peek_output().is_some() {
            slot.wake(key, &mut self.queues);
        } else if slot.queued != Queued::Closed {
            slot.queued = Queued::Closed;
            self.queues.push(key, Queued::Closed);
        }
        Ok(())
    }

    /// Goes on with a fresh guest of another module in an open room; see [`Room::replace_module`].
    ///
    /// # Errors
    ///
    /// If the host has no such room, or the module was not loaded for the room's fault policy.
    pub fn replace_module(&mut self, key: RoomKey, module: &Module) -> Result<(), ReplaceError> {
        let slot = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        slot.room.replace_module(module)?;
        slot.wake(key, &mut self.queues);
        Ok(())
    }

    /// Removes a room at once, whatever its state, and drops the outputs that the transport has not
    /// taken: for a room whose transport does not recover, or when nobody is left to read them.
    /// [`poll_closed`](Self::poll_closed) does not return it any more.
    ///
    /// # Errors
    ///
    /// If the host has no such room.
    pub fn discard(&mut self, key: RoomKey) -> Result<ClosedRoom, UnknownRoom> {
        let mut slot = self.rooms.remove(&key).ok_or(UnknownRoom)?;
        slot.room.close();
        Ok(self.forget(key, &slot.room))
    }

    /// Does what there is to do, within a budget: retries refused outputs, fires the timers that are
    /// due, and gives each room that has work a slice in turn.
    ///
    /// Returns when to poll again, in the time of the host's clock: at once if work is left (a time
    /// that is not after now), when a timer is due, or never. Poll also when something was put in,
    /// and when a transport that refused has space again.
    pub fn poll(&mut self, budget: Budget) -> Option<Instant> {
        let now = self.clock.now();
        let mut used = self.retry_blocked(budget);
        self.wake_due(now);
        // `now` stands still, so that a timer which a room sets in its turn is not due before the
        // next poll; so this ends when the events that wait do.
        while let Some(key) = self.queues.next_turn() {
            used = used.saturating_add(self.turn(key, now));
            if used >= budget.fuel || self.is_late(budget) {
                break;
            }
        }
        self.poll_timeout()
    }

    fn is_late(&self, budget: Budget) -> bool {
        budget.until < Instant::MAX && self.clock.now() >= budget.until
    }

    /// When to poll next; see [`poll`](Self::poll).
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.queues.have_turn() || self.queues.has_untried {
            return Some(Instant::ZERO);
        }
        let rooms = &self.rooms;
        self.timers
            .first(|deadline, key| is_current(rooms, deadline, key))
    }

    /// Whether the transport refused an output that is kept, or lets a room wait: poll when it has space
    /// again.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.queues.blocked.is_empty()
    }

    /// Whether [`poll_closed`](Self::poll_closed) may return a room.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        !self.queues.closed.is_empty()
    }

    /// Takes a room that has ended, by a fault or because it was closed, and whose outputs were all
    /// sent.
    pub fn poll_closed(&mut self) -> Option<ClosedRoom> {
        loop {
            let key = self.queues.closed.pop_front()?;
            // It may have been discarded meanwhile.
            if let Some(slot) = self.rooms.remove(&key) {
                return Some(self.forget(key, &slot.room));
            }
        }
    }

    /// The key of the room of this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<RoomKey> {
        self.keys.get(id).copied()
    }

    /// A room, to look at. Its times are room time.
    #[must_use]
    pub fn room(&self, key: RoomKey) -> Option<&Room> {
        Some(&self.rooms.get(&key)?.room)
    }

    /// Whether a room has something to do by now: the rest of an event, one that waits, or a timer that is due.
    /// False if the host has no such room.
    pub fn has_work(&self, key: RoomKey) -> bool {
        let now = self.clock.now();
        let slot = self.rooms.get(&key);
        slot.is_some_and(|slot| slot.room.has_work(slot.room_time(now)))
    }

    /// Returns memory that a room does not use to the operating system; see [`Room::trim`].
    ///
    /// # Errors
    ///
    /// If the host has no such room.
    #[cfg(feature = "trim")]
    pub fn trim(&mut self, key: RoomKey) -> Result<usize, UnknownRoom> {
        Ok(self.rooms.get_mut(&key).ok_or(UnknownRoom)?.room.trim())
    }

    /// All rooms, in no particular order.
    pub fn rooms(&self) -> impl ExactSizeIterator<Item = (RoomKey, &Room)> {
        self.rooms.iter().map(|(key, slot)| (*key, &*slot.room))
    }

    /// The clock.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    /// The transport.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport.
    pub const fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The options of a room that is opened at this time.
    fn with_defaults(&self, options: RoomOptions, opened_at: Instant) -> RoomOptions {
        let uptime = opened_at.saturating_duration_since(Instant::ZERO);
        let unix_time = self.clock.unix_time_at_zero().unwrap_or(Duration::ZERO);
        RoomOptions {
            // Consecutive seeds give unrelated numbers.
            seed: options.seed.or(Some(self.seed.wrapping_add(self.next_key))),
            unix_time_at_zero: options
                .unix_time_at_zero
                .or(Some(unix_time.saturating_add(uptime))),
            on_fault: options.on_fault.or(Some(self.on_fault)),
        }
    }

    fn wake_due(&mut self, now: Instant) {
        while let Some((deadline, key)) = self.timers.pop_due(now) {
            let Some(slot) = self.rooms.get_mut(&key) else {
                continue;
            };
            if slot.deadline == Some(deadline) {
                slot.deadline = None;
                slot.wake(key, &mut self.queues);
            }
        }
    }

    /// Tries to send the outputs that the transport refused; returns what that cost in fuel.
    ///
    /// What is refused again does not end it, since a driver polls once when there is space, and not all
    /// rooms need the same space. So only what is sent, and time, end it early.
    fn retry_blocked(&mut self, budget: Budget) -> u64 {
        let (mut used, mut sent) = (0_u64, 0_u64);
        self.queues.has_untried = false;
        for _ in 0..self.queues.blocked.len() {
            let is_spent = sent > 0 && sent >= budget.fuel;
            if is_spent || (used > 0 && self.is_late(budget)) {
                self.queues.has_untried = true;
                break;
            }
            let Some(key) = self.queues.blocked.pop_front() else {
                break;
            };
            // It may have been closed, and have sent its last output, while it was queued.
            let slot = self.rooms.get_mut(&key);
            let Some(slot) = slot.filter(|slot| slot.queued == Queued::Blocked) else {
                continue;
            };
            let (deadline, cost) = slot.reschedule(key, &mut self.transport, &mut self.queues);
            used = used.saturating_add(cost);
            if slot.queued != Queued::Blocked {
                sent = sent.saturating_add(cost);
            }
            self.insert_deadline(key, deadline);
        }
        used
    }

    /// Gives a room a slice, to send outputs that were left or else to run, and returns what that cost
    /// in fuel.
    fn turn(&mut self, key: RoomKey, now: Instant) -> u64 {
        // A room that was closed while it waited for its turn is queued elsewhere now.
        let slot = self.rooms.get_mut(&key);
        let Some(slot) = slot.filter(|slot| slot.has_turn()) else {
            return 0;
        };
        if !self.transport.is_ready(key) {
            slot.queued = Queued::Blocked;
            slot.deadline = None;
            self.queues.push(key, Queued::Blocked);
            return 0;
        }
        let before = slot.cost();
        if slot.room.peek_output().is_none() {
            let (fuel, faults) = (slot.room.fuel_used(), slot.room.faults());
            slot.room.resume(slot.room_time(now));
            let room = &slot.room;
            let has_failed = room.faults() > faults;
            let slice = Slice {
                fuel: room.fuel_used() - fuel,
                is_event_over: !room.is_in_event(),
                fault: room.last_fault().filter(|_| has_failed),
            };
            self.transport.slice_ended(key, slice);
        }
        let used = slot.cost() - before;
        slot.queued = Queued::Nowhere;
        let (deadline, sending) = slot.reschedule(key, &mut self.transport, &mut self.queues);
        self.insert_deadline(key, deadline);
        used.saturating_add(sending)
    }

    /// Inserts a deadline that is not in the timer queue.
    fn insert_deadline(&mut self, key: RoomKey, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            let rooms = &self.rooms;
            self.timers
                .insert(deadline, key, rooms.len(), |deadline, key| {
                    is_current(rooms, deadline, key)
                });
        }
    }

    /// What is left of a room that was taken out of the table.
    fn forget(&mut self, key: RoomKey, room: &Room) -> ClosedRoom {
        self.keys.remove(room.id());
        self.queues.compact(&self.rooms);
        ClosedRoom {
            key,
            id: room.id().into(),
            fault: room.fault().cloned(),
            clients: room.clients().to_owned(),
            stats: room.stats(),
        }
    }
}

impl Slot {
    fn room_time(&self, now: Instant) -> Instant {
        self.room_time_when_opened + now.saturating_duration_since(self.opened_at)
    }

    fn host_time(&self, room_time: Instant) -> Instant {
        self.opened_at + room_time.saturating_duration_since(self.room_time_when_opened)
    }

    /// Queues a room that has something to do now.
    fn wake(&mut self, key: RoomKey, queues: &mut Queues) {
        if self.queued == Queued::Nowhere {
            self.queued = self.turn_queue();
            queues.push(key, self.queued);
        }
    }

    /// Where a room that has something to do waits for its turn.
    fn turn_queue(&self) -> Queued {
        if self.room.is_starting() {
            Queued::Starting
        } else {
            Queued::Ready
        }
    }

    const fn has_turn(&self) -> bool {
        matches!(self.queued, Queued::Ready | Queued::Starting)
    }

    /// What the room has cost, in fuel.
    fn cost(&self) -> u64 {
        self.room.fuel_used().saturating_add(self.room.host_work())
    }

    /// Sends the room's outputs and queues the room, which must be in no queue, where it belongs.
    /// Returns its deadline if the timer queue does not have it, and what sending cost.
    fn reschedule(
        &mut self,
        key: RoomKey,
        transport: &mut impl Transport,
        queues: &mut Queues,
    ) -> (Option<Instant>, u64) {
        let (flushed, cost) = flush(&mut self.room, key, transport);
        self.queued = match flushed {
            Flushed::Blocked => Queued::Blocked,
            Flushed::Partly => Queued::Ready,
            Flushed::All if self.room.is_closed() => Queued::Closed,
            Flushed::All if self.room.is_runnable() => self.turn_queue(),
            Flushed::All => Queued::Nowhere,
        };
        queues.push(key, self.queued);
        // A blocked room fires no timer: one that is due would only have the host polled in vain.
        let room_deadline = match self.queued {
            Queued::Blocked => None,
            _ => self.room.poll_timeout(),
        };
        let deadline = room_deadline.map(|deadline| self.host_time(deadline));
        let inserted = mem::replace(&mut self.deadline, deadline);
        (deadline.filter(|_| deadline != inserted), cost)
    }
}

/// Whether an entry of the timer queue is its room's present deadline.
fn is_current(rooms: &HashMap<RoomKey, Slot>, deadline: Instant, key: RoomKey) -> bool {
    rooms
        .get(&key)
        .is_some_and(|slot| slot.deadline == Some(deadline))
}

/// How many of a room's outputs were sent.
enum Flushed {
    All,
    /// As many as one turn may.
    Partly,
    /// Until the transport refused one.
    Blocked,
}

/// Fuel that handing an output to a transport is worth.
const OUTPUT_COST: u64 = 32;

/// Sends outputs of a room, at most a slice's worth; returns what that cost, too.
fn flush(room: &mut Room, key: RoomKey, transport: &mut impl Transport) -> (Flushed, u64) {
    let slice = room.module().limits().fuel_per_slice;
    let mut cost = 0_u64;
    #[cfg(feature = "snapshot")]
    while let Some(record) = room.poll_record() {
        transport.recorded(key, record);
        cost = cost.saturating_add(transport.take_cost());
    }
    while let Some(output) = room.peek_output() {
        // One is sent in any case.
        if cost > slice {
            return (Flushed::Partly, cost);
        }
        let sent = match output {
            Output::Joined(client) => transport.connected(key, client),
            Output::Left(client) => transport.disconnected(key, client),
            Output::Message(message) => transport.send(key, message),
            // Rooms of a host keep their timers.
            Output::SetTimer(_) | Output::CancelTimer => Ok(()),
        };
        cost = cost.saturating_add(OUTPUT_COST.saturating_add(transport.take_cost()));
        match sent {
            Ok(()) => {}
            Err(SendError::WouldBlock) => return (Flushed::Blocked, cost),
            Err(SendError::Failed(error)) => room.log_lost_output(error),
        }
        room.drop_output();
    }
    (Flushed::All, cost)
}

impl<C, T> fmt::Debug for Host<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("rooms", &self.rooms.len())
            .finish_non_exhaustive()
    }
}
