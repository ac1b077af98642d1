//! Many rooms, served in turns.

mod clock;
mod timers;
mod transport;

#[cfg(feature = "std")]
pub use self::clock::SystemClock;
pub use self::{
    clock::{Clock, ManualClock},
    transport::{RecordingTransport, SendError, Sent, SentPayload, Transport},
};

use self::timers::Timers;
use crate::{
    error::{EventError, Fault, OpenError},
    event::{ClientId, Event},
    fault_policy::FaultPolicy,
    module::Module,
    room::{Room, RoomOptions, RoomStats},
    time::Instant,
};
use alloc::{borrow::ToOwned, boxed::Box, collections::VecDeque, vec::Vec};
use core::{fmt, mem, time::Duration};
use hashbrown::HashMap;

/// Names a room of a host. A key is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(u64);

impl RoomKey {
    /// The key as a number, for a language or a protocol that has no type for it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The key of this number: what [`to_bits`](Self::to_bits) returned, or, for a transport that
    /// names rooms which no [`Host`] of this process runs, a number of its own.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The bounds of a host. Those of each room are the [`Limits`](crate::Limits) of its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostLimits {
    /// Rooms that are open at a time. Default 10,000.
    pub max_rooms: usize,
}

impl HostLimits {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_rooms: 10_000 }
    }

    setters! { max_rooms: usize }
}

impl Default for HostLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// How much [`Host::poll`] may do before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    fuel: u64,
    until: Instant,
}

impl Budget {
    /// Whatever there is to do.
    pub const UNLIMITED: Self = Self {
        fuel: u64::MAX,
        until: Instant::MAX,
    };

    /// Until this much fuel was used; the last slice may pass it.
    #[must_use]
    pub const fn fuel(fuel: u64) -> Self {
        Self {
            fuel,
            until: Instant::MAX,
        }
    }

    /// Until this time; the last slice may pass it.
    #[must_use]
    pub const fn until(deadline: Instant) -> Self {
        Self {
            fuel: u64::MAX,
            until: deadline,
        }
    }

    /// Until this time at the latest, within the fuel that it has.
    #[must_use]
    pub const fn and_until(self, deadline: Instant) -> Self {
        Self {
            fuel: self.fuel,
            until: deadline,
        }
    }
}

/// A room that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedRoom {
    /// Its key, which now names nothing.
    pub key: RoomKey,
    /// Its id.
    pub id: Box<str>,
    /// Why its guest failed; none if the driver closed it.
    pub fault: Option<Fault>,
    /// Who was connected.
    pub clients: Vec<ClientId>,
    /// Its last figures.
    pub stats: RoomStats,
}

/// Runs rooms: hands them their events and their time, one slice each in turn, and sends what they
/// say.
///
/// A driver puts in what happens ([`open`](Self::open), [`handle_event`](Self::handle_event),
/// [`close`](Self::close)), lets the host work ([`poll`](Self::poll)) and sleeps until the time
/// that this answers, or until something happens. A host starts nothing by itself, so that it fits
/// into any loop.
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
/// host.handle_event(room, Event::Connect(ClientId(1)))?;
/// host.handle_event(room, Event::message(ClientId(1), "hello"))?;
/// let wake_at = host.poll(Budget::UNLIMITED);
///
/// let sent = &host.transport().sent;
/// assert_eq!(sent[0].payload, SentPayload::Text("hello".into()));
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

#[derive(Default)]
struct Queues {
    /// Rooms that have work, in the order of their turns. A room is here once at most.
    ready: VecDeque<RoomKey>,
    /// Rooms whose next message the transport refused.
    blocked: VecDeque<RoomKey>,
    /// Rooms that have ended, with nothing left to send.
    closed: VecDeque<RoomKey>,
}

struct Slot {
    /// Boxed, since the table of rooms moves its slots when it grows.
    room: Box<Room>,
    /// In which of the host's queues it is.
    place: Place,
    /// What the timer queue knows of it.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has nothing to do before its timer.
    Idle,
    Ready,
    Blocked,
    Closed,
}

impl<C: Clock, T: Transport> Host<C, T> {
    /// A host without rooms.
    pub fn new(clock: C, transport: T) -> Self {
        Self::with_limits(clock, transport, HostLimits::default())
    }

    /// A host with limits of its own.
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

    /// Seeds the random generators of the rooms that are opened from now on, each another way.
    /// Without, a host's rooms draw the same numbers each time it is started.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What follows when the guest of a room fails, for the rooms that are opened from now on.
    #[must_use]
    pub const fn with_fault_policy(mut self, on_fault: FaultPolicy) -> Self {
        self.on_fault = on_fault;
        self
    }

    /// Opens a room of this id. Its guest is first called when the host is polled.
    ///
    /// # Errors
    ///
    /// If the id is taken or too long, the host is full, or the module cannot be instantiated.
    pub fn open(&mut self, id: &str, module: &Module) -> Result<RoomKey, OpenError> {
        let options = RoomOptions {
            // Consecutive seeds give unrelated numbers.
            seed: self.seed.wrapping_add(self.next_key),
            unix_time_at_zero: self.clock.unix_time_at_zero().unwrap_or(Duration::ZERO),
            on_fault: self.on_fault,
        };
        self.open_with(id, module, options)
    }

    /// Opens a room with options of its own.
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
        if self.keys.contains_key(id) {
            return Err(OpenError::IdTaken);
        }
        if self.rooms.len() >= self.limits.max_rooms {
            return Err(OpenError::TooManyRooms {
                limit: self.limits.max_rooms,
            });
        }
        let room = Box::new(Room::suspended(module, id, options)?);
        let key = RoomKey(self.next_key);
        self.next_key += 1;
        self.rooms.insert(
            key,
            Slot {
                room,
                place: Place::Ready,
                deadline: None,
            },
        );
        self.keys.insert(id.to_owned().into_boxed_str(), key);
        self.queues.ready.push_back(key);
        log!(debug, "room {id:?} is open as {key}");
        Ok(key)
    }

    /// Gives a room an event, which happens when the host is polled.
    ///
    /// # Errors
    ///
    /// If the room does not take it; then nothing has happened.
    pub fn handle_event(&mut self, key: RoomKey, event: Event<'_>) -> Result<(), EventError> {
        let slot = self.rooms.get_mut(&key).ok_or(EventError::UnknownRoom)?;
        slot.room.enqueue(event)?;
        if slot.place == Place::Idle {
            slot.place = Place::Ready;
            self.queues.ready.push_back(key);
        }
        Ok(())
    }

    /// Closes a room: its guest is dropped without being told. What it had sent still goes out;
    /// then [`poll_closed`](Self::poll_closed) tells of it.
    pub fn close(&mut self, key: RoomKey) {
        if let Some(slot) = self.rooms.get_mut(&key) {
            slot.room.close();
            // A closed room has no deadline to note.
            slot.settle(key, &mut self.transport, &mut self.queues);
        }
    }

    /// Does what there is to do, within a budget: sends what was refused before, fires the timers
    /// that are due, and gives each room that has work a slice in turn.
    ///
    /// Answers when to poll again: at once if work is left (a time that is not after now), when a
    /// timer is due, or never. Poll also when something was put in, and when a transport that
    /// refused has room again.
    pub fn poll(&mut self, budget: Budget) -> Option<Instant> {
        let now = self.clock.now();
        self.retry_blocked();
        self.wake_due(now);
        let mut used = 0_u64;
        // A room that sets its timer while it has its turn is not due before the next poll, since
        // `now` stands still; so this ends when the events that wait do.
        while let Some(key) = self.queues.ready.pop_front() {
            used = used.saturating_add(self.turn(key, now));
            if used >= budget.fuel
                || (budget.until < Instant::MAX && self.clock.now() >= budget.until)
            {
                break;
            }
        }
        self.poll_timeout()
    }

    /// When to poll next; see [`poll`](Self::poll).
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if !self.queues.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let rooms = &self.rooms;
        self.timers
            .first(|deadline, key| holds(rooms, deadline, key))
    }

    /// Whether the transport refused a message that is kept: then poll when it has room again.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.queues.blocked.is_empty()
    }

    /// Takes a room that has ended, by a fault or because it was closed, and whose messages were
    /// all sent.
    pub fn poll_closed(&mut self) -> Option<ClosedRoom> {
        let key = self.queues.closed.pop_front()?;
        let Slot { room, .. } = self.rooms.remove(&key)?;
        self.keys.remove(room.id());
        Some(ClosedRoom {
            key,
            id: room.id().into(),
            fault: room.fault().cloned(),
            clients: room.clients().to_owned(),
            stats: room.stats(),
        })
    }

    /// The key of the room of this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<RoomKey> {
        self.keys.get(id).copied()
    }

    /// A room, to look at.
    #[must_use]
    pub fn room(&self, key: RoomKey) -> Option<&Room> {
        Some(&self.rooms.get(&key)?.room)
    }

    /// Gives memory that a room does not use back to the operating system; see [`Room::trim`].
    #[cfg(feature = "trim")]
    pub fn trim(&mut self, key: RoomKey) -> usize {
        self.rooms.get_mut(&key).map_or(0, |slot| slot.room.trim())
    }

    /// All rooms, in no order.
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

    fn wake_due(&mut self, now: Instant) {
        while let Some((deadline, key)) = self.timers.pop_due(now) {
            let Some(slot) = self.rooms.get_mut(&key) else {
                continue;
            };
            if slot.deadline != Some(deadline) {
                continue;
            }
            slot.deadline = None;
            if slot.place == Place::Idle {
                slot.place = Place::Ready;
                self.queues.ready.push_back(key);
            }
        }
    }

    fn retry_blocked(&mut self) {
        for _ in 0..self.queues.blocked.len() {
            let Some(key) = self.queues.blocked.pop_front() else {
                return;
            };
            // It may have been closed, and have sent its last, while it waited.
            if let Some(slot) = self
                .rooms
                .get_mut(&key)
                .filter(|slot| slot.place == Place::Blocked)
            {
                slot.place = Place::Idle;
                let deadline = slot.settle(key, &mut self.transport, &mut self.queues);
                self.note_deadline(key, deadline);
            }
        }
    }

    /// Gives a room that is first in line its slice; answers the fuel that it used.
    fn turn(&mut self, key: RoomKey, now: Instant) -> u64 {
        // A room that was closed while it waited for its turn has another place now.
        let Some(slot) = self
            .rooms
            .get_mut(&key)
            .filter(|slot| slot.place == Place::Ready)
        else {
            return 0;
        };
        let before = slot.room.fuel_used();
        slot.room.resume(now);
        let used = slot.room.fuel_used() - before;
        slot.place = Place::Idle;
        if let Some(client) = slot.room.take_joined() {
            self.transport.connected(key, client);
        }
        let deadline = slot.settle(key, &mut self.transport, &mut self.queues);
        self.note_deadline(key, deadline);
        used
    }

    /// Tells the timer queue of a deadline that it does not know.
    fn note_deadline(&mut self, key: RoomKey, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            let rooms = &self.rooms;
            self.timers
                .insert(deadline, key, rooms.len(), |deadline, key| {
                    holds(rooms, deadline, key)
                });
        }
    }
}

impl Slot {
    /// Sends what the room says and puts it where it belongs. It must be in no queue; only a room
    /// that was closed from outside may still be in one, which its place then tells. Answers a
    /// deadline that the timer queue does not know.
    fn settle(
        &mut self,
        key: RoomKey,
        transport: &mut impl Transport,
        queues: &mut Queues,
    ) -> Option<Instant> {
        let place = if !flush(&mut self.room, key, transport) {
            Place::Blocked
        } else if self.room.is_closed() {
            Place::Closed
        } else if self.room.has_work(Instant::ZERO) {
            Place::Ready
        } else {
            Place::Idle
        };
        if self.place != place {
            self.place = place;
            match place {
                Place::Ready => queues.ready.push_back(key),
                Place::Blocked => queues.blocked.push_back(key),
                Place::Closed => queues.closed.push_back(key),
                Place::Idle => {}
            }
        }
        let deadline = self.room.poll_timeout();
        let known = mem::replace(&mut self.deadline, deadline);
        deadline.filter(|_| deadline != known)
    }
}

/// Whether an entry of the timer queue is still what its room wants.
fn holds(rooms: &HashMap<RoomKey, Slot>, deadline: Instant, key: RoomKey) -> bool {
    rooms
        .get(&key)
        .is_some_and(|slot| slot.deadline == Some(deadline))
}

/// Hands the outputs of a room to the transport; answers whether it took them all.
fn flush(room: &mut Room, key: RoomKey, transport: &mut impl Transport) -> bool {
    while let Some(output) = room.peek_output() {
        match transport.send(key, output) {
            Ok(()) => {}
            Err(SendError::WouldBlock) => return false,
            #[cfg_attr(not(feature = "log"), expect(unused_variables))]
            Err(SendError::Failed(error)) => {
                log!(warn, "a message of room {:?} is lost: {error}", room.id());
            }
        }
        room.drop_output();
    }
    true
}

impl<C, T> fmt::Debug for Host<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("rooms", &self.rooms.len())
            .finish_non_exhaustive()
    }
}
