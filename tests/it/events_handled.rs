//! Each event that a room accepts is counted as over once, whatever becomes of it: random rooms that
//! fail, restart, continue, roll back, close and are discarded, behind a transport that refuses.

use crate::support::{ENV, Random, SAY, assemble, guest_0_2, limits};
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Clock, ClosedRoom, Event, FaultPolicy, Host, Instant, LoadOptions,
    ManualClock, Module, OutputMessage, RoomKey, RoomOptions, SendError, Transport,
};
use std::{collections::BTreeSet, time::Duration};

const RUNS: u64 = 500;

/// Says something at each event, and does what the first byte of a message says: 1 fails, 2 takes
/// several slices, 3 both; 4 sets a timer, and 5 one that fails; 6 makes connects fail and 7
/// disconnects. The connect of client 8 always fails.
fn moody() -> String {
    let say_and = |more: &str| format!("(call $say (i32.const 1)) {more}");
    let fail_if =
        |flag: &str| format!("(if (global.get {flag}) (then (call $spin) (unreachable)))");
    let when = |byte: u32, what: &str| {
        format!("(if (i32.eq (local.get 3) (i32.const {byte})) (then {what}))")
    };
    let set = |flag: &str| format!("(global.set {flag} (i32.const 1))");
    let binary = [
        "(local i32) (call $say (i32.const 1)) (local.set 3 (i32.load8_u (local.get 1)))"
            .to_owned(),
        when(1, "(unreachable)"),
        when(2, "(call $spin)"),
        when(3, "(call $spin) (unreachable)"),
        when(4, "(call $set_timer (i32.const 3))"),
        when(
            5,
            &format!("(call $set_timer (i32.const 1)) {}", set("$timer")),
        ),
        when(6, &set("$connect")),
        when(7, &set("$disconnect")),
    ];
    let connect =
        fail_if("$connect") + "(if (i32.eq (local.get 0) (i32.const 8)) (then (unreachable)))";
    let exports = [
        ("initialize", say_and("(call $spin)")),
        ("connect", say_and(&connect)),
        ("disconnect", say_and(&fail_if("$disconnect"))),
        ("timer", say_and(&fail_if("$timer"))),
        ("binary", binary.concat()),
    ];
    let more = "(global $timer (mut i32) (i32.const 0))
        (global $connect (mut i32) (i32.const 0))
        (global $disconnect (mut i32) (i32.const 0))
        (func $spin (local i32)
            (local.set 0 (i32.const 400))
            (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))";
    let exports = exports.each_ref().map(|(name, body)| (*name, &**body));
    guest_0_2(ENV, &exports, &format!("{SAY} {more}"))
}

fn load() -> Module {
    let limits = limits(|limits| {
        limits.fuel_per_slice = 300;
        limits.max_inbox_events = 6;
        limits.max_inbox_bytes = 64;
        limits.max_message_bytes = 40;
    });
    let options = LoadOptions::new();
    #[cfg(feature = "snapshot")]
    let options = options.snapshots(true);
    Module::load_with(&assemble(&moody()), &limits, options).expect("the guest fits the ABI")
}

fn any_policy(random: &mut Random) -> FaultPolicy {
    let mut ms = |below| Duration::from_millis(random.below(below) as u64);
    let (first, longest) = (ms(3), ms(5));
    match random.below(4) {
        0 => FaultPolicy::Close,
        1 => FaultPolicy::Continue,
        #[cfg(feature = "snapshot")]
        2 => FaultPolicy::Rollback,
        _ => FaultPolicy::Restart(Backoff {
            first,
            longest,
            restarts: random.below(5) as u32,
        }),
    }
}

/// Refuses outputs with this probability, in percent.
struct Refusing(usize, Random);

impl Refusing {
    fn take(&mut self) -> Result<(), SendError<&'static str>> {
        match self.1.below(100) < self.0 {
            true => Err(SendError::WouldBlock),
            false => Ok(()),
        }
    }
}

impl Transport for Refusing {
    type Error = &'static str;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<&'static str>> {
        self.take()
    }

    fn connected(&mut self, _: RoomKey, _: ClientId) -> Result<(), SendError<&'static str>> {
        self.take()
    }

    fn disconnected(&mut self, _: RoomKey, _: ClientId) -> Result<(), SendError<&'static str>> {
        self.take()
    }
}

/// What a room has accepted.
struct Accepted {
    key: RoomKey,
    events: u64,
    clients: BTreeSet<ClientId>,
}

struct Run<'a> {
    random: Random,
    clock: &'a ManualClock,
    host: Host<&'a ManualClock, Refusing>,
    rooms: Vec<Accepted>,
    opened: usize,
}

impl Run<'_> {
    fn step(&mut self, module: &Module) {
        let Self {
            random,
            clock,
            host,
            ..
        } = self;
        match random.below(20) {
            0 if self.rooms.len() < 4 => {
                let options = RoomOptions::new().on_fault(any_policy(random));
                self.opened += 1;
                let key = host.open_with(&self.opened.to_string(), module, options);
                self.rooms.push(Accepted {
                    key: key.expect("the room opens"),
                    events: 0,
                    clients: BTreeSet::new(),
                });
            }
            1 => clock.advance(Duration::from_millis(random.below(10) as u64)),
            2 => {
                let back = random.below(8_000_000) as u64;
                clock.set(Instant::from_nanos(
                    clock.now().as_nanos().saturating_sub(back),
                ));
            }
            3 => self.poll_closed(),
            4..=8 => {
                let fuel = random.below(2000) as u64;
                let budget = [Budget::UNLIMITED, Budget::fuel(fuel)][random.below(2)];
                host.poll(budget);
            }
            kind if !self.rooms.is_empty() => {
                let room = random.below(self.rooms.len());
                match (kind, random.below(4)) {
                    (9, 0) => host.close(self.rooms[room].key).expect("the room is open"),
                    (10, 0) => {
                        let closed = host.discard(self.rooms[room].key);
                        self.check_closed(&closed.expect("the room is open"));
                    }
                    _ => self.enqueue(room),
                }
            }
            _ => {}
        }
    }

    fn enqueue(&mut self, room: usize) {
        let Self { random, host, .. } = self;
        let Accepted {
            key,
            events,
            clients,
        } = &mut self.rooms[room];
        let client = ClientId(1 + random.below(8) as u32);
        let len = 1 + random.below(30);
        let mut payload = random.bytes(len);
        payload[0] = [0, 0, random.below(8) as u8][random.below(3)];
        let event = match random.below(4) {
            0 => Event::Connect(client),
            1 => Event::Disconnect(client),
            _ => Event::message(client, &payload[..]),
        };
        if host.enqueue(*key, event).is_ok() {
            *events += 1;
            match event {
                Event::Connect(_) => drop(clients.insert(client)),
                Event::Disconnect(_) => drop(clients.remove(&client)),
                Event::Message(..) => {}
            }
        }
    }

    fn poll_closed(&mut self) {
        while let Some(closed) = self.host.poll_closed() {
            self.check_closed(&closed);
        }
    }

    fn check_closed(&mut self, closed: &ClosedRoom) {
        let index = self.rooms.iter().position(|room| room.key == closed.key);
        let accepted = self.rooms.swap_remove(index.expect("a room ends once"));
        assert_eq!(closed.stats.events_handled, accepted.events, "{closed:?}");
        assert_eq!(closed.stats.waiting_events, 0);
        assert!(accepted.clients.iter().eq(&closed.clients));
        assert!(self.host.discard(closed.key).is_err());
    }

    /// Lets the rooms do what is left; then all events are over.
    fn settle(&mut self) {
        self.host.transport_mut().0 = 0;
        for polls in 0.. {
            assert!(polls < 1000, "the rooms come to rest");
            self.clock.advance(Duration::from_millis(50));
            self.host.poll(Budget::UNLIMITED);
            self.poll_closed();
            let mut rooms = self.host.rooms();
            if rooms.all(|(_, room)| !room.is_restarting() && !room.is_runnable()) {
                break;
            }
        }
        assert!(!self.host.is_blocked());
        for Accepted { key, events, .. } in &self.rooms {
            let stats = self.host.room(*key).expect("the room is open").stats();
            assert_eq!(stats.events_handled, *events);
            assert_eq!(stats.waiting_events, 0);
        }
    }
}

#[test]
fn each_accepted_event_is_over_once() {
    let module = load();
    let first = Random::given_seed();
    for seed in first.map_or(0..RUNS, |seed| seed..seed + 1) {
        println!("TEST_SEED={seed}");
        let mut random = Random::of_seed(seed);
        let clock = ManualClock::new();
        clock.set(Instant::from_millis(random.below(1000) as u64));
        let refusals = [0, 30, 90, 100][random.below(4)];
        let transport = Refusing(refusals, Random::of_seed(!seed));
        let mut run = Run {
            host: Host::new(&clock, transport),
            random,
            clock: &clock,
            rooms: Vec::new(),
            opened: 0,
        };
        for _ in 0..200 {
            run.step(&module);
        }
        run.settle();
    }
}
