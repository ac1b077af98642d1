//! One room: a state machine over a guest, without a clock, a socket or a thread.

#[cfg(feature = "snapshot")]
mod encoding;
mod event_kind;
mod inbox;
mod options;
#[cfg_attr(not(feature = "snapshot"), path = "recorder_off.rs")]
mod recorder;
mod recovery;
#[cfg(feature = "snapshot")]
mod replay;
#[cfg(feature = "snapshot")]
mod rewind;
#[cfg_attr(not(feature = "snapshot"), path = "rollback_off.rs")]
mod rollback;
#[cfg(feature = "snapshot")]
mod snapshot;
mod stats;
mod unmanaged;
#[cfg(feature = "snapshot")]
mod upgrade;

#[cfg(feature = "snapshot")]
pub use self::rewind::RewindBuffer;

pub use self::{options::RoomOptions, stats::RoomStats};

#[cfg(feature = "snapshot")]
use self::upgrade::Upgrade;
use self::{event_kind::EventKind, inbox::Inbox, recorder::Recorder, recovery::Recovery};
#[cfg(feature = "snapshot")]
use crate::guest::Checkpoint;
use crate::{
    error::{EventError, Fault, OpenError, ReplaceError},
    event::{ClientId, Event, EventHeader, MessagePayload, Output, OutputHeader},
    fault_policy::FaultPolicy,
    guest::{Guest, LineKind, LogPermit, Outbox, Progress, RoomLog},
    module::Module,
    time::Instant,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

/// A room: one instance of a module, with its clients.
///
/// What goes in through `handle_*` comes out through `poll_*`. Time is an argument: room time, which
/// starts at [`Instant::ZERO`] when the room is created. A room does nothing by itself; drive it with
/// this loop:
///
/// 1. give it what happens ([`handle_event`](Self::handle_event)), and the time when
///    [`poll_timeout`](Self::poll_timeout) has come ([`handle_timeout`](Self::handle_timeout));
/// 2. take its outputs ([`poll_output`](Self::poll_output)) until there are none, and send them;
/// 3. while it [has work](Self::has_work), [`resume`](Self::resume) it, and take its outputs again.
///
/// Spurious calls are no-ops. While the guest is in the middle of an event, or its outputs have not
/// been taken, further events wait in the inbox, in order. When the guest fails, the room closes,
/// unless it has another [`FaultPolicy`]; [`fault`](Self::fault) returns the reason, and what the
/// guest had sent before can still be taken.
pub struct Room {
    /// Shared with the guest, whose log lines name it.
    id: Arc<str>,
    module: Module,
    seed: u64,
    unix_time_at_zero: Duration,
    on_fault: FaultPolicy,
    /// Whether it keeps its clients and its timer, or its driver does.
    is_managed: bool,
    state: State,
    recovery: Recovery,
    recorder: Recorder,
    /// What the room may log, while there is no guest that has it.
    log: RoomLog,
    /// The last fault that the room survived.
    last_fault: Option<Fault>,
    /// The clients that will be connected when the inbox is empty; sorted.
    clients: Vec<ClientId>,
    inbox: Inbox,
    /// Whether the timer fired last, before an event that waited. That has its turn before the timer
    /// fires again, or a timer that is always due would keep all events waiting.
    is_turn_of_inbox: bool,
    /// The latest time that was passed in; time does not run backwards in a room.
    now: Instant,
    /// Counters, without what the present guest has used.
    stats: RoomStats,
    /// See [`host_work`](Self::host_work); without what its history counts.
    host_work: u64,
}

/// Whether a room has a guest.
enum State {
    Live {
        /// Boxed, since a room is moved while it is opened, which is when a microcontroller needs
        /// its stack most.
        guest: Box<Guest>,
        phase: Phase,
    },
    /// It has no guest. A fresh one is instantiated at this time, when the room is resumed.
    Starting {
        at: Instant,
        /// The event that is undone in the fresh guest; none if that begins anew.
        undone: Option<EventKind>,
        /// What the last guest had sent.
        outbox: Outbox,
    },
    /// It has no guest, but the state of one, and no outputs. The next event or the timer wakes it.
    #[cfg(feature = "snapshot")]
    Asleep(Box<Checkpoint>),
    /// Its state passes to a guest of another module. It has no outputs.
    #[cfg(feature = "snapshot")]
    Upgrading(Box<Upgrade>),
    Closed {
        /// Why the guest failed; none if the driver closed the room.
        fault: Option<Fault>,
        /// What the guest had sent.
        outbox: Outbox,
    },
}

/// What a guest is doing.
#[derive(Clone, Copy)]
enum Phase {
    /// Nothing: the event boundary.
    Idle,
    /// It ran out of its slice in the middle of the event that is pinned in the inbox.
    InEvent,
    /// It replays the events before one that is undone.
    Replaying { undone: EventKind },
}

impl Room {
    /// Instantiates the module and starts to initialise the guest. What that sends is the room's
    /// first output; like any event it may take more than one slice.
    ///
    /// # Errors
    ///
    /// If the id is too long, or the module was not loaded for the fault policy. If the module cannot
    /// be instantiated, or its guest fails while it is initialised, the fault policy is applied: by
    /// default the room is closed from the start.
    pub fn new(module: &Module, id: &str, options: RoomOptions) -> Result<Self, OpenError> {
        let mut room = Self::suspended(module, id, options)?;
        room.resume(Instant::ZERO);
        Ok(room)
    }

    /// Like [`new`](Self::new), but the module is instantiated when the room is resumed.
    pub(crate) fn suspended(
        module: &Module,
        id: &str,
        options: RoomOptions,
    ) -> Result<Self, OpenError> {
        let max_bytes = module.limits().max_room_id_bytes;
        if id.len() > max_bytes {
            return Err(OpenError::IdTooLong {
                bytes: id.len(),
                limit: max_bytes,
            });
        }
        let on_fault = options.on_fault.unwrap_or_default();
        let recovery = Recovery::new(on_fault, module)?;
        let seed = options.seed.unwrap_or(0);
        let unix_time_at_zero = options.unix_time_at_zero.unwrap_or(Duration::ZERO);
        Ok(Self {
            id: id.into(),
            module: module.clone(),
            seed,
            unix_time_at_zero,
            on_fault,
            is_managed: true,
            state: State::Starting {
                at: Instant::ZERO,
                undone: None,
                outbox: Outbox::new(),
            },
            recovery,
            recorder: Recorder::off(),
            log: RoomLog::new(),
            last_fault: None,
            clients: Vec::new(),
            inbox: Inbox::default(),
            is_turn_of_inbox: false,
            now: Instant::ZERO,
            stats: RoomStats::default(),
            host_work: 0,
        })
    }

    /// The id that it was opened with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The module that it is an instance of.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// The latest room time that was passed in.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The connected clients, in the order of their ids.
    #[must_use]
    pub fn clients(&self) -> &[ClientId] {
        &self.clients
    }

    /// The present counters and figures.
    #[must_use]
    pub fn stats(&self) -> RoomStats {
        RoomStats {
            clients: self.clients.len(),
            waiting_events: self.inbox.len(),
            fuel_used: self.fuel_used(),
            instance_bytes: match &self.state {
                State::Live { .. } => self.module.compiled.instance_bytes,
                _ => 0,
            },
            memory_bytes: match &self.state {
                State::Live { guest, .. } => guest.memory_bytes(),
                State::Closed { .. } => self.stats.memory_bytes,
                _ => 0,
            },
            hibernated_bytes: match &self.state {
                #[cfg(feature = "snapshot")]
                State::Asleep(checkpoint) => checkpoint.heap_bytes(),
                _ => 0,
            },
            ..self.stats
        }
    }

    /// Events that were accepted: those that are over ([`RoomStats::events_handled`]), the one that the
    /// guest is in the middle of, and those that wait.
    #[must_use]
    pub fn events_accepted(&self) -> u64 {
        let is_outside = |event: &EventKind| matches!(event, EventKind::Outside(_));
        let left = self.inbox.kinds().filter(is_outside).count();
        self.stats.events_handled + left as u64
    }

    /// Fuel that the guest used, including what was undone and replayed.
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        let guest = match &self.state {
            State::Live { guest, .. } => guest.fuel_used(),
            _ => 0,
        };
        self.stats.fuel_used + guest
    }

    /// How often the guest failed.
    pub(crate) const fn faults(&self) -> u64 {
        self.stats.faults
    }

    /// Why the room is closed, if its guest failed.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Closed { fault, .. } => fault.as_ref(),
            _ => None,
        }
    }

    /// The latest fault, if there was one; the room may have survived it.
    #[must_use]
    pub const fn last_fault(&self) -> Option<&Fault> {
        match self.fault() {
            None => self.last_fault.as_ref(),
            fault => fault,
        }
    }

    /// What follows when the guest fails.
    #[must_use]
    pub const fn on_fault(&self) -> FaultPolicy {
        self.on_fault
    }

    /// Whether the room is closed. What it had sent before can still be taken.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether the room waits to start a fresh guest after a fault;
    /// [`poll_timeout`](Self::poll_timeout) returns when.
    #[must_use]
    pub const fn is_restarting(&self) -> bool {
        matches!(self.state, State::Starting { .. }) && self.stats.faults > 0
    }

    /// Whether the room has no guest yet: the next turn of the room makes one.
    pub(crate) const fn is_starting(&self) -> bool {
        match &self.state {
            State::Starting { .. } => true,
            #[cfg(feature = "snapshot")]
            State::Asleep(_) => true,
            #[cfg(feature = "snapshot")]
            State::Upgrading(upgrade) => upgrade.needs_guest(),
            _ => false,
        }
    }

    /// What the host did for this room besides running its guest: instances that it made, and
    /// checkpoints that it took and restored; in units of fuel that take as long.
    #[must_use]
    pub const fn host_work(&self) -> u64 {
        self.host_work.saturating_add(self.recovery.host_work())
    }

    /// Whether the guest's allocator returned null for a payload. The host then grows the guest's
    /// memory and puts payloads there; but it is a mistake, and other hosts do not do so. (At some
    /// levels of optimisation the published SDKs' allocators always return null.)
    #[must_use]
    pub fn has_null_allocator(&self) -> bool {
        matches!(&self.state, State::Live { guest, .. } if guest.has_null_allocator())
    }

    /// Gives the room an event. It is delivered at once, or waits for the one before it to end.
    ///
    /// # Errors
    ///
    /// If the room refuses the event; then nothing has happened. A guest that fails is not an error
    /// here: see [`fault`](Self::fault).
    pub fn handle_event(&mut self, now: Instant, event: Event<'_>) -> Result<(), EventError> {
        self.check(&event)?;
        // As if it had never slept: the event does not wait, and a timer that is due does not precede it.
        #[cfg(feature = "snapshot")]
        if self.inbox.is_empty() {
            self.wake();
        }
        if self.is_ready() {
            self.count_accepted(&event);
            self.advance(now);
            self.begin(EventKind::Outside(event.header()), event.payload());
            return Ok(());
        }
        self.enqueue_checked(event)
    }

    /// Puts an event into the inbox, where it waits for the next call of [`resume`](Self::resume).
    pub(crate) fn enqueue(&mut self, event: Event<'_>) -> Result<(), EventError> {
        self.check(&event)?;
        self.enqueue_checked(event)
    }

    /// Fires the timer if it is due and the room is not busy, unless an event that waited when it
    /// fired last has its turn; or starts a fresh guest if that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.are_outputs_taken() && self.is_turn_of_timer() {
            self.fire();
        }
    }

    /// Lets the guest use one more slice: it continues its event, or handles the timer if that is
    /// due, or else the next event that waits. A timer that is due again at once lets one event pass.
    /// A no-op while there are outputs to take, unless the guest is in the middle of an event.
    pub fn resume(&mut self, now: Instant) {
        self.advance(now);
        match self.state {
            State::Live {
                phase: Phase::InEvent,
                ..
            } => self.continue_event(),
            State::Live {
                phase: Phase::Replaying { .. },
                ..
            } => self.continue_rollback(),
            #[cfg(feature = "snapshot")]
            State::Upgrading(_) => self.continue_upgrade(),
            _ if !self.are_outputs_taken() => {}
            _ if self.is_turn_of_timer() => self.fire(),
            State::Live {
                phase: Phase::Idle, ..
            } => self.begin_next(),
            #[cfg(feature = "snapshot")]
            State::Asleep(_) if !self.inbox.is_empty() => self.wake_and(Self::begin_next),
            _ => {}
        }
    }

    /// Whether [`resume`](Self::resume) would do something at this time.
    #[must_use]
    pub fn has_work(&self, now: Instant) -> bool {
        self.is_runnable() || (self.are_outputs_taken() && self.is_timer_due(now))
    }

    /// Whether [`resume`](Self::resume) would do something whatever the time is: the guest is in the
    /// middle of an event, or an event waits or a guest is to be started and the outputs were taken.
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        match &self.state {
            State::Live {
                phase: Phase::Idle, ..
            } => !self.inbox.is_empty() && self.are_outputs_taken(),
            State::Live { .. } => true,
            State::Starting { at, .. } => *at <= self.now && self.are_outputs_taken(),
            #[cfg(feature = "snapshot")]
            State::Asleep(_) => !self.inbox.is_empty(),
            #[cfg(feature = "snapshot")]
            State::Upgrading(upgrade) => !upgrade.has_ended(),
            State::Closed { .. } => false,
        }
    }

    /// When the timer fires, or a fresh guest is started, in room time. None if neither is set, or
    /// may yet be changed by the event that the guest is in the middle of.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Live {
                guest,
                phase: Phase::Idle,
            } => guest.deadline(),
            State::Starting { at, .. } => Some(*at),
            #[cfg(feature = "snapshot")]
            State::Asleep(checkpoint) => checkpoint.deadline,
            #[cfg(feature = "snapshot")]
            State::Upgrading(_) => None,
            State::Live { .. } | State::Closed { .. } => None,
        }
    }

    /// The next output, which stays.
    #[must_use]
    pub fn peek_output(&self) -> Option<Output<'_>> {
        let (header, payload) = self.outbox()?.front()?;
        Some(header.with_payload(payload))
    }

    /// Takes the next output.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        let holds_outputs = self.recovery.holds_outputs();
        let (header, payload) = self.state.outbox_mut(holds_outputs)?.pop()?;
        self.stats.messages_out += u64::from(header.is_message());
        Some(header.with_payload(payload))
    }

    /// Drops the output that [`peek_output`](Self::peek_output) returned.
    pub(crate) fn drop_output(&mut self) {
        let holds_outputs = self.recovery.holds_outputs();
        let outbox = self.state.outbox_mut(holds_outputs);
        if let Some(header) = outbox.and_then(Outbox::drop_front) {
            self.stats.messages_out += u64::from(header.is_message());
        }
    }

    /// Closes the room: the guest is dropped without a call, and the events that wait with it. What
    /// it had sent can still be taken.
    pub fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        let is_held = self.outbox().is_none();
        let outbox = self.retire_guest();
        self.close_with(None, if is_held { Outbox::new() } else { outbox });
    }

    /// Goes on with a fresh guest of another module, or of the same: what to do with open rooms when a
    /// module has changed. It is made when the room is resumed, is initialised, and then handles a connect
    /// for each client that is connected, before the events that wait. The state of the present guest is
    /// lost, its timer does not fire any more, and an event that it is in the middle of is over. A room that
    /// is closed stays so.
    ///
    /// # Errors
    ///
    /// If the module was not loaded for the fault policy; then nothing has happened.
    pub fn replace_module(&mut self, module: &Module) -> Result<(), ReplaceError> {
        let recovery = Recovery::new(self.on_fault, module);
        let recovery = recovery.map_err(|_| ReplaceError::NoRollback)?;
        if self.is_closed() {
            return Ok(());
        }
        let is_held = self.outbox().is_none();
        let mut outbox = self.retire_guest();
        if is_held {
            outbox = Outbox::new();
        }
        if let Some((event, _)) = self.inbox.running() {
            if is_held {
                // That a client joined or left is not undone.
                outbox.announce(event);
            }
            self.inbox.drop_first();
            self.stats.count_handled(event);
        }
        if !self.is_managed {
            // It was set by the guest that is no more.
            outbox.push(OutputHeader::CancelTimer, MessagePayload::EMPTY);
        }
        self.module = module.clone();
        self.recovery = recovery;
        self.state = State::Starting {
            at: self.now,
            undone: None,
            outbox,
        };
        Ok(())
    }

    /// Returns the memory that the guest has but does not use (whole pages of zeros) to the
    /// operating system, and how many bytes that is. The guest does not notice; using them later
    /// costs a page fault each.
    ///
    /// For rooms that stay: it reads all of the memory once, in some tens of microseconds per MiB.
    #[cfg(feature = "trim")]
    pub fn trim(&mut self) -> usize {
        match &mut self.state {
            State::Live { guest, .. } => guest.trim(),
            _ => 0,
        }
    }

    /// Logs that a transport has lost an output.
    #[cfg_attr(not(feature = "log"), expect(unused_variables))]
    pub(crate) fn log_lost_output(&mut self, error: impl fmt::Display) {
        if let Some(permit) = self.permit_line(LineKind::LostOutput) {
            log!(
                warn,
                "an output of room {:?} is lost: {}{permit}",
                crate::Escaped::new(&self.id),
                crate::Escaped::new(error)
            );
        }
    }

    /// Whether to log a line that the room can cause at will.
    fn permit_line(&mut self, kind: LineKind) -> Option<LogPermit> {
        let log = match &mut self.state {
            State::Live { guest, .. } => guest.log_mut(),
            _ => &mut self.log,
        };
        log.permit(kind, &self.id, self.module.limits(), self.now)
    }

    /// Whether an event need not wait.
    fn is_ready(&self) -> bool {
        let State::Live {
            guest,
            phase: Phase::Idle,
        } = &self.state
        else {
            return false;
        };
        guest.outbox().is_empty() && self.inbox.is_empty()
    }

    /// Whether the room would accept this event.
    fn check(&self, event: &Event<'_>) -> Result<(), EventError> {
        if self.is_closed() {
            return Err(EventError::Closed);
        }
        let limits = self.module.limits();
        let client = event.client();
        let is_connected = self.is_connected(client);
        match event {
            Event::Connect(_) if !self.is_managed => Ok(()),
            Event::Connect(_) if !client.is_valid() => Err(EventError::InvalidClientId(client)),
            Event::Connect(_) if is_connected => Err(EventError::AlreadyConnected(client)),
            Event::Connect(_) if self.clients.len() >= limits.max_clients => {
                Err(EventError::RoomFull {
                    limit: limits.max_clients,
                })
            }
            Event::Connect(_) => Ok(()),
            _ if self.is_managed && !is_connected => Err(EventError::NotConnected(client)),
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
        // There are no more disconnects of connected clients than accepted connects: they need no
        // bound and are never refused.
        let is_leaving = matches!(event, Event::Disconnect(client) if self.is_connected(client));
        if !is_leaving && !self.inbox.fits(event.payload_len(), self.module.limits()) {
            return Err(EventError::InboxFull);
        }
        self.inbox
            .push(EventKind::Outside(event.header()), event.payload());
        self.count_accepted(&event);
        Ok(())
    }

    #[inline]
    fn count_accepted(&mut self, event: &Event<'_>) {
        match event {
            Event::Message(..) => self.stats.messages_in += 1,
            Event::Connect(client) => self.count_client(*client, true),
            Event::Disconnect(client) => self.count_client(*client, false),
        }
    }

    /// Adds a client or removes it, unless that is so already.
    #[inline(never)]
    fn count_client(&mut self, client: ClientId, connects: bool) {
        match (self.clients.binary_search(&client), connects) {
            (Ok(at), false) => {
                self.clients.remove(at);
            }
            (Err(at), true) => self.clients.insert(at, client),
            _ => {}
        }
    }

    fn is_connected(&self, client: ClientId) -> bool {
        self.clients.binary_search(&client).is_ok()
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn outbox(&self) -> Option<&Outbox> {
        self.state.outbox(self.recovery.holds_outputs())
    }

    /// Whether all outputs that can be taken were taken.
    fn are_outputs_taken(&self) -> bool {
        self.outbox().is_none_or(Outbox::is_empty)
    }

    fn is_timer_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|deadline| deadline <= now)
    }

    fn is_turn_of_timer(&self) -> bool {
        // A start comes before the events that wait, which need its guest.
        let has_precedence = self.is_starting() || !self.is_turn_of_inbox;
        self.is_timer_due(self.now) && (has_precedence || self.inbox.is_empty())
    }

    fn fire(&mut self) {
        match &mut self.state {
            State::Live { .. } => {
                self.is_turn_of_inbox = !self.inbox.is_empty();
                self.begin(EventKind::Timer, MessagePayload::EMPTY);
            }
            State::Starting { undone, .. } => {
                let undone = *undone;
                self.start(undone);
            }
            #[cfg(feature = "snapshot")]
            State::Asleep(_) => self.wake_and(Self::fire),
            // Its timer waits.
            #[cfg(feature = "snapshot")]
            State::Upgrading(_) => {}
            State::Closed { .. } => {}
        }
    }

    /// Delivers an event that did not wait to an idle guest. If its slice ends, the event is pinned
    /// before those that wait.
    fn begin(&mut self, event: EventKind, payload: MessagePayload<'_>) {
        let slice = self.module.limits().fuel_per_slice;
        let State::Live { guest, phase } = &mut self.state else {
            return;
        };
        self.recorder.record(event, payload, self.now, || {
            self.stats.fuel_used + guest.fuel_used()
        });
        // Most events are messages, which announce nothing.
        if !matches!(event, EventKind::Outside(EventHeader::Message(_))) {
            guest.outbox_mut().announce(event);
        }
        match guest.begin(self.now, &event.call(&self.id, payload), slice) {
            Ok(Progress::Done) => {
                self.recovery.event_succeeded(guest, event, payload);
                self.stats.count_handled(event);
            }
            Ok(Progress::Paused) => {
                *phase = Phase::InEvent;
                self.inbox.push_pinned(event, payload);
            }
            Err(fault) => {
                self.stats.count_handled(event);
                self.fail(event, fault);
            }
        }
    }

    /// Delivers the event that waits longest to an idle guest.
    fn begin_next(&mut self) {
        let slice = self.module.limits().fuel_per_slice;
        let State::Live { guest, phase } = &mut self.state else {
            return;
        };
        let Some((event, payload)) = self.inbox.next() else {
            return;
        };
        self.is_turn_of_inbox = false;
        // It was recorded before its guest was made.
        if !matches!(event, EventKind::Init) {
            self.recorder.record(event, payload, self.now, || {
                self.stats.fuel_used + guest.fuel_used()
            });
        }
        guest.outbox_mut().announce(event);
        match guest.begin(self.now, &event.call(&self.id, payload), slice) {
            Ok(Progress::Done) => {
                self.recovery.event_succeeded(guest, event, payload);
                self.inbox.drop_first();
                self.stats.count_handled(event);
            }
            Ok(Progress::Paused) => {
                *phase = Phase::InEvent;
                self.inbox.pin_next();
            }
            Err(fault) => {
                self.inbox.drop_first();
                self.stats.count_handled(event);
                self.fail(event, fault);
            }
        }
    }

    /// Continues the event that is pinned in the inbox.
    fn continue_event(&mut self) {
        let slice = self.module.limits().fuel_per_slice;
        let State::Live { guest, phase } = &mut self.state else {
            return;
        };
        let Some((event, payload)) = self.inbox.running() else {
            return;
        };
        match guest.resume(&event.call(&self.id, payload), slice) {
            Ok(Progress::Done) => {
                *phase = Phase::Idle;
                self.recovery.event_succeeded(guest, event, payload);
                self.inbox.drop_first();
                self.stats.count_handled(event);
            }
            Ok(Progress::Paused) => {}
            Err(fault) => {
                self.inbox.drop_first();
                self.stats.count_handled(event);
                self.fail(event, fault);
            }
        }
    }

    /// Closes the room, which has no guest any more.
    fn close_with(&mut self, fault: Option<Fault>, outbox: Outbox) {
        self.inbox
            .kinds()
            .for_each(|event| self.stats.count_handled(event));
        self.inbox.clear();
        self.log.end();
        self.state = State::Closed { fault, outbox };
    }
}

impl State {
    /// The outputs that can be taken. If the policy holds them, there are none until an event ends.
    fn outbox(&self, holds_outputs: bool) -> Option<&Outbox> {
        match self {
            Self::Live { guest, phase } => {
                let is_held = holds_outputs && !matches!(phase, Phase::Idle);
                Some(guest.outbox()).filter(|_| !is_held)
            }
            Self::Starting { outbox, .. } | Self::Closed { outbox, .. } => Some(outbox),
            #[cfg(feature = "snapshot")]
            Self::Asleep(_) | Self::Upgrading(_) => None,
        }
    }

    fn outbox_mut(&mut self, holds_outputs: bool) -> Option<&mut Outbox> {
        match self {
            Self::Live { guest, phase } => {
                let is_held = holds_outputs && !matches!(phase, Phase::Idle);
                Some(guest.outbox_mut()).filter(|_| !is_held)
            }
            Self::Starting { outbox, .. } | Self::Closed { outbox, .. } => Some(outbox),
            #[cfg(feature = "snapshot")]
            Self::Asleep(_) | Self::Upgrading(_) => None,
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("id", &self.id)
            .field("clients", &self.clients)
            .field("last_fault", &self.last_fault())
            .finish_non_exhaustive()
    }
}
