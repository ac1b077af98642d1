//! An echo room beside one that spins for ever: how long its answers take.

use super::{
    measure::{Effort, Figure, percentile},
    table::{Group, Row, Unit},
};
use anyhow::Result;
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Limits, ManualClock, Module, Output, RoomKey, SendError,
    Transport,
};
use std::{convert::Infallible, time::Instant};

/// Echoes, but spins for ever when it is told to.
pub const GUEST: &str = include_str!("../../guests/hog.wat");

/// What makes the guest spin.
pub const SPIN: &str = "S";

/// An event may take as long as it likes, and is metered all the same, so that it can be paused.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_fuel_per_event = Some(u64::MAX);
    limits
}

/// The percentiles of one turn.
pub struct Turn {
    p50: f64,
    p99: f64,
}

impl Turn {
    pub fn of(mut nanos: Vec<u32>) -> Self {
        nanos.sort_unstable();
        Self {
            p50: percentile(&nanos, 0.5),
            p99: percentile(&nanos, 0.99),
        }
    }
}

/// A host of this process, that takes an event in after each slice.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let default = Limits::default().fuel_per_slice;
    let contenders = [
        ("alone", false, default),
        ("beside a hog", true, default),
        ("slices of 10,000", true, 10_000),
    ];
    let mut loops = Vec::new();
    for (name, spins, slice) in contenders {
        loops.push((name, Loop::new(spins, slice)?, Vec::new()));
    }
    for _ in 0..effort.rounds {
        for (_, host, turns) in &mut loops {
            turns.push(Turn::of(
                (0..EVENTS).map(|_| host.echo()).collect::<Result<_>>()?,
            ));
        }
    }
    let turns: Vec<_> = loops
        .into_iter()
        .map(|(name, _, turns)| (name, turns))
        .collect();
    Ok(latencies("a Host", &turns))
}

/// Events in a round: enough that the worst of a hundred is a matter of course.
const EVENTS: usize = 500;

/// Two rows of what was measured, by contender.
pub fn latencies(of: &str, contenders: &[(&str, Vec<Turn>)]) -> Vec<Row> {
    let row = |what: &str, value: fn(&Turn) -> f64| {
        let values = |turns: &[Turn]| turns.iter().map(value).collect::<Vec<_>>();
        let first = values(&contenders[0].1);
        let figures = contenders
            .iter()
            .map(|(name, turns)| Figure::new(name, values(turns), &first));
        Row {
            title: format!("{what} latency, {of}"),
            group: Group::Hog,
            unit: Unit::Nanos,
            figures: figures.collect(),
        }
    };
    vec![row("p50", |turn| turn.p50), row("p99", |turn| turn.p99)]
}

/// The loop of a driver: what has come in, one slice, and again.
struct Loop {
    host: Host<ManualClock, Heard>,
    echo: RoomKey,
}

/// Counts what is sent.
#[derive(Default)]
struct Heard(u64);

impl Transport for Heard {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: Output<'_>) -> Result<(), SendError<Infallible>> {
        self.0 += 1;
        Ok(())
    }
}

impl Loop {
    fn new(spins: bool, fuel_per_slice: u64) -> Result<Self> {
        let mut limits = limits();
        limits.fuel_per_slice = fuel_per_slice;
        let module = Module::load(&wat::parse_str(GUEST)?, &limits)?;
        let mut host = Host::new(ManualClock::new(), Heard::default());
        let [echo, hog] = [host.open("echo", &module)?, host.open("hog", &module)?];
        for room in [echo, hog] {
            host.handle_event(room, Event::Connect(ClientId(1)))?;
        }
        host.poll(Budget::UNLIMITED);
        if spins {
            host.handle_event(hog, Event::message(ClientId(1), SPIN))?;
            host.poll(SLICE);
        }
        Ok(Self { host, echo })
    }

    /// How long an answer takes, from the moment at which the other room is about to have its slice.
    fn echo(&mut self) -> Result<u32> {
        let before = self.host.transport().0;
        let start = Instant::now();
        self.host
            .handle_event(self.echo, Event::message(ClientId(1), "0123456789abcdef"))?;
        while self.host.transport().0 == before {
            self.host.poll(SLICE);
        }
        Ok(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX))
    }
}

/// The turn of one room.
const SLICE: Budget = Budget::fuel(1);
