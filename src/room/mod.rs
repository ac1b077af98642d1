//! One room: a state machine over a guest, without a clock, a socket or a thread.

mod event_kind;
mod recovery;
#[cfg(feature = "rollback")]
mod rollback;

use self::{
    event_kind::{EventKind, call, payload},
    recovery::Recovery,
};
use crate::{
    abi::Call,
    error::{EventError, Fault, OpenError},
    event::{ClientId, Event, MessagePayload, Output},
    fault_policy::FaultPolicy,
    guest::{Guest, Outbox, Progress},
    module::Module,
    storage::PayloadQueue,
    time::Instant,
};
use alloc::{borrow::ToOwned, boxed::Box, vec::Vec};
use core::{fmt, time::Duration};

/// What a room is opened with, besides its module.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RoomOptions {
    /// Seeds the random generator of the guest. The same seed gives the same numbers; a seed that
    /// nobody can guess gives numbers that nobody can guess. Default 0.
    pub seed: u64,
    /// The wall time at [`Instant::ZERO`], since the Unix epoch, for guests that ask WASI for it.
    /// Default 0: the guest's calendar begins in 1970 with the driver.
    pub unix_time_at_zero: Duration,
    /// What follows when the guest fails. Default [`FaultPolicy::Close`].
    pub on_fault: FaultPolicy,
}

impl RoomOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seed: 0,
            unix_time_at_zero: Duration::ZERO,
            on_fault: FaultPolicy::Close,
        }
    }

    setters! { seed: u64, unix_time_at_zero: Duration, on_fault: FaultPolicy }
}

/// A room: one instance of a module, with its clients.
///
/// What goes in through `handle_*` comes out through `poll_*`; time is an argument. A room does
/// nothing by itself, so whoever holds one keeps to this round:
///
/// 1. hand it what happens ([`handle_event`](Self::handle_event)), and the time when
///    [`poll_timeout`](Self::poll_timeout) has come ([`handle_timeout`](Self::handle_timeout));
/// 2. take and send what it says ([`poll_output`](Self::poll_output)) until there is no more;
/// 3. while it [has work](Self::has_work), let it go on ([`resume`](Self::resume)), and take its
///    outputs again.
///
/// A call that is not called for does nothing. While the guest is in the middle of an event, or
/// its outputs have not been taken, further events wait in the inbox, in order. When the guest
/// fails, the room is closed, unless it has another [`FaultPolicy`]: [`fault`](Self::fault) tells
/// why, and what the guest had sent before can still be taken.
pub struct Room {
    id: Box<str>,
    module: Module,
    options: RoomOptions,
    /// Gone when the room is closed, and while it waits to be restarted.
    guest: Option<Guest>,
    /// What a guest that is gone had sent.
    last_words: Option<Outbox>,
    recovery: Recovery,
    last_fault: Option<Fault>,
    /// Whether that is why the room is closed.
    is_broken: bool,
    /// Who is connected when all that waits has happened; sorted.
    clients: Vec<ClientId>,
    /// While the guest is paused, the first entry is the event that it is in the middle of.
    inbox: PayloadQueue<EventKind>,
    /// A client whose connect the guest was called with, until the host has asked for it.
    joined: Option<ClientId>,
    /// The latest time it was told; time does not go backwards in a room.
    now: Instant,
    /// But for what the running guest has used.
    stats: RoomStats,
}

/// The figures of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStats {
    /// Clients that are connected.
    pub clients: usize,
    /// Events that wait.
    pub waiting_events: usize,
    /// Messages of clients that the room took.
    pub messages_in: u64,
    /// Messages that the room sent; one to many clients counts once.
    pub messages_out: u64,
    /// Fuel that the guest used, also for what was undone and run again.
    pub fuel_used: u64,
    /// Bytes of the guest's linear memory.
    pub memory_bytes: usize,
    /// How often the guest failed.
    pub faults: u64,
}

impl Room {
    /// Makes an instance of the module and begins to initialise it. What that sends is the room's
    /// first output, and it may take more than one slice, as any event.
    ///
    /// # Errors
    ///
    /// If the id is too long, or the module cannot be instantiated within its limits. A guest that
    /// fails when it is initialised makes a room that is closed from the start.
    pub fn new(
        module: &Module,
        id: &str,
        now: Instant,
        options: RoomOptions,
    ) -> Result<Self, OpenError> {
        let mut room = Self::suspended(module, id, options)?;
        room.resume(now);
        Ok(room)
    }

    /// The same, but the guest is first called when the room is resumed.
    pub(crate) fn suspended(
        module: &Module,
        id: &str,
        options: RoomOptions,
    ) -> Result<Self, OpenError> {
        let limits = module.limits();
        if id.len() > limits.max_room_id_bytes {
            return Err(OpenError::IdTooLong {
                bytes: id.len(),
                limit: limits.max_room_id_bytes,
            });
        }
        #[cfg(feature = "rollback")]
        if options.on_fault == FaultPolicy::Rollback && !module.compiled.is_exposed() {
            return Err(OpenError::NoRollback);
        }
        let guest = Guest::new(&module.compiled, options.seed, options.unix_time_at_zero)?;
        let mut inbox = PayloadQueue::new();
        inbox.push(EventKind::Init, MessagePayload::Bytes(&[]));
        Ok(Self {
            id: id.to_owned().into_boxed_str(),
            module: module.clone(),
            options,
            guest: Some(guest),
            last_words: None,
            recovery: Recovery::new(options.on_fault),
            last_fault: None,
            is_broken: false,
            clients: Vec::new(),
            inbox,
            joined: None,
            now: Instant::ZERO,
            stats: RoomStats::default(),
        })
    }

    /// The id that it was opened with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The module that it was made from.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// Who is connected, in the order of their numbers.
    #[must_use]
    pub fn clients(&self) -> &[ClientId] {
        &self.clients
    }

    /// The figures of the room as they are now.
    #[must_use]
    pub fn stats(&self) -> RoomStats {
        RoomStats {
            clients: self.clients.len(),
            waiting_events: self.inbox.len(),
            fuel_used: self.fuel_used(),
            memory_bytes: self.guest.as_ref().map_or(0, Guest::memory_bytes),
            ..self.stats
        }
    }

    /// Fuel that the guest used, also for what was undone and run again.
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.stats.fuel_used + self.guest.as_ref().map_or(0, Guest::fuel_used)
    }

    /// Why the room is closed, if its guest failed.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref().filter(|_| self.is_broken)
    }

    /// Why the guest failed last, if it ever did; the room may have gone on.
    #[must_use]
    pub const fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    /// What follows when the guest fails.
    #[must_use]
    pub const fn on_fault(&self) -> FaultPolicy {
        self.options.on_fault
    }

    /// Whether the room is closed. What it had sent before can still be taken.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.guest.is_none() && self.recovery.restart_at().is_none()
    }

    /// Whether the room waits to start again after a fault; [`poll_timeout`](Self::poll_timeout)
    /// says until when.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.guest.is_none() && self.recovery.restart_at().is_some()
    }

    /// Gives the room an event. It happens at once, or waits for the one before it to end.
    ///
    /// # Errors
    ///
    /// If the room does not take it; then nothing has happened. A guest that fails is no error
    /// here: look at [`fault`](Self::fault).
    pub fn handle_event(&mut self, now: Instant, event: Event<'_>) -> Result<(), EventError> {
        self.check(&event)?;
        if self.is_ready() && self.inbox.is_empty() {
            self.note(&event);
            self.set_now(now);
            self.begin(&call(event));
            return Ok(());
        }
        self.enqueue_checked(event)
    }

    /// Gives the room an event to wait until it is resumed.
    pub(crate) fn enqueue(&mut self, event: Event<'_>) -> Result<(), EventError> {
        self.check(&event)?;
        self.enqueue_checked(event)
    }

    /// Fires the timer if its time has come and the room is not busy; or starts the room again, if
    /// that is what it waits for.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        if self.is_quiet() && self.is_due(self.now) {
            self.fire();
        }
    }

    /// Lets the guest use one more slice: it goes on with the event it was in, or with the timer
    /// if that is due, or else with the next event that waits. Does nothing while there are
    /// outputs to take.
    pub fn resume(&mut self, now: Instant) {
        self.set_now(now);
        if self.recovery.is_replaying() {
            self.replay();
        } else if self.is_paused() {
            self.go_on();
        } else if self.is_quiet() && self.is_due(self.now) {
            self.fire();
        } else if self.is_quiet() {
            self.go_on();
        }
    }

    /// Whether [`resume`](Self::resume) would do something at this time.
    #[must_use]
    pub fn has_work(&self, now: Instant) -> bool {
        self.is_busy()
            || (self.is_quiet()
                && (self.is_due(now) || (self.guest.is_some() && !self.inbox.is_empty())))
    }

    /// When the timer runs off, or the room is started again. None if nothing is set, or may yet be
    /// changed by the event that the guest is in the middle of.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.guest {
            Some(guest) if !self.is_busy() => guest.deadline(),
            Some(_) => None,
            None => self.recovery.restart_at(),
        }
    }

    /// The next message that the room sends, which stays.
    #[must_use]
    pub fn peek_output(&self) -> Option<Output<'_>> {
        let (recipient, payload) = self.outbox()?.front()?;
        Some(Output { recipient, payload })
    }

    /// Takes the next message that the room sends.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if self.outbox()?.is_empty() {
            return None;
        }
        self.stats.messages_out += 1;
        let (recipient, payload) = self.outbox_mut()?.pop()?;
        Some(Output { recipient, payload })
    }

    /// Drops the next message that the room sends, which was sent.
    pub(crate) fn drop_output(&mut self) {
        if let Some(outbox) = self.outbox_mut() {
            outbox.drop_front();
            self.stats.messages_out += 1;
        }
    }

    /// Closes the room: the guest is dropped without being told, and what waits with it. What it
    /// had sent can still be taken.
    pub fn close(&mut self) {
        let is_unfinished = self.is_holding_back();
        self.retire_guest(!is_unfinished);
        self.recovery = Recovery::Close;
        self.inbox.clear();
    }

    /// Gives the memory that the guest has but does not use (whole pages of zeros) back to the
    /// operating system, and answers how many bytes. The guest does not notice; when it comes to
    /// use them, they cost a page fault each.
    ///
    /// Worth its while for rooms that stay: it looks through all of the memory once, in some tens
    /// of microseconds for each MiB.
    #[cfg(feature = "trim")]
    pub fn trim(&mut self) -> usize {
        self.guest.as_mut().map_or(0, Guest::trim)
    }

    /// The client whose connect the guest was called with in the last slice, if it was one.
    pub(crate) fn take_joined(&mut self) -> Option<ClientId> {
        self.joined.take()
    }

    /// Whether the room would take this event.
    fn check(&self, event: &Event<'_>) -> Result<(), EventError> {
        if self.is_closed() {
            return Err(EventError::Closed);
        }
        let limits = self.module.limits();
        let client = event.client();
        let is_connected = self.clients.binary_search(&client).is_ok();
        match event {
            Event::Connect(_) if !client.is_valid() => Err(EventError::InvalidClientId(client)),
            Event::Connect(_) if is_connected => Err(EventError::AlreadyConnected(client)),
            Event::Connect(_) if self.clients.len() >= limits.max_clients => {
                Err(EventError::RoomFull {
                    limit: limits.max_clients,
                })
            }
            Event::Connect(_) => Ok(()),
            _ if !is_connected => Err(EventError::NotConnected(client)),
            Event::Message(_, payload) if payload.len() > limits.max_message_bytes => {
                Err(EventError::MessageTooLong {
                    bytes: payload.len(),
                    limit: limits.max_message_bytes,
                })
            }
            Event::Message(..) | Event::Disconnect(_) => Ok(()),
        }
    }

    fn enqueue_checked(&mut self, event: Event<'_>) -> Result<(), EventError> {
        let call = call(event);
        // There are no more of these than were let in, so they need no bound and are never lost.
        let is_bounded = !matches!(event, Event::Disconnect(_));
        if is_bounded && !self.has_place(event.payload_len()) {
            return Err(EventError::InboxFull);
        }
        self.inbox.push(EventKind::of(&call), payload(&call));
        self.note(&event);
        Ok(())
    }

    /// Whether one more event with so many bytes may wait. The one that the guest is in the middle
    /// of does not wait; while it is running events again, all that is in the inbox does.
    fn has_place(&self, bytes: usize) -> bool {
        let limits = self.module.limits();
        let running = match self.is_paused() && !self.recovery.is_replaying() {
            true => self
                .inbox
                .front()
                .map_or((0, 0), |(_, payload)| (1, payload.len())),
            false => (0, 0),
        };
        let (events, waiting_bytes) = (
            self.inbox.len() - running.0,
            self.inbox.payload_bytes() - running.1,
        );
        events < limits.max_inbox_events
            && waiting_bytes.saturating_add(bytes) <= limits.max_inbox_bytes
    }

    /// Keeps count of an event that was taken.
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Message(..) => self.stats.messages_in += 1,
            Event::Connect(client) => {
                if let Err(place) = self.clients.binary_search(client) {
                    self.clients.insert(place, *client);
                }
            }
            Event::Disconnect(client) => {
                if let Ok(place) = self.clients.binary_search(client) {
                    self.clients.remove(place);
                }
            }
        }
    }

    fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn is_paused(&self) -> bool {
        self.guest.as_ref().is_some_and(Guest::is_paused)
    }

    /// Whether the guest is in the middle of something.
    fn is_busy(&self) -> bool {
        self.is_paused() || self.recovery.is_replaying()
    }

    /// Whether all outputs were taken, so that the guest may be called.
    fn is_quiet(&self) -> bool {
        self.outbox().is_none_or(Outbox::is_empty)
    }

    /// Whether the guest can be called with something new.
    fn is_ready(&self) -> bool {
        self.guest.is_some() && !self.is_busy() && self.is_quiet()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|deadline| deadline <= now)
    }

    /// Whether what the guest has sent may yet come to nothing. What it runs again sends nothing.
    fn is_holding_back(&self) -> bool {
        self.recovery.holds_back() && self.is_paused()
    }

    /// What can be taken.
    fn outbox(&self) -> Option<&Outbox> {
        if self.is_holding_back() {
            return None;
        }
        self.guest
            .as_ref()
            .map(Guest::outbox)
            .or(self.last_words.as_ref())
    }

    /// The same, where [`outbox`](Self::outbox) has shown that there is something.
    fn outbox_mut(&mut self) -> Option<&mut Outbox> {
        self.guest
            .as_mut()
            .map(Guest::outbox_mut)
            .or(self.last_words.as_mut())
    }

    fn fire(&mut self) {
        match &mut self.guest {
            Some(guest) => {
                guest.clear_timer();
                self.begin(&Call::Timer);
            }
            None => self.restart(),
        }
    }

    /// Calls the guest with something that does not wait in the inbox. If it is paused, it does
    /// from now on, before everything else.
    fn begin(&mut self, call: &Call<'_>) {
        let slice = self.module.limits().fuel_per_slice;
        let Some(guest) = &mut self.guest else { return };
        match guest.begin(self.now, call, slice) {
            Ok(Progress::Done) => self.recovery.event_ended(guest, call),
            Ok(Progress::Paused) => self.inbox.push_first(EventKind::of(call), payload(call)),
            Err(fault) => self.fail(EventKind::of(call), fault),
        }
    }

    /// Begins with the first entry of the inbox, or goes on with it.
    fn go_on(&mut self) {
        let slice = self.module.limits().fuel_per_slice;
        let (Some(guest), Some((event, payload))) = (&mut self.guest, self.inbox.front()) else {
            return;
        };
        let call = event.call(&self.id, payload);
        let progress = if guest.is_paused() {
            guest.resume(&call, slice)
        } else {
            if let EventKind::Connect(client) = event {
                self.joined = Some(client);
            }
            guest.begin(self.now, &call, slice)
        };
        match progress {
            Ok(Progress::Done) => {
                self.recovery.event_ended(guest, &call);
                self.inbox.drop_front();
            }
            Ok(Progress::Paused) => {}
            Err(fault) => {
                self.inbox.drop_front();
                self.fail(event, fault);
            }
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("id", &self.id)
            .field("clients", &self.clients)
            .field("last_fault", &self.last_fault)
            .finish_non_exhaustive()
    }
}
