//! What a room must do.

use super::{
    backoff::{Failed, Place, Row},
    coverage::{Happened, Happening},
    faulty_transport::Said,
    guest::{MAX_CLIENTS, MAX_PAGES, MAX_WAITING, PAGE, Tag},
    reference_guest::{Expected, Told, Twin},
    rng_oracle::Dice,
};
use stateroom_wasmi_host::{
    ClientId, ClosedRoom, Event, EventError, Fault, FaultPolicy, Instant, MessageRecipient, Module,
    Room, RoomOptions,
};
use std::collections::{BTreeSet, VecDeque};

pub struct Model {
    /// When it was opened, in the time of the host. All other times here are room time.
    opened_at: Instant,
    pub id: String,
    pub closed_by_driver: bool,
    pub happened: Happened,
    /// The time of the last event that was heard of.
    pub now: Instant,
    guest: Twin,
    /// When the guest was started.
    started: Instant,
    is_first_guest: bool,
    /// What a fresh guest is told first and has not been yet.
    greeting: VecDeque<Told>,
    /// What the room took and the guest has not begun with.
    taken: VecDeque<Told>,
    /// The client whose connect the transport was told of, until the guest has begun with it.
    announced: Option<u32>,
    /// What the guest is still to say about the event that it is in.
    to_say: VecDeque<Expected>,
    /// How the event that it is in ends, if not well.
    broken: Option<Fault>,
    /// The faults that were seen, of which the event has not been heard of.
    failed: VecDeque<Failed>,
    /// That of the guest that is there no more.
    waits: Option<Failed>,
    seen_faults: u64,
    faults: u64,
    /// One of these is the last: of what was undone unheard, nobody can tell when it was.
    last_faults: Vec<Fault>,
    recovery: Recovery,
    /// Who is there when all that the guest has begun with has happened.
    there: BTreeSet<u32>,
    /// Who is connected when all that the room took has happened.
    clients: BTreeSet<u32>,
    messages_in: u64,
    messages_out: u64,
    dice: Dice,
    /// The random numbers that were ever drawn.
    drawn: BTreeSet<[u8; 8]>,
}

/// What follows a fault.
enum Recovery {
    Close,
    Restart(Row),
    #[cfg(feature = "rollback")]
    Rollback,
}

impl Model {
    pub fn new(id: &str, module: &Module, options: RoomOptions, opened_at: Instant) -> Self {
        Self {
            opened_at,
            id: id.to_owned(),
            closed_by_driver: false,
            happened: Happened::default(),
            now: Instant::ZERO,
            guest: Twin::new(),
            started: Instant::ZERO,
            is_first_guest: true,
            greeting: VecDeque::from([Told::Init {
                id_bytes: id.len() as u32,
            }]),
            taken: VecDeque::new(),
            announced: None,
            to_say: VecDeque::new(),
            broken: None,
            failed: VecDeque::new(),
            waits: None,
            seen_faults: 0,
            faults: 0,
            last_faults: Vec::new(),
            recovery: match options.on_fault.unwrap_or_default() {
                FaultPolicy::Restart(backoff) => Recovery::Restart(Row::new(backoff)),
                #[cfg(feature = "rollback")]
                FaultPolicy::Rollback => Recovery::Rollback,
                _ => Recovery::Close,
            },
            there: BTreeSet::new(),
            clients: BTreeSet::new(),
            messages_in: 0,
            messages_out: 0,
            dice: Dice::new(module.clone(), options.seed.unwrap_or(0)),
            drawn: BTreeSet::new(),
        }
    }

    pub fn room_time(&self, host_time: Instant) -> Instant {
        Instant::ZERO + host_time.saturating_duration_since(self.opened_at)
    }

    pub fn host_time(&self, room_time: Instant) -> Instant {
        self.opened_at + room_time.saturating_duration_since(Instant::ZERO)
    }

    /// What the room must answer to a client; whether its inbox is full is asked elsewhere.
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

    /// The room takes an event.
    pub fn take(&mut self, event: Told) {
        match &event {
            Told::Connect(client) => assert!(self.clients.insert(*client)),
            Told::Disconnect(client) => assert!(self.clients.remove(client)),
            _ => self.messages_in += 1,
        }
        self.taken.push_back(event);
    }

    /// The room begins to tell its guest of a client: nothing may be left of what came before.
    pub fn connected(&mut self, client: u32) {
        assert_eq!(
            self.to_say,
            [],
            "an event begins when the one before has been sent"
        );
        self.drop_undone_events();
        assert_eq!(self.announced.replace(client), None);
        assert!(matches!(self.next_event(), Some(Told::Connect(next)) if *next == client));
    }

    /// Looks at the room after its host was polled at `now`; no clock has shown a later time than
    /// `latest`.
    pub fn look(&mut self, room: &Room, now: Instant, latest: Instant) {
        let stats = room.stats();
        assert!(stats.memory_bytes <= MAX_PAGES as usize * PAGE);
        // Beside those that are bounded: one that runs, each client's leaving, and a greeting.
        assert!(stats.waiting_events <= MAX_WAITING + 1 + MAX_CLIENTS + 1 + MAX_CLIENTS);
        assert!(self.now <= latest);
        if stats.faults > self.seen_faults && !self.undoes() {
            assert_eq!(stats.faults, self.seen_faults + 1);
            assert!(room.is_restarting() || room.is_closed());
            assert!(
                room.is_closed() || stats.memory_bytes == 0,
                "a guest that failed is gone"
            );
            let between = (self.now.max(now), latest);
            self.failed.push_back(Failed {
                between,
                restart_at: room.poll_timeout(),
            });
            self.judge();
        }
        self.seen_faults = stats.faults;
    }

    /// The room says something. If it had nothing to do before this time, and was never told of a
    /// later one, events begin at it.
    pub fn said(&mut self, said: &Said, at: Option<Instant>) {
        self.messages_out += 1;
        if self.to_say.is_empty() {
            let (tag, now) = head(said);
            assert!(at.is_none_or(|at| now == at), "{now}, not {at:?}");
            self.begin(tag == Tag::Timer as u32, now);
        }
        match self
            .to_say
            .pop_front()
            .expect("the guest says something to each event")
        {
            Expected::This(expected) => assert_eq!(*said, expected),
            Expected::Drawn(place) => self.check_number(said, place),
        }
    }

    fn check_number(&mut self, said: &Said, place: usize) {
        let (MessageRecipient::Broadcast, false, bytes) = said else {
            panic!("no number: {said:?}")
        };
        let number = bytes.as_slice().try_into().expect("a number has 8 bytes");
        assert!(
            self.drawn.insert(number),
            "no guest draws what another has drawn"
        );
        // Nobody knows those of a guest that came later.
        if self.is_first_guest {
            assert_eq!(number, self.dice.number(place));
        }
    }

    /// The guest has been called with the next event.
    fn begin(&mut self, is_timer: bool, now: Instant) {
        assert!(now >= self.now, "time does not go backwards in a room");
        if self.broken.is_some() {
            self.restart(now);
        }
        self.now = now;
        self.drop_undone_timer(now);
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        let event = if is_timer {
            assert!(is_due, "the timer {:?} fires at {now}", self.guest.deadline);
            self.happened.count(Happening::Timer);
            Told::Timer
        } else {
            assert!(!is_due, "a timer that is due comes first");
            self.drop_undone_events();
            self.take_next_event()
        };
        let outcome = self.guest.handle(&event, now);
        self.to_say = outcome.said;
        self.broken = outcome.fault;
        if let Some(fault) = &self.broken {
            assert!(!self.undoes(), "what is undone is not heard: {fault}");
            self.judge();
        }
    }

    /// Checks what follows a fault, once it is known when it was and in which event.
    fn judge(&mut self) {
        let (Some(fault), None) = (&self.broken, self.waits) else {
            return;
        };
        let Some(failed) = self.failed.pop_front() else {
            return;
        };
        self.waits = Some(failed);
        self.faults += 1;
        self.last_faults = vec![fault.clone()];
        let place = match &mut self.recovery {
            Recovery::Restart(row) => row.check(self.started, failed),
            _ => Place::Last,
        };
        match place {
            Place::InRow => {}
            Place::FirstAgain => self.happened.count(Happening::NewRow),
            Place::Last => assert_eq!(failed.restart_at, None),
        }
        if !self.is_first_guest && !self.greeting.is_empty() {
            self.happened.count(Happening::FailedEarly);
        }
    }

    /// What the guest is called with next, but for its timer.
    fn next_event(&self) -> Option<&Told> {
        self.greeting.front().or(self.taken.front())
    }

    fn take_next_event(&mut self) -> Told {
        let greeting = self.greeting.pop_front();
        let is_greeting = greeting.is_some();
        let event = greeting
            .or_else(|| self.taken.pop_front())
            .expect("an event is told of once");
        match event {
            Told::Connect(client) => {
                assert_eq!(
                    self.announced.take(),
                    Some(client),
                    "the transport is told first"
                );
                // Of whom a greeting tells was there before.
                assert_eq!(self.there.insert(client), !is_greeting);
            }
            Told::Disconnect(client) => assert!(self.there.remove(&client)),
            _ => {}
        }
        event
    }

    /// A fresh guest begins.
    fn restart(&mut self, now: Instant) {
        let waits = self.waits.take().expect("the guest has failed");
        let at = waits
            .restart_at
            .expect("nothing comes after the last fault");
        assert!(now >= at, "it starts at {at}, not at {now}");
        self.happened.count(Happening::Restart);
        self.broken = None;
        self.is_first_guest = false;
        self.guest = Twin::new();
        self.started = now;
        self.greeting = VecDeque::from([Told::Init {
            id_bytes: self.id.len() as u32,
        }]);
        self.greeting
            .extend(self.there.iter().copied().map(Told::Connect));
    }

    const fn undoes(&self) -> bool {
        #[cfg(feature = "rollback")]
        return matches!(self.recovery, Recovery::Rollback);
        #[cfg(not(feature = "rollback"))]
        return false;
    }

    /// Forgets the next events as long as they fail, if those leave no trace. A timer in between
    /// does not change which.
    fn drop_undone_events(&mut self) {
        while self.undoes() && self.greeting.is_empty() {
            let Some(event) = self.taken.front() else {
                return;
            };
            let client = if let Told::Connect(client) = event {
                Some(*client)
            } else {
                None
            };
            let is_before = client.is_none() || client == self.announced;
            let Some(fault) = self.guest.fails(event, self.now).filter(|_| is_before) else {
                return;
            };
            self.take_next_event();
            self.undone(fault);
        }
    }

    /// The same for the timer, if it was due.
    fn drop_undone_timer(&mut self, now: Instant) {
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        if self.undoes()
            && is_due
            && let Some(fault) = self.guest.fails(&Told::Timer, now)
        {
            self.guest.deadline = None;
            self.undone(fault);
        }
    }

    fn undone(&mut self, fault: Fault) {
        self.faults += 1;
        #[cfg(feature = "rollback")]
        self.happened.count(match fault.during {
            "timer" => Happening::TimerUndone,
            "connect" => Happening::ConnectUndone,
            _ => Happening::Undone,
        });
        self.last_faults.push(fault);
    }

    /// Checks a room that has nothing left to do at this time.
    pub fn settled(&mut self, room: &Room, now: Instant) {
        self.drop_undone_events();
        let is_due = self.guest.deadline.is_some_and(|deadline| deadline <= now);
        // The clock may have been ahead of now when the room had its last turn.
        if is_due || room.poll_timeout() != self.guest.deadline {
            self.drop_undone_timer(Instant::MAX);
        }
        assert_eq!(self.to_say, []);
        assert_eq!(self.announced, None);
        assert_eq!(room.poll_timeout(), self.wake_at());
        assert!(
            room.clients()
                .iter()
                .map(|client| client.0)
                .eq(self.clients.iter().copied())
        );
        let stats = room.stats();
        let waiting = self.greeting.len() + self.taken.len();
        match &self.waits {
            None => assert_eq!(
                (waiting, stats.memory_bytes),
                (0, self.guest.pages as usize * PAGE)
            ),
            Some(_) => assert_eq!(stats.memory_bytes, 0),
        }
        assert_eq!(stats.waiting_events, waiting);
        assert_eq!(room.is_restarting(), self.waits.is_some());
        assert_eq!(
            self.broken.is_some(),
            self.waits.is_some(),
            "what was to fail has failed"
        );
        assert!(
            !room.is_closed() && room.fault().is_none(),
            "it would have been told of"
        );
        self.last_faults
            .retain(|fault| room.last_fault() == Some(fault));
        assert_eq!(
            (stats.faults, room.last_fault()),
            (self.faults, self.last_faults.last())
        );
    }

    /// When the room is next to do something without being told to.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.waits {
            Some(failed) => failed.restart_at,
            None => self.guest.deadline,
        }
    }

    /// The room has ended.
    pub fn ended(&mut self, closed: &ClosedRoom) {
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
            self.broke(fault);
        } else if !self.to_say.is_empty() {
            assert!(
                !self.undoes(),
                "an event is heard of as a whole or not at all"
            );
            self.happened.count(Happening::CutOff);
        }
        let is_right = if self.undoes() { u64::ge } else { u64::eq };
        assert!(is_right(&closed.stats.faults, &self.faults));
    }

    /// The room has ended because of this fault.
    fn broke(&mut self, fault: &Fault) {
        assert_eq!(self.to_say, [], "what it had sent goes out");
        if self.undoes() {
            // There is nothing to go back to, only when the first call fails.
            assert_eq!(self.messages_out, 0);
            let first = self
                .next_event()
                .expect("the guest has not been initialised");
            assert_eq!(
                self.guest.fails(first, Instant::from_millis(1)).as_ref(),
                Some(fault)
            );
        } else {
            assert_eq!(self.broken.as_ref(), Some(fault));
            assert_eq!(self.waits.map(|failed| failed.restart_at), Some(None));
        }
        self.happened.count(match self.recovery {
            Recovery::Restart(_) => Happening::Exhausted,
            _ if fault.during == "initialize" => Happening::NeverOpened,
            _ => Happening::Closed,
        });
    }
}

/// The tag and the `now` of what a guest says first of an event.
fn head((recipient, is_text, bytes): &Said) -> (u32, Instant) {
    assert_eq!(
        (recipient, is_text, bytes.len()),
        (&MessageRecipient::Broadcast, &false, 24),
        "no head"
    );
    let tag = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    (
        tag,
        Instant::from_nanos(u64::from_le_bytes(bytes[8..16].try_into().unwrap())),
    )
}
