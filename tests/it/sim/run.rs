//! What happens: a host, its clock and its transport, and what is done with them.

use super::{
    coverage::{Happened, Happening},
    faulty_transport::{Mood, Seen, Unsteady},
    guest::{MAX_CLIENTS, MAX_WAITING, Op},
    model::Model,
    reference_guest::Told,
};
use crate::support::Random;
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Clock, Event, EventError, FaultPolicy, Host, HostLimits, Instant,
    ManualClock, Module, OpenError, RoomKey, RoomOptions,
};
use std::{collections::BTreeMap, time::Duration};

const ROOMS: usize = 6;

pub struct Sim<'a> {
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
    pub fn new(seed: u64, modules: &'a [Module]) -> Self {
        let mut limits = HostLimits::default();
        limits.max_rooms = ROOMS;
        let transport = Unsteady::new(Random::of_seed(!seed));
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

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..7 => self.open(),
            7..20 => self.let_come(),
            20..28 => self.let_go(),
            28..64 => self.tell(),
            64..84 => self.poll_a_little(),
            84..92 => self.change_the_time(),
            92..96 => self.change_the_mood(),
            96..98 => self.close(),
            _ => self.settle(),
        }
    }

    /// Closes what is left, and answers what has happened.
    pub fn end(mut self) -> Happened {
        self.settle();
        for key in self.models.keys().copied().collect::<Vec<_>>() {
            self.models
                .get_mut(&key)
                .expect("there is such a room")
                .closed_by_driver = true;
            self.host.close(key).expect("the room is open");
        }
        self.look();
        assert!(self.models.is_empty(), "all have ended");
        assert_eq!(self.host.rooms().len(), 0);
        assert_eq!(self.host.poll(Budget::UNLIMITED), None);
        self.happened
            .add(std::mem::take(&mut self.host.transport_mut().happened));
        self.happened
    }

    fn open(&mut self) {
        let id =
            ["", "a", "bb", "ccc", "dddd", "eeeee", "ffffff", "is moody"][self.random.below(8)];
        let module = &self.modules[self.random.below(self.modules.len())];
        let opened_at = self.host.clock().now();
        let options = RoomOptions::new()
            .seed(self.random.next())
            .on_fault(any_policy(&mut self.random));
        match self.host.open_with(id, module, options) {
            Ok(key) => {
                assert!(self.models.len() < ROOMS);
                assert!(self.models.values().all(|model| model.id != id));
                let before = self
                    .models
                    .insert(key, Model::new(id, module, options, opened_at));
                assert!(before.is_none(), "keys are not used twice");
            }
            Err(OpenError::IdTaken) => assert!(self.models.values().any(|model| model.id == id)),
            Err(OpenError::TooManyRooms { limit }) => {
                assert_eq!((limit, self.models.len()), (ROOMS, ROOMS))
            }
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
        self.hand_over(Event::Connect(ClientId(client)), Told::Connect(client));
    }

    fn let_go(&mut self) {
        let client = self.any_client();
        self.hand_over(
            Event::Disconnect(ClientId(client)),
            Told::Disconnect(client),
        );
    }

    fn tell(&mut self) {
        let client = self.any_client();
        if self.random.below(4) == 0 {
            let text = "text".repeat(self.random.below(5));
            self.hand_over(
                Event::message(ClientId(client), text.as_str()),
                Told::Text(client, text.clone()),
            );
            return;
        }
        let count = self.random.below(7);
        let ops: Vec<Op> = (0..count).map(|_| Op::random(&mut self.random)).collect();
        let bytes: Vec<u8> = ops
            .iter()
            .flat_map(|op| op.words())
            .flat_map(u32::to_le_bytes)
            .collect();
        self.hand_over(
            Event::message(ClientId(client), bytes.as_slice()),
            Told::Ops(client, ops),
        );
    }

    /// Hands a room an event, which takes it if it must.
    fn hand_over(&mut self, event: Event<'_>, told: Told) {
        let Some(key) = self.any_room() else { return };
        let model = self.models.get_mut(&key).expect("there is such a room");
        let room = self.host.room(key).expect("it was not reported closed");
        let waiting = room.stats().waiting_events;
        // One more may be what the guest is in the middle of, if there is one.
        let most = MAX_WAITING + usize::from(!room.is_restarting());
        let expected = match room.is_closed() {
            true => Err(EventError::Closed),
            false => model.expected(&event),
        };
        let is_bounded = !matches!(event, Event::Disconnect(_));
        let answer = self.host.enqueue(key, event);
        if answer == Err(EventError::InboxFull) {
            assert_eq!(expected, Ok(()));
            assert!(waiting >= MAX_WAITING, "only {waiting} wait");
            assert!(is_bounded, "who leaves is never turned away");
            self.happened.count(Happening::FullInbox);
            return;
        }
        assert_eq!(answer, expected);
        if answer.is_ok() {
            assert!(waiting < most || !is_bounded, "{waiting} wait");
            model.take(told);
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
        let now = self.host.clock().now();
        let at = (self.is_settled && now == self.latest).then_some(now);
        for (key, seen) in std::mem::take(&mut self.host.transport_mut().seen) {
            let model = self
                .models
                .get_mut(&key)
                .expect("nothing comes from a room that has ended");
            match seen {
                Seen::Connected(client) => model.connected(client),
                Seen::Said(said) => model.said(&said, at.map(|at| model.room_time(at))),
            }
        }
        assert_eq!(self.host.rooms().len(), self.models.len());
        for (key, model) in &mut self.models {
            let room = self.host.room(*key).expect("it was not reported closed");
            model.look(room, model.room_time(now), model.room_time(self.latest));
        }
        while let Some(closed) = self.host.poll_closed() {
            let mut model = self.models.remove(&closed.key).expect("a room ends once");
            model.ended(&closed);
            self.happened.add(model.happened);
        }
    }

    fn change_the_time(&mut self) {
        let now = self.host.clock().now();
        let millis = |random: &mut Random| Duration::from_millis(random.below(60) as u64);
        let next = self
            .host
            .rooms()
            .filter_map(|(key, room)| Some(self.models[&key].host_time(room.poll_timeout()?)))
            .min()
            .unwrap_or(now);
        let new = match self.random.below(10) {
            0 => {
                let back = millis(&mut self.random).as_nanos() as u64;
                Instant::from_nanos(now.as_nanos().saturating_sub(back))
            }
            1 => now + Duration::from_secs(3600),
            2..6 => next,
            6 => Instant::from_nanos(next.as_nanos().saturating_sub(1)),
            _ => now + millis(&mut self.random),
        };
        if new < now {
            self.happened.count(Happening::JumpBackwards);
        }
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
        if !self
            .host
            .room(key)
            .expect("it was not reported closed")
            .is_closed()
        {
            self.models
                .get_mut(&key)
                .expect("there is such a room")
                .closed_by_driver = true;
        }
        self.host.close(key).expect("the room is open");
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
        for (key, model) in &mut self.models {
            let room = self.host.room(*key).expect("it was not reported closed");
            model.settled(room, model.room_time(now));
        }
        assert_eq!(
            wake_at,
            self.models
                .values()
                .filter_map(|model| Some(model.host_time(model.wake_at()?)))
                .min()
        );
    }
}

fn any_policy(random: &mut Random) -> FaultPolicy {
    let mut millis = |end: usize| Duration::from_millis(1 + random.below(end) as u64);
    let (first, longest) = (millis(20), millis(100));
    match random.below(5) {
        0 => FaultPolicy::Close,
        #[cfg(feature = "rollback")]
        1 | 2 => FaultPolicy::Rollback,
        _ => FaultPolicy::Restart(Backoff {
            first,
            longest,
            restarts: random.below(7) as u32,
        }),
    }
}
