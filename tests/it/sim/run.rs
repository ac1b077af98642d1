//! One simulation run: a host with its clock and transport, and random steps on them.

use super::{
    coverage::{CoverPoint, Coverage},
    faulty_transport::{FaultMode, FaultyTransport, Observation},
    guest::{MAX_CLIENTS, MAX_WAITING, Op},
    model::Model,
    reference_guest::GuestEvent,
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
    host: Host<ManualClock, FaultyTransport>,
    models: BTreeMap<RoomKey, Model>,
    /// Whether no work was left after the last poll.
    is_settled: bool,
    /// The latest time that the clock has shown.
    latest: Instant,
    coverage: Coverage,
}

impl<'a> Sim<'a> {
    pub fn new(seed: u64, modules: &'a [Module]) -> Self {
        let mut limits = HostLimits::default();
        limits.max_rooms = ROOMS;
        let transport = FaultyTransport::new(Random::of_seed(!seed));
        Self {
            random: Random::of_seed(seed),
            modules,
            host: Host::with_limits(ManualClock::new(), transport, limits),
            models: BTreeMap::new(),
            is_settled: true,
            latest: Instant::ZERO,
            coverage: Coverage::default(),
        }
    }

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..7 => self.open(),
            7..20 => self.connect_client(),
            20..28 => self.disconnect_client(),
            28..64 => self.send_message(),
            64..84 => self.poll_within_budget(),
            84..92 => self.change_time(),
            92..96 => self.change_fault_mode(),
            96..98 => self.close(),
            _ => self.settle(),
        }
    }

    /// Closes the remaining rooms and returns the coverage.
    pub fn end(mut self) -> Coverage {
        self.settle();
        for key in self.models.keys().copied().collect::<Vec<_>>() {
            self.models
                .get_mut(&key)
                .expect("the room has a model")
                .closed_by_driver = true;
            self.host.close(key).expect("the room is open");
        }
        self.check_rooms();
        assert!(self.models.is_empty(), "every room was reported closed");
        assert_eq!(self.host.rooms().len(), 0);
        assert_eq!(self.host.poll(Budget::UNLIMITED), None);
        self.coverage
            .add(std::mem::take(&mut self.host.transport_mut().coverage));
        self.coverage
    }

    fn open(&mut self) {
        let id =
            ["", "a", "bb", "ccc", "dddd", "eeeee", "ffffff", "is flaky"][self.random.below(8)];
        let module = &self.modules[self.random.below(self.modules.len())];
        let opened_at = self.host.clock().now();
        // The guest sends the wall time, from which the model knows `now`.
        let options = RoomOptions::new()
            .seed(self.random.next())
            .unix_time_at_zero(Duration::ZERO)
            .on_fault(any_policy(&mut self.random));
        match self.host.open_with(id, module, options) {
            Ok(key) => {
                assert!(self.models.len() < ROOMS);
                assert!(self.models.values().all(|model| model.id != id));
                let before = self
                    .models
                    .insert(key, Model::new(id, module, options, opened_at));
                assert!(before.is_none(), "keys are not reused");
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

    fn connect_client(&mut self) {
        let client = self.any_client();
        self.give(
            Event::Connect(ClientId(client)),
            GuestEvent::Connect(client),
        );
    }

    fn disconnect_client(&mut self) {
        let client = self.any_client();
        self.give(
            Event::Disconnect(ClientId(client)),
            GuestEvent::Disconnect(client),
        );
    }

    fn send_message(&mut self) {
        let client = self.any_client();
        if self.random.below(4) == 0 {
            let text = "text".repeat(self.random.below(5));
            self.give(
                Event::message(ClientId(client), text.as_str()),
                GuestEvent::Text(client, text.clone()),
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
        self.give(
            Event::message(ClientId(client), bytes.as_slice()),
            GuestEvent::Ops(client, ops),
        );
    }

    /// Gives an event to a random room, and checks whether it accepts it.
    fn give(&mut self, event: Event<'_>, guest_event: GuestEvent) {
        let Some(key) = self.any_room() else { return };
        let model = self.models.get_mut(&key).expect("the room has a model");
        let room = self
            .host
            .room(key)
            .expect("the room was not reported closed");
        let waiting = room.stats().waiting_events;
        // One more may be the event that the guest is in.
        let most = MAX_WAITING + usize::from(!room.is_restarting());
        let expected = match room.is_closed() {
            true => Err(EventError::Closed),
            false => model.expected(&event),
        };
        let is_bounded = !matches!(event, Event::Disconnect(_));
        let result = self.host.enqueue(key, event);
        if result == Err(EventError::InboxFull) {
            assert_eq!(expected, Ok(()));
            assert!(waiting >= MAX_WAITING, "only {waiting} wait");
            assert!(is_bounded, "a disconnect is never refused");
            self.coverage.count(CoverPoint::InboxFull);
            return;
        }
        assert_eq!(result, expected);
        if result.is_ok() {
            assert!(waiting < most || !is_bounded, "{waiting} wait");
            model.accept(guest_event);
        }
    }

    fn poll_within_budget(&mut self) {
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
        self.check_rooms();
        wake_at
    }

    /// Compares the observations of the transport and the rooms with the models.
    fn check_rooms(&mut self) {
        let now = self.host.clock().now();
        let at = (self.is_settled && now == self.latest).then_some(now);
        for (key, observed) in std::mem::take(&mut self.host.transport_mut().observed) {
            let model = self
                .models
                .get_mut(&key)
                .expect("a closed room sends nothing");
            match observed {
                Observation::Connected(client) => model.on_connected(client),
                Observation::Output(output) => {
                    model.on_output(&output, at.map(|at| model.room_time(at)))
                }
            }
        }
        assert_eq!(self.host.rooms().len(), self.models.len());
        for (key, model) in &mut self.models {
            let room = self
                .host
                .room(*key)
                .expect("the room was not reported closed");
            model.check(room, model.room_time(now), model.room_time(self.latest));
        }
        while let Some(closed) = self.host.poll_closed() {
            let mut model = self
                .models
                .remove(&closed.key)
                .expect("a room is reported closed once");
            model.on_closed(&closed);
            self.coverage.add(model.coverage);
        }
    }

    fn change_time(&mut self) {
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
            self.coverage.count(CoverPoint::ClockWentBackwards);
        }
        self.latest = self.latest.max(new);
        self.host.clock().set(new);
    }

    fn change_fault_mode(&mut self) {
        let fault_mode =
            [FaultMode::Reliable, FaultMode::Flaky, FaultMode::Refusing][self.random.below(3)];
        self.host.transport_mut().fault_mode = fault_mode;
    }

    fn close(&mut self) {
        let Some(key) = self.any_room() else { return };
        // One that has failed is closed already, and is yet to be reported.
        if !self
            .host
            .room(key)
            .expect("the room was not reported closed")
            .is_closed()
        {
            self.models
                .get_mut(&key)
                .expect("the room has a model")
                .closed_by_driver = true;
        }
        self.host.close(key).expect("the room is open");
        self.check_rooms();
    }

    /// Polls until no work is left at the current time.
    fn settle(&mut self) {
        self.host.transport_mut().fault_mode = FaultMode::Reliable;
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
            let room = self
                .host
                .room(*key)
                .expect("the room was not reported closed");
            model.check_settled(room, model.room_time(now));
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
    match random.below(6) {
        0 => FaultPolicy::Close,
        1 => FaultPolicy::Continue,
        #[cfg(feature = "snapshot")]
        2 | 3 => FaultPolicy::Rollback,
        _ => FaultPolicy::Restart(Backoff {
            first,
            longest,
            restarts: random.below(7) as u32,
        }),
    }
}
