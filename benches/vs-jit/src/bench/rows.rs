//! The rows measured within one process.

use super::{
    measure::{Contender, Effort, Figure, interleaved},
    table::{Group, Row, Unit},
};
use crate::{
    engines,
    jit::{Jit02, Jit04},
    runtime::{Event, Module, OutputCounter, Room, Runtime},
    wasmi_host::WasmiHost,
};
use stateroom_wasmi_host::{Compilation, PayloadBuffer};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

/// A guest of some rows.
#[derive(Clone, Copy)]
pub struct Guest {
    id: &'static str,
    pub title: &'static str,
    file: &'static str,
    is_0_4: bool,
}

const ECHO_0_2: Guest = Guest {
    id: "0.2",
    title: "SDK 0.2",
    file: "echo-rust-0.2",
    is_0_4: false,
};
pub const ECHO_0_4: Guest = Guest {
    id: "0.4",
    title: "SDK 0.4",
    file: "echo-rust-0.4",
    is_0_4: true,
};
pub const ECHO_C: Guest = Guest {
    id: "c",
    title: "C",
    file: "echo-c",
    is_0_4: false,
};
const COUNTER_0_2: Guest = Guest {
    file: "counter-rust-0.2",
    ..ECHO_0_2
};
const COUNTER_0_4: Guest = Guest {
    file: "counter-rust-0.4",
    ..ECHO_0_4
};
const COUNTER_C: Guest = Guest {
    file: "counter-c",
    ..ECHO_C
};
pub const COMPUTE: Guest = Guest {
    id: "compute",
    title: "C",
    file: "compute",
    is_0_4: false,
};

impl Guest {
    pub fn path(self) -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = if self.id == "compute" {
            "guests/wasm"
        } else {
            "../../examples/rooms/wasm"
        };
        here.join(folder).join(format!("{}.wasm", self.file))
    }

    pub fn wasm(self) -> Vec<u8> {
        let path = self.path();
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// This crate and its JIT host.
    pub fn hosts(self) -> [(&'static str, Box<dyn Runtime>); 2] {
        let jit: (_, Box<dyn Runtime>) = match self.is_0_4 {
            true => ("JIT 0.4.4", Box::new(Jit04)),
            false => ("JIT 0.2.9", Box::new(Jit02)),
        };
        [(THIS_CRATE, Box::new(WasmiHost::room())), jit]
    }

    /// The runtimes that can run it: its hosts first.
    fn runtimes(self) -> Vec<(&'static str, Box<dyn Runtime>)> {
        let mut runtimes = Vec::from(self.hosts());
        if !self.is_0_4 {
            runtimes.push(("wasmi alone", Box::new(engines::Wasmi)));
            // The published crate is from 2021 and refuses modules of current Rust ("unknown
            // value_type").
            #[cfg(feature = "wasm3")]
            if self.title == "C" {
                runtimes.push(("wasm3", Box::new(engines::Wasm3)));
            }
            #[cfg(feature = "pulley")]
            runtimes.push(("Pulley", Box::new(engines::Pulley)));
            #[cfg(feature = "tinywasm")]
            runtimes.push(("tinywasm", Box::new(engines::TinyWasm)));
        }
        runtimes
    }
}

const THIS_CRATE: &str = "this crate";

/// Measures one row.
type Measure = Box<dyn FnOnce(Effort) -> Row>;

/// All rows by id, in the order of the table; each measures when called.
pub fn all() -> Vec<(String, Measure)> {
    let mut rows = Vec::new();
    let mut add = |id: String, row: Measure| rows.push((id, row));
    for guest in [ECHO_0_2, ECHO_0_4, ECHO_C] {
        add(
            format!("load-{}", guest.id),
            Box::new(move |effort| load(guest, effort)),
        );
    }
    for guest in [ECHO_0_2, ECHO_0_4, ECHO_C] {
        add(
            format!("new-room-{}", guest.id),
            Box::new(move |effort| new_room(guest, effort)),
        );
    }
    for guest in [ECHO_0_2, ECHO_0_4, ECHO_C] {
        add(
            format!("cold-{}", guest.id),
            Box::new(move |effort| cold_start(guest, effort)),
        );
    }
    for guest in [ECHO_C, ECHO_0_2, ECHO_0_4] {
        for (len, size) in [
            (16, "16 B"),
            (256, "256 B"),
            (4 << 10, "4 KiB"),
            (60 << 10, "60 KiB"),
        ] {
            add(
                format!("echo-{}-{len}", guest.id),
                Box::new(move |effort| {
                    let text = "x".repeat(len);
                    let title = format!("echo, {} guest, text of {size}", guest.title);
                    event(guest, title, Event::text(1, &text), effort)
                }),
            );
        }
    }
    for guest in [ECHO_C, ECHO_0_2, ECHO_0_4] {
        add(
            format!("binary-{}-256", guest.id),
            Box::new(move |effort| {
                let title = format!("echo, {} guest, binary of 256 B", guest.title);
                event(guest, title, Event::binary(1, &[7; 256]), effort)
            }),
        );
    }
    for guest in [COUNTER_C, COUNTER_0_2, COUNTER_0_4] {
        add(
            format!("counter-{}", guest.id),
            Box::new(move |effort| {
                event(
                    guest,
                    format!("counter, {} guest", guest.title),
                    Event::text(1, "+"),
                    effort,
                )
            }),
        );
    }
    for (kernel, name) in KERNELS {
        add(
            format!("compute-{name}"),
            Box::new(move |effort| {
                let mut row = event(COMPUTE, name.into(), Event::text(1, kernel), effort);
                row.group = Group::Compute;
                row.unit = Unit::Nanos;
                row
            }),
        );
    }
    for (id, guest, title, text) in CONFIGURATION_ROWS {
        add(
            format!("fuel-{id}"),
            Box::new(move |effort| configurations(*guest, title, text, Group::Fuel, effort)),
        );
        add(
            format!("slices-{id}"),
            Box::new(move |effort| configurations(*guest, title, text, Group::Slices, effort)),
        );
        add(
            format!("rollback-{id}"),
            Box::new(move |effort| configurations(*guest, title, text, Group::Rollback, effort)),
        );
        add(
            format!("payloads-{id}"),
            Box::new(move |effort| configurations(*guest, title, text, Group::Payloads, effort)),
        );
    }
    add("workers".into(), Box::new(workers));
    rows
}

const KERNELS: [(&str, &str); 5] = [
    ("h", "hash"),
    ("s", "sieve"),
    ("l", "life 128×128"),
    ("f", "fib"),
    ("n", "n-body"),
];

const CONFIGURATION_ROWS: &[(&str, Guest, &str, &str)] = &[
    (
        "echo-c",
        ECHO_C,
        "echo, C guest, text of 16 B",
        "0123456789abcdef",
    ),
    (
        "echo-0.2",
        ECHO_0_2,
        "echo, SDK 0.2 guest, text of 16 B",
        "0123456789abcdef",
    ),
    (
        "echo-0.4",
        ECHO_0_4,
        "echo, SDK 0.4 guest, text of 16 B",
        "0123456789abcdef",
    ),
    ("counter-0.2", COUNTER_0_2, "counter, SDK 0.2 guest", "+"),
    ("hash", COMPUTE, "hash", "h"),
    ("sieve", COMPUTE, "sieve", "s"),
    ("fib", COMPUTE, "fib", "f"),
];

fn load(guest: Guest, effort: Effort) -> Row {
    let wasm = guest.wasm();
    let mut runtimes = guest.runtimes();
    runtimes.push((
        "this crate, eager",
        Box::new(WasmiHost::room().with_compilation(Compilation::Eager)),
    ));
    runtimes.push(("this crate, on demand", Box::new(on_demand())));
    let figures = measure(runtimes, effort, |runtime| {
        black_box(runtime.load(&wasm).expect("the module loads"));
    });
    let title = format!(
        "bytes → module, {} echo ({} bytes)",
        guest.title,
        wasm.len()
    );
    Row {
        title,
        group: Group::Start,
        unit: Unit::Nanos,
        figures,
        goal: None,
    }
}

/// Functions are also validated on their first call.
fn on_demand() -> WasmiHost {
    WasmiHost::room().with_compilation(Compilation::OnDemand)
}

fn new_room(guest: Guest, effort: Effort) -> Row {
    let wasm = guest.wasm();
    let loaded: Vec<(&'static str, Box<dyn Module>)> = guest
        .runtimes()
        .into_iter()
        .map(|(name, runtime)| (name, runtime.load(&wasm).expect("the module loads")))
        .collect();
    let sink = Arc::new(OutputCounter::default());
    let mut contenders: Vec<_> = loaded
        .iter()
        .map(|(name, module)| {
            let sink = sink.clone();
            Contender::new(name, move || {
                black_box(module.open("room", sink.clone()).expect("the room opens"));
            })
        })
        .collect();
    let title = format!("new room, opened and closed again, {} echo", guest.title);
    Row {
        title,
        group: Group::Start,
        unit: Unit::Nanos,
        figures: interleaved(&mut contenders, effort),
        goal: None,
    }
}

fn cold_start(guest: Guest, effort: Effort) -> Row {
    let wasm = guest.wasm();
    let mut runtimes = guest.runtimes();
    runtimes.push(("this crate, on demand", Box::new(on_demand())));
    let figures = measure(runtimes, effort, |runtime| {
        let sink = Arc::new(OutputCounter::default());
        let module = runtime.load(&wasm).expect("the module loads");
        let mut room = module.open("room", sink.clone()).expect("the room opens");
        room.handle(Event::Connect(1));
        room.handle(Event::text(1, "0123456789abcdef"));
        assert_eq!(sink.messages(), 1, "there is a reply");
    });
    let title = format!("bytes → first reply (cold start), {} echo", guest.title);
    Row {
        title,
        group: Group::Start,
        unit: Unit::Nanos,
        figures,
        goal: None,
    }
}

/// One event, repeated.
fn event(guest: Guest, title: String, event: Event<'_>, effort: Effort) -> Row {
    let mut runtimes = guest.runtimes();
    runtimes.push(("this crate's Host", Box::new(WasmiHost::host())));
    let figures = events(guest, runtimes, event, effort);
    Row {
        title,
        group: Group::Events,
        unit: Unit::PerSecond,
        figures,
        goal: None,
    }
}

fn events(
    guest: Guest,
    runtimes: Vec<(&'static str, Box<dyn Runtime>)>,
    event: Event<'_>,
    effort: Effort,
) -> Vec<Figure> {
    let wasm = guest.wasm();
    let mut contenders: Vec<_> = runtimes
        .into_iter()
        .map(|(name, runtime)| {
            let sink = Arc::new(OutputCounter::default());
            let mut room = open(&*runtime, &wasm, sink.clone());
            Contender::timed(name, move |count| {
                let before = sink.messages();
                let start = Instant::now();
                for _ in 0..count {
                    room.handle(event);
                }
                let time = start.elapsed();
                assert_eq!(
                    sink.messages() - before,
                    count,
                    "{name}: every event has a reply"
                );
                time
            })
        })
        .collect();
    interleaved(&mut contenders, effort)
}

/// A room with one client.
fn open(runtime: &dyn Runtime, wasm: &[u8], sink: Arc<OutputCounter>) -> Box<dyn Room> {
    let module = runtime.load(wasm).expect("the module loads");
    let mut room = module.open("room", sink).expect("the room opens");
    room.handle(Event::Connect(1));
    room
}

/// Configurations of this crate against each other.
fn configurations(guest: Guest, title: &str, text: &str, group: Group, effort: Effort) -> Row {
    let ours = WasmiHost::room();
    let runtimes: Vec<(&'static str, Box<dyn Runtime>)> = match group {
        Group::Rollback => {
            vec![
                ("close", Box::new(ours)),
                ("rollback", Box::new(ours.with_rollback())),
            ]
        }
        Group::Payloads => vec![
            (
                "kept",
                Box::new(ours.with_payload_buffer(PayloadBuffer::Keep)),
            ),
            (
                "for each",
                Box::new(ours.with_payload_buffer(PayloadBuffer::PerEvent)),
            ),
        ],
        Group::Fuel => vec![
            ("fuel on", Box::new(ours)),
            ("fuel off", Box::new(ours.without_fuel())),
        ],
        _ => vec![
            ("one slice", Box::new(ours.with_slices_of(u64::MAX))),
            ("slices of 100,000", Box::new(ours.with_slices_of(100_000))),
            ("slices of 10,000", Box::new(ours.with_slices_of(10_000))),
            ("slices of 1,000", Box::new(ours.with_slices_of(1_000))),
        ],
    };
    let figures = events(guest, runtimes, Event::text(1, text), effort);
    Row {
        title: title.into(),
        group,
        unit: Unit::Nanos,
        figures,
        goal: None,
    }
}

/// Two threads, each with its own module, against one: the time per event of all threads together.
fn workers(effort: Effort) -> Row {
    let wasm = ECHO_0_2.wasm();
    let run = |threads: usize, count: u64| {
        let barrier = Barrier::new(threads);
        let times = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut room = open(
                            &WasmiHost::room(),
                            &wasm,
                            Arc::new(OutputCounter::default()),
                        );
                        barrier.wait();
                        let start = Instant::now();
                        for _ in 0..count {
                            room.handle(Event::text(1, "0123456789abcdef"));
                        }
                        start.elapsed()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect::<Vec<Duration>>()
        });
        times.into_iter().max().unwrap_or_default() / u32::try_from(threads).expect("few threads")
    };
    let mut contenders = [
        Contender::timed("one worker", move |count| run(1, count)),
        Contender::timed("two workers", move |count| run(2, count)),
    ];
    Row {
        title: "echo, SDK 0.2 guest, text of 16 B".into(),
        group: Group::Workers,
        unit: Unit::PerSecond,
        figures: interleaved(&mut contenders, effort),
        goal: None,
    }
}

fn measure(
    runtimes: Vec<(&'static str, Box<dyn Runtime>)>,
    effort: Effort,
    operation: impl Fn(&dyn Runtime),
) -> Vec<Figure> {
    let operation = &operation;
    let mut contenders: Vec<_> = runtimes
        .into_iter()
        .map(|(name, runtime)| Contender::new(name, move || operation(&*runtime)))
        .collect();
    interleaved(&mut contenders, effort)
}
