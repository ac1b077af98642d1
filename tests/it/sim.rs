//! A simulation: many rooms and clients, guests that fail, a transport that refuses and recovers, a
//! clock that jumps, budgets of all sizes; everything that happens is checked against a model.
//!
//! The model knows nothing of slices, turns and queues. It knows which events were taken, and what
//! a guest says to each; since the guest says at which `now` it was called, the model can tell
//! whether timers fired when they were to fire.
//!
//! Each run has a seed, which is printed when it fails; `TEST_SEED=n` runs that one alone, and
//! `TEST_SEEDS=n` runs so many.

use crate::support::{ENV, Random, guest_0_2, limits, module_with};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, ClosedRoom, Event, EventError, Fault, FaultCause, Host, HostLimits, Instant,
    ManualClock, MessagePayload, MessageRecipient, Module, OpenError, Output, RoomKey, SendError, Transport,
    Trap,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Runs, if not told otherwise.
const SEEDS: u64 = 300;
const STEPS: usize = 300;
const ROOMS: usize = 6;
const PAGE: usize = 65_536;
const MAX_PAGES: u32 = 4;
const MAX_MESSAGES: usize = 40;
const MAX_WAITING: usize = 6;
const MAX_CLIENTS: usize = 5;
const FUEL_PER_EVENT: u64 = 40_000;

#[test]
fn what_happens_is_what_the_model_says() {
    let modules = [20, 100, 1_000, u64::MAX].map(module_of);
    let seeds = match Random::given_seed() {
        Some(seed) => seed..=seed,
        None => 1..=std::env::var("TEST_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number")),
    };
    let mut all = Happened::default();
    for seed in seeds.clone() {
        let _shown = ShownOnPanic(seed);
        let mut sim = Sim::new(seed, &modules);
        for _ in 0..STEPS {
            sim.step();
        }
        sim.end();
        all.add(&sim.happened);
    }
    // Else it would say nothing.
    let seldom = all.least();
    assert!(seeds.count() == 1 || seldom >= 10, "{all:?}");
}

/// Tells the seed of the run that failed.
struct ShownOnPanic(u64);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("TEST_SEED={} fails", self.0);
        }
    }
}

/// How often what the simulation is about has happened.
#[derive(Debug, Default)]
struct Happened {
    timers: usize,
    faults: usize,
    refusals: usize,
    full_inboxes: usize,
    cut_off_events: usize,
    jumps_backwards: usize,
}

impl Happened {
    fn add(&mut self, other: &Self) {
        self.timers += other.timers;
        self.faults += other.faults;
        self.refusals += other.refusals;
        self.full_inboxes += other.full_inboxes;
        self.cut_off_events += other.cut_off_events;
        self.jumps_backwards += other.jumps_backwards;
    }

    fn least(&self) -> usize {
        let Self { timers, faults, refusals, full_inboxes, cut_off_events, jumps_backwards } = *self;
        [timers, faults, refusals, full_inboxes, cut_off_events, jumps_backwards].into_iter().min().unwrap()
    }
}

/// What a guest can be told to do in a binary message, as it stands there.
#[derive(Clone, Copy, Debug)]
enum Op {
    Say { to: i32, number: u32 },
    SetTimer { ms: u32 },
    Spin { rounds: u32 },
    Grow { pages: u32 },
    Flood { times: u32, number: u32 },
    Trap,
    Forever,
    Overflow,
}

impl Op {
    fn random(random: &mut Random) -> Self {
        let number = random.next() as u32;
        match random.below(200) {
            0 => Self::Trap,
            1 => Self::Forever,
            2 => Self::Overflow,
            3..8 => Self::Flood { times: 1 + random.below(MAX_MESSAGES) as u32, number },
            8..20 => Self::Grow { pages: random.below(3) as u32 },
            20..60 => Self::Spin { rounds: random.below(200) as u32 },
            60..120 => Self::SetTimer { ms: random.below(40) as u32 },
            _ => Self::Say { to: random.below(11) as i32 - 5, number },
        }
    }

    /// Its number, and its two operands.
    fn words(self) -> [u32; 3] {
        match self {
            Self::Say { to, number } => [0, to.cast_unsigned(), number],
            Self::SetTimer { ms } => [1, ms, 0],
            Self::Spin { rounds } => [2, rounds, 0],
            Self::Grow { pages } => [3, pages, 0],
            Self::Flood { times, number } => [4, times, number],
            Self::Trap => [5, 0, 0],
            Self::Forever => [6, 0, 0],
            Self::Overflow => [7, 0, 0],
        }
    }
}

/// A guest that says of each event what it was, with its `now`, and then does what it is told.
fn module_of(fuel_per_slice: u64) -> Module {
    let clock = r#"(import "wasi_snapshot_preview1" "clock_time_get"
        (func $clock (param i32 i64 i32) (result i32)))"#;
    let head = |tag: u32, argument: &str| format!("(call $head (i32.const {tag}) {argument})");
    let client = "(local.get 0)";
    let message = head(4, client) + "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    let binary = "(local $end i32) (local.set $end (i32.add (local.get 1) (local.get 2)))".to_owned()
        + &head(3, client)
        + "
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get 1) (local.get $end)))
            (call $do (i32.load (local.get 1)) (i32.load offset=4 (local.get 1)) (i32.load offset=8 (local.get 1)))
            (local.set 1 (i32.add (local.get 1) (i32.const 12)))
            (br $next)))";
    let more = "
        (func $head (param i32 i32)
            (i32.store (i32.const 0) (local.get 0))
            (i32.store (i32.const 4) (local.get 1))
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
            (call $send_binary (i32.const 0) (i32.const 0) (i32.const 16)))
        (func $say (param $to i32) (param $number i32)
            (i32.store (i32.const 16) (local.get $number))
            (call $send_binary (local.get $to) (i32.const 16) (i32.const 4)))
        (func $spin (param i32)
            (loop $next
                (br_if $next (i32.gt_s (local.tee 0 (i32.sub (local.get 0) (i32.const 1))) (i32.const 0)))))
        (func $flood (param i32 i32)
            (loop $next
                (call $say (i32.const 0) (local.get 1))
                (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
        (func $overflow (call $overflow))
        (func $do (param $op i32) (param $a i32) (param $b i32)
            (block $7 (block $6 (block $5 (block $4 (block $3 (block $2 (block $1 (block $0
                (br_table $0 $1 $2 $3 $4 $5 $6 $7 (local.get $op)))
                (return (call $say (local.get $a) (local.get $b))))
                (return (call $set_timer (local.get $a))))
                (return (call $spin (local.get $a))))
                (return (call $say (i32.const 0) (memory.grow (local.get $a)))))
                (return (call $flood (local.get $a) (local.get $b))))
                (unreachable))
                (loop (br 0)))
            (call $overflow))";
    let text = guest_0_2(
        &(ENV.to_owned() + clock),
        &[
            ("initialize", &head(0, "(local.get 1)")),
            ("connect", &head(1, client)),
            ("disconnect", &head(2, client)),
            ("binary", &binary),
            ("message", &message),
            ("timer", &head(5, "(i32.const 0)")),
        ],
        more,
    );
    module_with(
        &text,
        &limits(|limits| {
            limits.fuel_per_event = Some(FUEL_PER_EVENT);
            limits.fuel_per_slice = fuel_per_slice;
            limits.memory_bytes = MAX_PAGES as usize * PAGE;
            limits.outbox_messages = MAX_MESSAGES;
            limits.inbox_events = MAX_WAITING;
            limits.clients = MAX_CLIENTS;
            limits.recursion_depth = 50;
        }),
    )
}

/// An event that a room took.
#[derive(Debug)]
enum Taken {
    Init { id_bytes: u32 },
    Connect(u32),
    Disconnect(u32),
    Ops(u32, Vec<Op>),
    Text(u32, String),
}

/// An output: to whom, whether it is text, and the bytes.
type Said = (MessageRecipient, bool, Vec<u8>);

/// What a room is to do.
struct Model {
    id: String,
    /// What it took and has not begun with.
    taken: VecDeque<Taken>,
    /// What it is still to say about the event that it is in.
    to_say: VecDeque<Said>,
    /// How the event that it is in ends, if not well.
    fault: Option<FaultCause>,
    closed_by_driver: bool,
    now: Instant,
    deadline: Option<Instant>,
    pages: u32,
    /// Whether its memory was ever refused to grow.
    refused: bool,
    /// What it has sent within its event.
    sent: usize,
    clients: BTreeSet<u32>,
    messages_in: u64,
    messages_out: u64,
}

impl Model {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            taken: VecDeque::from([Taken::Init { id_bytes: id.len() as u32 }]),
            to_say: VecDeque::new(),
            fault: None,
            closed_by_driver: false,
            now: Instant::ZERO,
            deadline: None,
            pages: 1,
            refused: false,
            sent: 0,
            clients: BTreeSet::new(),
            messages_in: 0,
            messages_out: 0,
        }
    }

    /// The room takes an event. What the answer must be is known, but for a full inbox and for a
    /// guest that has failed meanwhile.
    fn take(&mut self, event: Taken) {
        match &event {
            Taken::Init { .. } => {}
            Taken::Connect(client) => assert!(self.clients.insert(*client)),
            Taken::Disconnect(client) => assert!(self.clients.remove(client)),
            Taken::Ops(..) | Taken::Text(..) => self.messages_in += 1,
        }
        self.taken.push_back(event);
    }

    /// The room begins to tell its guest of a client: nothing may be left of what came before.
    fn connected(&self, client: u32) {
        assert_eq!(self.to_say, [], "an event begins when the one before has been sent");
        assert!(matches!(self.taken.front(), Some(Taken::Connect(next)) if *next == client));
    }

    /// The room says something; answers whether its timer has fired. If it had nothing to do before
    /// this time, and was never told of a later one, events begin at it.
    fn said(&mut self, said: Said, at: Option<Instant>) -> bool {
        self.messages_out += 1;
        if let Some(expected) = self.to_say.pop_front() {
            assert_eq!(said, expected);
            return false;
        }
        assert_eq!(self.fault, None, "nothing comes after a fault: {said:?}");
        let (MessageRecipient::Broadcast, false, bytes) = said else { panic!("no head: {said:?}") };
        let bytes: [u8; 16] = bytes.try_into().expect("a head has 16 bytes");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let now = Instant::from_nanos(u64::from_le_bytes(bytes[8..].try_into().unwrap()));
        assert!(at.is_none_or(|at| now == at), "{now}, not {at:?}");
        self.begin([word(0), word(4)], now)
    }

    fn begin(&mut self, head: [u32; 2], now: Instant) -> bool {
        assert!(now >= self.now, "time does not go backwards in a room");
        self.now = now;
        self.sent = 1;
        let is_due = self.deadline.is_some_and(|deadline| deadline <= now);
        if head == [5, 0] {
            assert!(is_due, "the timer {:?} fires at {now}", self.deadline);
            self.deadline = None;
            return true;
        }
        assert!(!is_due, "a timer that is due comes first");
        match self.taken.pop_front().expect("an event is told of once") {
            Taken::Init { id_bytes } => assert_eq!(head, [0, id_bytes]),
            Taken::Connect(client) => assert_eq!(head, [1, client]),
            Taken::Disconnect(client) => assert_eq!(head, [2, client]),
            Taken::Ops(client, ops) => {
                assert_eq!(head, [3, client]);
                self.fault = ops.into_iter().find_map(|op| self.run(op).err());
            }
            Taken::Text(client, text) => {
                assert_eq!(head, [4, client]);
                self.to_say.push_back((MessageRecipient::Client(ClientId(client)), true, text.into_bytes()));
            }
        }
        false
    }

    fn run(&mut self, op: Op) -> Result<(), FaultCause> {
        match op {
            Op::Say { to, number } => self.say(to, number)?,
            Op::SetTimer { ms } => {
                self.deadline = (ms > 0).then(|| self.now + Duration::from_millis(ms.into()));
            }
            Op::Spin { .. } => {}
            Op::Grow { pages } => {
                let is_allowed = self.pages + pages <= MAX_PAGES;
                let before = self.pages;
                self.pages += if is_allowed { pages } else { 0 };
                self.refused |= !is_allowed;
                self.say(0, if is_allowed { before } else { u32::MAX })?;
            }
            Op::Flood { times, number } => {
                for _ in 0..times {
                    self.say(0, number)?;
                }
            }
            Op::Trap if self.refused => {
                return Err(FaultCause::Trap(Trap::UnreachableOutOfMemory));
            }
            Op::Trap => return Err(FaultCause::Trap(Trap::Unreachable)),
            Op::Forever => return Err(FaultCause::OutOfFuel { limit: FUEL_PER_EVENT }),
            Op::Overflow => return Err(FaultCause::Trap(Trap::StackOverflow)),
        }
        Ok(())
    }

    fn say(&mut self, to: i32, number: u32) -> Result<(), FaultCause> {
        self.sent += 1;
        if self.sent > MAX_MESSAGES {
            return Err(FaultCause::TooManyMessages { limit: MAX_MESSAGES });
        }
        let recipient = match to {
            0 => MessageRecipient::Broadcast,
            1.. => MessageRecipient::Client(ClientId(to.unsigned_abs())),
            _ => MessageRecipient::EveryoneExcept(ClientId(to.unsigned_abs())),
        };
        self.to_say.push_back((recipient, false, number.to_le_bytes().into()));
        Ok(())
    }

    /// What the room must answer to a client; whether its inbox is full is asked elsewhere.
    fn expected(&self, event: &Event<'_>) -> Result<(), EventError> {
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

    /// The room has ended.
    fn ended(&self, closed: &ClosedRoom) {
        assert_eq!(*closed.id, *self.id);
        assert_eq!(closed.clients, self.clients.iter().copied().map(ClientId).collect::<Vec<_>>());
        assert_eq!(closed.stats.messages_in, self.messages_in);
        assert_eq!(closed.stats.messages_out, self.messages_out);
        assert_eq!(self.closed_by_driver, closed.fault.is_none());
        if let Some(Fault { during, cause }) = &closed.fault {
            assert_eq!((*during, Some(cause)), ("binary", self.fault.as_ref()));
            assert_eq!(self.to_say, [], "what it had sent goes out");
        }
    }
}

/// Refuses, loses, and writes down what it takes.
struct Unsteady {
    random: Random,
    mood: Mood,
    seen: Vec<(RoomKey, Seen)>,
    refusals: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Steady,
    Unsteady,
    Refusing,
}

enum Seen {
    Connected(u32),
    Said(Said),
}

impl Transport for Unsteady {
    type Error = &'static str;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<&'static str>> {
        let is_refused = match self.mood {
            Mood::Steady => false,
            Mood::Unsteady => self.random.below(3) == 0,
            Mood::Refusing => true,
        };
        if is_refused {
            self.refusals += 1;
            return Err(SendError::WouldBlock);
        }
        let is_text = matches!(output.payload, MessagePayload::Text(_));
        let said = (output.recipient, is_text, output.payload.as_bytes().to_owned());
        self.seen.push((room, Seen::Said(said)));
        // What is lost was handed over once, too.
        if self.mood == Mood::Unsteady && self.random.below(8) == 0 {
            return Err(SendError::Failed("lost"));
        }
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        self.seen.push((room, Seen::Connected(client.0)));
    }
}

struct Sim<'a> {
    random: Random,
    modules: &'a [Module],
    host: Host<ManualClock, Unsteady>,
    models: BTreeMap<RoomKey, Model>,
    /// Whether nothing was left to do after the last poll.
    is_settled: bool,
    /// The latest time that the clock has shown.
    latest: Instant,
    happened: Happened,
}

impl<'a> Sim<'a> {
    fn new(seed: u64, modules: &'a [Module]) -> Self {
        let transport =
            Unsteady { random: Random::of_seed(!seed), mood: Mood::Steady, seen: Vec::new(), refusals: 0 };
        let mut limits = HostLimits::default();
        limits.rooms = ROOMS;
        Self {
            random: Random::of_seed(seed),
            modules,
            host: Host::with_limits(ManualClock::new(), transport, limits),
            models: BTreeMap::new(),
            is_settled: true,
            latest: Instant::ZERO,
            happened: Happened::default(),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..7 => self.open(),
            7..20 => self.let_come(),
            20..25 => self.let_go(),
            25..64 => self.tell(),
            64..84 => self.poll_a_little(),
            84..92 => self.change_the_time(),
            92..96 => self.change_the_mood(),
            96 => self.close(),
            _ => self.settle(),
        }
    }

    fn open(&mut self) {
        let id = ["", "a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"][self.random.below(8)];
        let module = &self.modules[self.random.below(self.modules.len())];
        match self.host.open(id, module) {
            Ok(key) => {
                assert!(self.models.len() < ROOMS);
                assert!(self.models.values().all(|model| model.id != id));
                assert!(self.models.insert(key, Model::new(id)).is_none(), "keys are not used twice");
            }
            Err(OpenError::IdTaken) => assert!(self.models.values().any(|model| model.id == id)),
            Err(OpenError::TooManyRooms { limit }) => assert_eq!((limit, self.models.len()), (ROOMS, ROOMS)),
            Err(error) => panic!("{error}"),
        }
    }

    fn any_room(&mut self) -> Option<RoomKey> {
        let at = self.random.below(self.models.len().max(1));
        self.models.keys().nth(at).copied()
    }

    fn any_client(&mut self) -> u32 {
        1 + self.random.below(MAX_CLIENTS + 2) as u32
    }

    fn let_come(&mut self) {
        let client = self.any_client();
        self.hand_over(Event::Connect(ClientId(client)), Taken::Connect(client));
    }

    fn let_go(&mut self) {
        let client = self.any_client();
        self.hand_over(Event::Disconnect(ClientId(client)), Taken::Disconnect(client));
    }

    fn tell(&mut self) {
        let client = self.any_client();
        if self.random.below(4) == 0 {
            let text = "text".repeat(self.random.below(5));
            self.hand_over(
                Event::message(ClientId(client), text.as_str()),
                Taken::Text(client, text.clone()),
            );
            return;
        }
        let count = self.random.below(7);
        let ops: Vec<Op> = (0..count).map(|_| Op::random(&mut self.random)).collect();
        let bytes: Vec<u8> = ops.iter().flat_map(|op| op.words()).flat_map(u32::to_le_bytes).collect();
        self.hand_over(Event::message(ClientId(client), bytes.as_slice()), Taken::Ops(client, ops));
    }

    /// Hands a room an event, which takes it if it must.
    fn hand_over(&mut self, event: Event<'_>, taken: Taken) {
        let Some(key) = self.any_room() else { return };
        let model = self.models.get_mut(&key).expect("there is such a room");
        let room = self.host.room(key).expect("it was not reported closed");
        let waiting = room.stats().waiting_events;
        let expected = match room.is_closed() {
            true => Err(EventError::Closed),
            false => model.expected(&event),
        };
        let answer = self.host.handle_event(key, event);
        if answer == Err(EventError::InboxFull) {
            assert_eq!(expected, Ok(()));
            assert!(waiting >= MAX_WAITING, "only {waiting} wait");
            assert!(!matches!(event, Event::Disconnect(_)), "who leaves is never turned away");
            self.happened.full_inboxes += 1;
            return;
        }
        assert_eq!(answer, expected);
        if answer.is_ok() {
            // One more may be what the guest is in the middle of.
            assert!(waiting <= MAX_WAITING || matches!(event, Event::Disconnect(_)), "{waiting} wait");
            model.take(taken);
        }
    }

    fn poll_a_little(&mut self) {
        let budget = match self.random.below(4) {
            0 => Budget::fuel(0),
            1 => Budget::fuel(self.random.below(3_000) as u64),
            2 => Budget::until(self.host.clock().now()),
            _ => Budget::UNLIMITED,
        };
        self.poll(budget);
        self.is_settled = false;
    }

    fn poll(&mut self, budget: Budget) -> Option<Instant> {
        let wake_at = self.host.poll(budget);
        assert_eq!(self.host.poll_timeout(), wake_at);
        self.look();
        wake_at
    }

    /// Compares what was seen of the rooms with the models.
    fn look(&mut self) {
        let at = (self.is_settled && self.host.clock().now() == self.latest).then_some(self.latest);
        for (key, seen) in std::mem::take(&mut self.host.transport_mut().seen) {
            let model = self.models.get_mut(&key).expect("nothing comes from a room that has ended");
            match seen {
                Seen::Connected(client) => model.connected(client),
                Seen::Said(said) => self.happened.timers += usize::from(model.said(said, at)),
            }
            assert!(model.now <= self.latest);
        }
        while let Some(closed) = self.host.poll_closed() {
            let model = self.models.remove(&closed.key).expect("a room ends once");
            model.ended(&closed);
            self.happened.faults += usize::from(closed.fault.is_some());
            self.happened.cut_off_events += usize::from(!model.to_say.is_empty());
        }
        for (key, room) in self.host.rooms() {
            let stats = room.stats();
            assert!(self.models.contains_key(&key));
            assert!(stats.memory_bytes <= MAX_PAGES as usize * PAGE);
            assert!(stats.waiting_events <= MAX_WAITING + 1 + MAX_CLIENTS);
        }
    }

    fn change_the_time(&mut self) {
        let now = self.host.clock().now();
        let millis = |random: &mut Random| Duration::from_millis(random.below(60) as u64);
        let new = match self.random.below(10) {
            0 => {
                let back = millis(&mut self.random).as_nanos() as u64;
                Instant::from_nanos(now.as_nanos().saturating_sub(back))
            }
            1 => now + Duration::from_secs(3600),
            // To the nanosecond.
            2..6 => self.models.values().filter_map(|model| model.deadline).min().unwrap_or(now),
            _ => now + millis(&mut self.random),
        };
        self.happened.jumps_backwards += usize::from(new < now);
        self.latest = self.latest.max(new);
        self.host.clock().set(new);
    }

    fn change_the_mood(&mut self) {
        let mood = [Mood::Steady, Mood::Unsteady, Mood::Refusing][self.random.below(3)];
        self.host.transport_mut().mood = mood;
    }

    fn close(&mut self) {
        let Some(key) = self.any_room() else { return };
        // One that has failed has ended already, and is yet to be told of.
        if !self.host.room(key).expect("it was not reported closed").is_closed() {
            self.models.get_mut(&key).expect("there is such a room").closed_by_driver = true;
        }
        self.host.close(key);
        self.look();
    }

    /// Lets everything happen that is to happen at this time, after which nothing may be left.
    fn settle(&mut self) {
        self.host.transport_mut().mood = Mood::Steady;
        let now = self.host.clock().now();
        let wake_at = loop {
            let wake_at = self.poll(Budget::UNLIMITED);
            if wake_at.is_none_or(|at| at > now) {
                break wake_at;
            }
        };
        assert!(!self.host.is_blocked());
        self.is_settled = true;
        for (key, model) in &self.models {
            let room = self.host.room(*key).expect("it was not reported closed");
            assert!(!room.is_closed() && model.fault.is_none(), "it would have been told of");
            assert!(model.taken.is_empty() && model.to_say.is_empty(), "{:?}", model.to_say);
            assert_eq!(room.poll_timeout(), model.deadline);
            assert_eq!(room.stats().waiting_events, 0);
            assert_eq!(room.stats().memory_bytes, model.pages as usize * PAGE);
            assert!(room.clients().iter().map(|client| client.0).eq(model.clients.iter().copied()));
        }
        assert_eq!(wake_at, self.models.values().filter_map(|model| model.deadline).min());
        self.happened.refusals = self.host.transport().refusals;
    }

    fn end(&mut self) {
        self.settle();
        for key in self.models.keys().copied().collect::<Vec<_>>() {
            self.models.get_mut(&key).expect("there is such a room").closed_by_driver = true;
            self.host.close(key);
        }
        self.look();
        assert!(self.models.is_empty(), "all have ended");
        assert_eq!(self.host.rooms().len(), 0);
        assert_eq!(self.host.poll(Budget::UNLIMITED), None);
    }
}
