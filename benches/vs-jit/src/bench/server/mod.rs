//! The whole server: WebSocket echo, each server in its own process, the clients in this one.

mod client;
mod contenders;
mod idle;

pub use self::{client::Arguments, contenders::Child, idle::rows as idle_rows};

use self::{
    client::{Client, Clients, Pace, TEXT, frame},
    contenders::Process,
};
use super::{
    measure::{Effort, Figure},
    noisy_neighbour,
    table::{Bound, Goal, Group, Row, Unit},
};
use anyhow::{Context, Result};
use std::{fmt, thread, time::Duration};
use tokio::runtime;

/// A server, and the arguments of [`Child`] that start it.
struct Server {
    name: &'static str,
    arguments: Vec<&'static str>,
}

/// The servers that take turns.
fn servers() -> [Server; 5] {
    [
        (THIS_CRATE, vec!["ours", "--guest", "echo-c"]),
        (THIS_CRATE, vec!["ours", "--guest", "echo-sdk"]),
        (JIT, vec!["jit"]),
        (AXUM, vec!["axum"]),
        (AXUM_DEFAULT, vec!["axum", "--read-buffer", "131072"]),
    ]
    .map(|(name, arguments)| Server { name, arguments })
}

const THIS_CRATE: &str = "this crate";
const JIT: &str = "JIT server 0.4.4";
const AXUM: &str = "axum alone";
const AXUM_DEFAULT: &str = "axum, 128 KiB buffers";

/// The indices in [`servers`] that each table has as columns.
const C_COLUMNS: [usize; 3] = [0, 3, 4];
const SDK_COLUMNS: [usize; 3] = [1, 2, 3];

/// Throughput, latency and processor time.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let regimes = [
        (1, Group::ServerC, Group::ServerSdk),
        (cores(), Group::BusyServerC, Group::BusyServerSdk),
    ];
    // With one core, both are the same.
    for (threads, c, sdk) in regimes.into_iter().take(cores()) {
        for (connections, has_many_rooms) in [
            (1, false),
            (50, false),
            (50, true),
            (500, false),
            (500, true),
        ] {
            let load = Load {
                connections,
                has_many_rooms,
                threads,
                text: TEXT,
            };
            // One connection keeps no more than one thread busy.
            if connections >= threads {
                let turns = load.turns(&servers(), effort)?;
                rows.extend(load.rows(c, &turns, &C_COLUMNS));
                rows.extend(load.rows(sdk, &turns, &SDK_COLUMNS));
            }
        }
    }
    Ok(rows)
}

/// Two workers against one.
pub fn worker_rows(effort: Effort) -> Result<Vec<Row>> {
    const GUESTS: [(&str, &str, &str, usize); 2] = [
        ("SDK 0.4 echo", "echo-sdk", TEXT, 2),
        // Half a millisecond of computing, beside which the clients' time does not count.
        ("C guest, fib", "compute", "f", 0),
    ];
    let mut rows = Vec::new();
    for (title, guest, text, cores_of_clients) in GUESTS {
        let servers = [("two workers", "2"), ("one worker", "1")].map(|(name, workers)| Server {
            name,
            arguments: vec!["ours", "--guest", guest, "--workers", workers],
        });
        let load = Load {
            connections: 50,
            has_many_rooms: true,
            threads: cores().saturating_sub(2).max(1),
            text,
        };
        let turns = load.turns(&servers, effort)?;
        let has_cores = cores() >= 2 + cores_of_clients;
        rows.push(Row {
            title: format!("messages, {title}"),
            group: Group::ServerWorkers,
            unit: Unit::PerSecond,
            figures: figures(&turns, &[0, 1], |turn| turn.nanos_each),
            goal: has_cores.then_some(Goal {
                against: "one worker",
                bound: Bound::AtLeast(1.8),
            }),
        });
    }
    Ok(rows)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What clients do.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// Whether each connection has its own room.
    has_many_rooms: bool,
    /// Threads of clients.
    threads: usize,
    text: &'static str,
}

/// The figures of one server in one round.
struct Turn {
    /// Nanoseconds per message, over all connections together.
    nanos_each: f64,
    p50: f64,
    p99: f64,
    /// The server's processor time per message.
    processor_nanos_each: f64,
}

/// The turns of a server.
type Turns = (&'static str, Vec<Turn>);

impl Load {
    /// Measures each server in each round.
    fn turns(self, servers: &[Server], effort: Effort) -> Result<Vec<Turns>> {
        let (rounds, time) = rounds(effort);
        let mut turns: Vec<Turns> = servers
            .iter()
            .map(|server| (server.name, Vec::new()))
            .collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..servers.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let server = &servers[index];
                let turn = self.turn(server, time);
                turns[index]
                    .1
                    .push(turn.with_context(|| format!("{}, {self}", server.name))?);
            }
        }
        Ok(turns)
    }

    fn turn(self, server: &Server, time: Duration) -> Result<Turn> {
        let process = Process::start(&server.arguments)?;
        // The published server has one room.
        let has_many_rooms = self.has_many_rooms && server.arguments[0] != "jit";
        let mut clients =
            Clients::connect(process.port, self.connections, has_many_rooms, self.threads)?;
        let pace = |time| Pace {
            text: self.text,
            time,
            pause: Duration::ZERO,
        };
        // Warms up.
        clients.send(pace(time / 10))?;
        let before = process.processor_time()?;
        let replies = clients.send(pace(time))?;
        let processor_time = process.processor_time()? - before;
        Ok(Turn {
            nanos_each: replies.nanos_each(replies.elapsed),
            p50: replies.percentile(0.5),
            p99: replies.percentile(0.99),
            processor_nanos_each: replies.nanos_each(processor_time),
        })
    }

    /// A row for each figure, of these servers.
    fn rows(self, group: Group, turns: &[Turns], columns: &[usize]) -> [Row; 4] {
        let row = |what: &str, unit, value: fn(&Turn) -> f64| Row {
            title: format!("{what}, {self}"),
            group,
            unit,
            figures: figures(turns, columns, value),
            goal: None,
        };
        let is_sdk = columns == SDK_COLUMNS;
        let goal = |applies: bool, against, bound| applies.then_some(Goal { against, bound });
        [
            Row {
                goal: goal(is_sdk, JIT, Bound::AtLeast(1.0)),
                ..row("messages", Unit::PerSecond, |turn| turn.nanos_each)
            },
            row("p50 latency", Unit::Nanos, |turn| turn.p50),
            Row {
                goal: goal(is_sdk, JIT, Bound::AtMost(1.2)),
                ..row("p99 latency", Unit::Nanos, |turn| turn.p99)
            },
            Row {
                goal: goal(!is_sdk, AXUM, Bound::AtMost(1.1)),
                ..row("processor time", Unit::ProcessorNanos, |turn| {
                    turn.processor_nanos_each
                })
            },
        ]
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.connections, self.has_many_rooms) {
            (1, _) => f.write_str("1 connection"),
            (n, false) => write!(f, "{n} connections, one room"),
            (n, true) => write!(f, "{n} connections, a room each"),
        }
    }
}

/// One of the figures of these servers, of which the first is the reference.
fn figures(turns: &[Turns], columns: &[usize], value: fn(&Turn) -> f64) -> Vec<Figure> {
    let values = |column: usize| turns[column].1.iter().map(value).collect::<Vec<_>>();
    let first = values(columns[0]);
    columns
        .iter()
        .map(|column| Figure::new(turns[*column].0, values(*column), &first))
        .collect()
}

/// Fewer and longer rounds than for rows within a process.
fn rounds(effort: Effort) -> (usize, Duration) {
    match effort.rounds {
        ..10 => (3, Duration::from_millis(500)),
        10..50 => (5, Duration::from_secs(1)),
        _ => (9, Duration::from_secs(2)),
    }
}

/// Latency while another room is in an endless loop, and while none is.
pub fn noisy_neighbour_rows(effort: Effort) -> Result<Vec<Row>> {
    const CLIENTS: usize = 10;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (rounds, time) = rounds(effort);
    let pace = Pace {
        text: TEXT,
        time,
        pause: Duration::from_millis(10),
    };
    let mut contenders = [
        ("alone", Vec::new()),
        ("beside an endless loop", Vec::new()),
    ];
    for _ in 0..rounds {
        for (name, turns) in &mut contenders {
            let process = Process::start(&["noisy-neighbour"])?;
            let mut neighbour =
                runtime.block_on(Client::connect(process.port, Some("neighbour")))?;
            if *name != "alone" {
                runtime.block_on(neighbour.send(&frame(noisy_neighbour::SPIN)?))?;
            }
            let mut clients = Clients::connect(process.port, CLIENTS, true, 1)?;
            turns.push(noisy_neighbour::Latency::of(clients.send(pace)?.nanos));
        }
    }
    Ok(noisy_neighbour::latency_rows("the server", &contenders))
}
