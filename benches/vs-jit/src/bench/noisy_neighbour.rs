//! Noisy neighbour: the latency of an echo room beside a room in an endless loop.

use super::{
    measure::{Effort, Figure, percentile},
    table::{Group, Row, Unit},
};
use anyhow::Result;
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Limits, ManualClock, Module, OutputMessage, RoomKey, SendError,
    Transport,
};
use std::{convert::Infallible, time::Instant};

/// Echoes; [`SPIN`] starts an endless loop.
pub const GUEST: &str = include_str!("../../guests/endless_loop.wat");

/// The text that starts the endless loop.
pub const SPIN: &str = "S";

/// No bound for an event, but still metered, so that it is paused between slices.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_fuel_per_event = Some(u64::MAX);
    limits
}

/// The latency percentiles of one round.
pub struct Latency {
    p50: f64,
    p99: f64,
}

impl Latency {
    pub fn of(mut nanos: Vec<u32>) -> Self {
        nanos.sort_unstable();
        Self {
            p50: percentile(&nanos, 0.5),
            p99: percentile(&nanos, 0.99),
        }
    }
}

/// A host in this process that accepts an event after each slice.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let default = Limits::default().fuel_per_slice;
    let contenders = [
        ("alone", false, default),
        ("beside an endless loop", true, default),
        ("slices of 10,000", true, 10_000),
    ];
    let mut drivers = Vec::new();
    for (name, is_noisy, slice) in contenders {
        drivers.push((name, Driver::new(is_noisy, slice)?, Vec::new()));
    }
    for _ in 0..effort.rounds {
        for (_, host, latencies) in &mut drivers {
            latencies.push(Latency::of(
                (0..EVENTS).map(|_| host.echo()).collect::<Result<_>>()?,
            ));
        }
    }
    let latencies: Vec<_> = drivers
        .into_iter()
        .map(|(name, _, latencies)| (name, latencies))
        .collect();
    Ok(latency_rows("a Host", &latencies))
}

/// Events in a round: enough for a stable 99th percentile.
const EVENTS: usize = 500;

/// The rows for the two percentiles, by contender.
pub fn latency_rows(of: &str, contenders: &[(&str, Vec<Latency>)]) -> Vec<Row> {
    let row = |what: &str, value: fn(&Latency) -> f64| {
        let values = |latencies: &[Latency]| latencies.iter().map(value).collect::<Vec<_>>();
        let first = values(&contenders[0].1);
        let figures = contenders
            .iter()
            .map(|(name, latencies)| Figure::new(name, values(latencies), &first));
        Row {
            title: format!("{what} latency, {of}"),
            group: Group::NoisyNeighbour,
            unit: Unit::Nanos,
            figures: figures.collect(),
            goal: None,
        }
    };
    vec![
        row("p50", |latency| latency.p50),
        row("p99", |latency| latency.p99),
    ]
}

/// The loop of a driver: incoming events, one slice, and again.
struct Driver {
    host: Host<ManualClock, CountingTransport>,
    echo: RoomKey,
}

/// Counts outputs.
#[derive(Default)]
struct CountingTransport(u64);

impl Transport for CountingTransport {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        self.0 += 1;
        Ok(())
    }
}

impl Driver {
    fn new(is_noisy: bool, fuel_per_slice: u64) -> Result<Self> {
        let mut limits = limits();
        limits.fuel_per_slice = fuel_per_slice;
        let module = Module::load(&wat::parse_str(GUEST)?, &limits)?;
        let mut host = Host::new(ManualClock::new(), CountingTransport::default());
        let echo = host.open("echo", &module)?;
        let neighbour = host.open("neighbour", &module)?;
        for room in [echo, neighbour] {
            host.enqueue(room, Event::Connect(ClientId(1)))?;
        }
        host.poll(Budget::UNLIMITED);
        if is_noisy {
            host.enqueue(neighbour, Event::message(ClientId(1), SPIN))?;
            host.poll(SLICE);
        }
        Ok(Self { host, echo })
    }

    /// The latency of an echo, in nanoseconds, sent when the other room's slice is next.
    fn echo(&mut self) -> Result<u32> {
        let before = self.host.transport().0;
        let start = Instant::now();
        self.host
            .enqueue(self.echo, Event::message(ClientId(1), "0123456789abcdef"))?;
        while self.host.transport().0 == before {
            self.host.poll(SLICE);
        }
        Ok(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX))
    }
}

/// One slice of one room.
const SLICE: Budget = Budget::fuel(1);
