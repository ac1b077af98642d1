//! Model of a room: what it must send, and in which state it must be.

use super::{
    backoff::{Failure, FaultStreak, StreakChange},
    coverage::{CoverPoint, Coverage},
    faulty_transport::SentOutput,
    guest::{MAX_CLIENTS, MAX_PAGES, MAX_WAITING, PAGE, Tag},
    reference_guest::{ExpectedOutput, GuestEvent, ReferenceGuest},
    rng_oracle::RngOracle,
};
use stateroom_wasmi_host::{
    ClientId, ClosedRoom, Event, EventError, Fault, FaultPolicy, Instant, MessageRecipient, Module,
    Room, RoomOptions,
};
use std::collections::{BTreeSet, VecDeque};

pub struct Model {
    /// Host time at which the room was opened. All other times here are room time.
    opened_at: Instant,
    pub id: String,
    pub closed_by_driver: bool,
    pub coverage: Coverage,
    /// The time of the last observed event.
    pub now: Instant,
    guest: ReferenceGuest,
    /// When the guest was started.
    started: Instant,
    is_first_guest: bool,
    /// What a new guest receives first: `Init` and the connects of those present.
    startup_events: VecDeque<GuestEvent>,
    /// Events that the room accepted and the guest has not begun.
    accepted: VecDeque<GuestEvent>,
    /// Whether the timer fired last: then one event passes even if it is due again.
    timer_was_last: bool,
    /// The client of the last `Transport::connected`, until the guest begins with its connect.
    announced: Option<u32>,
    /// The outputs still to come from the current event.
    pending_outputs: VecDeque<ExpectedOutput>,
    /// The fault in which the current event ends.
    pending_fault: Option<Fault>,
    /// Observed faults whose event has not been observed yet.
    observed_faults: VecDeque<Failure>,
    /// The failure of the guest while the room has none.
    failure: Option<Failure>,
    faults_at_last_check: u64,
    faults: u64,
    /// One of these is the last: the time of a rolled back event cannot be observed.
    last_faults: Vec<Fault>,
    recovery: Recovery,
    /// The clients after all events that the guest has begun.
    guest_clients: BTreeSet<u32>,
    /// The clients after all events that the room accepted.
    clients: BTreeSet<u32>,
    messages_in: u64,
    messages_out: u64,
    rng_oracle: RngOracle,
    /// All random numbers drawn so far.
    drawn: BTreeSet<[u8; 8]>,
}

/// What follows a fault.
enum Recovery {
    Close,
    Restart(FaultStreak),
    Continue,
    #[cfg(feature = "snapshot")]
    Rollback,
}

impl Model {
    pub fn new(id: &str, module: &Module, options: RoomOptions, opened_at: Instant) -> Self {
        Self {
            opened_at,
            id: id.to_owned(),
            closed_by_driver: false,
            coverage: Coverage::default(),
            now: Instant::ZERO,
            guest: ReferenceGuest::new(),
            started: Instant::ZERO,
            is_first_guest: true,
            startup_events: VecDeque::from([GuestEvent::Init {
                id_bytes: id.len() as u32,
            }]),
            accepted: VecDeque::new(),
            timer_was_last: false,
            announced: None,
            pending_outputs: VecDeque::new(),
            pending_fault: None,
            observed_faults: VecDeque::new(),
            failure: None,
            faults_at_last_check: 0,
            faults: 0,
            last_faults: Vec::new(),
            recovery: match options.on_fault.unwrap_or_default() {
                FaultPolicy::Restart(backoff) => Recovery::Restart(FaultStreak::new(backoff)),
                FaultPolicy::Continue => Recovery::Continue,
                #[cfg(feature = "snapshot")]
                FaultPolicy::Rollback => Recovery::Rollback,
                _ => Recovery::Close,
            },
            guest_clients: BTreeSet::new(),
            clients: BTreeSet::new(),
            messages_in: 0,
            messages_out: 0,
            rng_oracle: RngOracle::new(module.clone(), options.seed.unwrap_or(0)),
            drawn: BTreeSet::new(),
        }
    }

    pub fn room_time(&self, host_time: Instant) -> Instant {
        Instant::ZERO + host_time.saturating_duration_since(self.opened_at)
    }

    pub fn host_time(&self, room_time: Instant) -> Instant {
        self.opened_at + room_time.saturating_duration_since(Instant::ZERO)
    }

    /// What `handle_event` must return, except for a full inbox.
    pub fn expected(&self, event: &Event<'_>) -> Result<(), EventError> {
        let client = event.client();
        let is_connected = self.clients.contains(&client.0);
        match event {
            Event::Connect(_) if is_connected => Err(EventError::AlreadyConnected(client)),
            Event::Connect(_) if self.clients.len() == MAX_CLIENTS => {
                Err(EventError::RoomFull { limit: MAX_CLIENTS })
            }
            Event::Connect(_) => Ok(()),
            _ if is_connected => Ok(()),
            _ => Err(EventError::NotConnected(client)),
        }
    }

    /// The room accepted an event.
    pub fn accept(&mut self, event: GuestEvent) {
        match &event {
            GuestEvent::Connect(client) => assert!(self.clients.insert(*client)),
            GuestEvent::Disconnect(client) => assert!(self.clients.remove(client)),
            _ => self.messages_in += 1,
        }
        self.accepted.push_back(event);
    }

    /// `Transport::connected` was called: all outputs of earlier events must have been sent.
    pub fn on_connected(&mut self, client: u32) {
        assert_eq!(
            self.pending_outputs,
            [],
            "an event begins when the one before has been sent"
        );
        self.drop_rolled_back_events();
        assert_eq!(self.announced.replace(client), None);
        assert!(matches!(self.next_event(), Some(GuestEvent::Connect(next)) if *next == client));
    }

    /// Checks the room after its host was polled at `now`; `latest` is the latest time that the
    /// clock has shown.
    pub fn check(&mut self, room: &Room, now: Instant, latest: Instant) {
        let stats = room.stats();
        assert!(stats.memory_bytes <= MAX_PAGES as usize * PAGE);
        // On top of the inbox: a running event, each client's disconnect, and the startup events.
        assert!(stats.waiting_events <= MAX_WAITING + 1 + MAX_CLIENTS + 1 + MAX_CLIENTS);
        assert!(self.now <= latest);
        let is_survived = match self.recovery {
            Recovery::Continue => room.fault().is_none(),
            _ => self.rolls_back(),
        };
        if stats.faults > self.faults_at_last_check && !is_survived {
            assert_eq!(stats.faults, self.faults_at_last_check + 1);
            assert!(room.is_restarting() || room.is_closed());
            assert!(
                room.is_closed() || stats.memory_bytes == 0,
                "the memory of a failed guest is freed"
            );
            let between = (self.now.max(now), latest);
            self.observed_faults.push_back(Failure {
                between,
                restart_at: room.poll_timeout(),
            });
            self.check_recovery();
        }
        self.faults_at_last_check = stats.faults;
    }

    /// The room sent an output. `at` is the `now` of its event, where that is known: the room had no
    /// work before and was given no later time.
    pub fn on_output(&mut self, output: &SentOutput, at: Option<Instant>) {
        self.messages_out += 1;
        if self.pending_outputs.is_empty() {
            let (tag, now) = header(output);
            assert!(at.is_none_or(|at| now == at), "{now}, not {at:?}");
            self.begin_event(tag == Tag::Timer as u32, now);
        }
        match self
            .pending_outputs
            .pop_front()
            .expect("each event begins with a header")
        {
            ExpectedOutput::Exactly(expected) => assert_eq!(*output, expected),
            ExpectedOutput::Random(index) => self.check_number(output, index),
        }
    }

    fn check_number(&mut self, output: &SentOutput, index: usize) {
        let (MessageRecipient::Broadcast, false, bytes) = output else {
            panic!("not a random number: {output:?}")
        };
        let number = bytes.as_slice().try_into().expect("a number has 8 bytes");
        assert!(
            self.drawn.insert(number),
            "random numbers do not repeat across restarts"
        );
        // The oracle predicts only the first guest's.
        if self.is_first_guest {
            assert_eq!(number, self.rng_oracle.number(index));
        }
    }

    /// The guest has begun its next event.
    fn begin_event(&mut self, is_timer: bool, now: Instant) {
        assert!(now >= self.now, "time does not go backwards in a room");
        self.count_continued();
        if self.pending_fault.is_some() {
            self.restart(now);
        }
        self.now = now;
        let passes = self.timer_was_last && !is_timer;
        if !passes {
            self.drop_rolled_back_timer(now);
        }
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        let event = if is_timer {
            assert!(is_due, "the timer {:?} fires at {now}", self.guest.deadline);
            self.timer_was_last = !(self.startup_events.is_empty() && self.accepted.is_empty());
            self.coverage.count(CoverPoint::Timer);
            GuestEvent::Timer
        } else {
            assert!(!is_due || passes, "a due timer fires before queued events");
            self.drop_rolled_back_events();
            self.begin_next_event()
        };
        let outcome = self.guest.handle(&event, now);
        self.pending_outputs = outcome.outputs;
        self.pending_fault = outcome.fault;
        if let Some(fault) = &self.pending_fault {
            assert!(
                !self.rolls_back(),
                "a rolled back event sends nothing: {fault}"
            );
            self.check_recovery();
        }
    }

    /// Counts the fault of an event that is over, if the guest went on with the state that was left.
    fn count_continued(&mut self) {
        if matches!(self.recovery, Recovery::Continue)
            && let Some(fault) = self
                .pending_fault
                .take_if(|fault| fault.during != "initialize")
        {
            self.faults += 1;
            self.last_faults = vec![fault];
            self.coverage.count(CoverPoint::Continued);
        }
    }

    /// Checks the recovery from a fault, once both its time and its event are known.
    fn check_recovery(&mut self) {
        let (Some(fault), None) = (&self.pending_fault, self.failure) else {
            return;
        };
        let Some(failed) = self.observed_faults.pop_front() else {
            return;
        };
        self.failure = Some(failed);
        self.faults += 1;
        self.last_faults = vec![fault.clone()];
        let change = match &mut self.recovery {
            Recovery::Restart(streak) => streak.check(self.started, self.now, failed),
            _ => StreakChange::Exhausted,
        };
        match change {
            StreakChange::Continued => {}
            StreakChange::Reset => self.coverage.count(CoverPoint::NewStreak),
            StreakChange::Exhausted => assert_eq!(failed.restart_at, None),
        }
        if !self.is_first_guest && !self.startup_events.is_empty() {
            self.coverage.count(CoverPoint::FailedDuringStartup);
        }
    }

    /// The guest's next event, unless its timer fires first.
    fn next_event(&self) -> Option<&GuestEvent> {
        self.startup_events.front().or(self.accepted.front())
    }

    fn begin_next_event(&mut self) -> GuestEvent {
        self.timer_was_last = false;
        let startup_event = self.startup_events.pop_front();
        let is_startup = startup_event.is_some();
        let event = startup_event
            .or_else(|| self.accepted.pop_front())
            .expect("there is an event to begin");
        match event {
            GuestEvent::Connect(client) => {
                assert_eq!(
                    self.announced.take(),
                    Some(client),
                    "the transport is notified before the guest"
                );
                // Startup events connect clients that were there before.
                assert_eq!(self.guest_clients.insert(client), !is_startup);
            }
            GuestEvent::Disconnect(client) => assert!(self.guest_clients.remove(&client)),
            _ => {}
        }
        event
    }

    /// A new guest starts.
    fn restart(&mut self, now: Instant) {
        let failure = self.failure.take().expect("the guest has failed");
        let at = failure
            .restart_at
            .expect("nothing is sent after the last fault");
        assert!(now >= at, "the restart is due at {at}, not at {now}");
        self.coverage.count(CoverPoint::Restart);
        self.pending_fault = None;
        self.is_first_guest = false;
        self.guest = ReferenceGuest::new();
        self.started = now;
        self.startup_events = VecDeque::from([GuestEvent::Init {
            id_bytes: self.id.len() as u32,
        }]);
        self.startup_events
            .extend(self.guest_clients.iter().copied().map(GuestEvent::Connect));
    }

    const fn rolls_back(&self) -> bool {
        #[cfg(feature = "snapshot")]
        return matches!(self.recovery, Recovery::Rollback);
        #[cfg(not(feature = "snapshot"))]
        return false;
    }

    /// With rollback, drops the next events as long as they fail. A timer in between does not change
    /// which ones fail.
    fn drop_rolled_back_events(&mut self) {
        while self.rolls_back() && self.startup_events.is_empty() {
            let Some(event) = self.accepted.front() else {
                return;
            };
            let client = if let GuestEvent::Connect(client) = event {
                Some(*client)
            } else {
                None
            };
            let is_before = client.is_none() || client == self.announced;
            let Some(fault) = self.guest.fails(event, self.now).filter(|_| is_before) else {
                return;
            };
            self.begin_next_event();
            self.count_rollback(fault);
            self.drop_rolled_back_timer(self.now);
        }
    }

    /// Drops the timer if it was due and fails.
    fn drop_rolled_back_timer(&mut self, now: Instant) {
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        if self.rolls_back()
            && is_due
            && let Some(fault) = self.guest.fails(&GuestEvent::Timer, now)
        {
            self.guest.deadline = None;
            self.timer_was_last = !(self.startup_events.is_empty() && self.accepted.is_empty());
            self.count_rollback(fault);
        }
    }

    fn count_rollback(&mut self, fault: Fault) {
        self.faults += 1;
        #[cfg(feature = "snapshot")]
        self.coverage.count(match fault.during {
            "timer" => CoverPoint::TimerRolledBack,
            "connect" => CoverPoint::ConnectRolledBack,
            _ => CoverPoint::RolledBack,
        });
        self.last_faults.push(fault);
    }

    /// Checks a room that has no work left at `now`.
    pub fn check_settled(&mut self, room: &Room, now: Instant) {
        self.count_continued();
        self.drop_rolled_back_events();
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        // The clock may have been ahead of `now` in the room's last turn.
        if is_due || room.poll_timeout() != self.guest.deadline {
            self.drop_rolled_back_timer(Instant::MAX);
        }
        assert_eq!(self.pending_outputs, []);
        assert_eq!(self.announced, None);
        assert_eq!(room.poll_timeout(), self.wake_at());
        assert!(
            room.clients()
                .iter()
                .map(|client| client.0)
                .eq(self.clients.iter().copied())
        );
        let stats = room.stats();
        let waiting = self.startup_events.len() + self.accepted.len();
        match &self.failure {
            None => assert_eq!(
                (waiting, stats.memory_bytes),
                (0, self.guest.pages as usize * PAGE)
            ),
            Some(_) => assert_eq!(stats.memory_bytes, 0),
        }
        assert_eq!(stats.waiting_events, waiting);
        assert_eq!(room.is_restarting(), self.failure.is_some());
        assert_eq!(
            self.pending_fault.is_some(),
            self.failure.is_some(),
            "an expected fault has occurred"
        );
        assert!(
            !room.is_closed() && room.fault().is_none(),
            "the host would have reported it closed"
        );
        self.last_faults
            .retain(|fault| room.last_fault() == Some(fault));
        assert_eq!(
            (stats.faults, room.last_fault()),
            (self.faults, self.last_faults.last())
        );
    }

    /// When the room next has work without a new event.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.failure {
            Some(failed) => failed.restart_at,
            None => self.guest.deadline,
        }
    }

    /// The host reported the room closed.
    pub fn on_closed(&mut self, closed: &ClosedRoom) {
        assert_eq!(*closed.id, *self.id);
        assert_eq!(
            closed.clients,
            self.clients
                .iter()
                .copied()
                .map(ClientId)
                .collect::<Vec<_>>()
        );
        assert_eq!(closed.stats.messages_in, self.messages_in);
        assert_eq!(closed.stats.messages_out, self.messages_out);
        assert_eq!(self.closed_by_driver, closed.fault.is_none());
        if let Some(fault) = &closed.fault {
            self.check_closing_fault(fault);
        } else if !self.pending_outputs.is_empty() {
            assert!(
                !self.rolls_back(),
                "with rollback, an event sends all of its outputs or none"
            );
            self.coverage.count(CoverPoint::ClosedMidEvent);
        }
        let faults = self.faults..=match self.recovery {
            // The driver may have closed it before or after the last event failed.
            Recovery::Continue if closed.fault.is_none() && self.pending_fault.is_some() => {
                self.faults + 1
            }
            _ if self.rolls_back() => u64::MAX,
            _ => self.faults,
        };
        assert!(faults.contains(&closed.stats.faults));
    }

    /// Checks the fault that closed the room.
    fn check_closing_fault(&mut self, fault: &Fault) {
        assert_eq!(
            self.pending_outputs,
            [],
            "outputs before the fault are sent"
        );
        if self.rolls_back() {
            // Only a fault in the first call leaves nothing to roll back to.
            assert_eq!(self.messages_out, 0);
            let first = self
                .next_event()
                .expect("the guest has not been initialised");
            assert_eq!(
                self.guest.fails(first, Instant::from_millis(1)).as_ref(),
                Some(fault)
            );
        } else {
            assert_eq!(self.pending_fault.as_ref(), Some(fault));
            assert_eq!(self.failure.map(|failed| failed.restart_at), Some(None));
        }
        self.coverage.count(match self.recovery {
            Recovery::Restart(_) => CoverPoint::RestartsExhausted,
            _ if fault.during == "initialize" => CoverPoint::FailedInitialize,
            _ => CoverPoint::ClosedByFault,
        });
    }
}

/// The tag and the `now` of the header of an event.
fn header((recipient, is_text, bytes): &SentOutput) -> (u32, Instant) {
    assert_eq!(
        (recipient, is_text, bytes.len()),
        (&MessageRecipient::Broadcast, &false, 24),
        "not a header"
    );
    let tag = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    (
        tag,
        Instant::from_nanos(u64::from_le_bytes(bytes[8..16].try_into().unwrap())),
    )
}
