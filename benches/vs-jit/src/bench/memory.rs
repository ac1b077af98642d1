//! Resident memory: one process per figure, since allocators keep freed memory.

use super::{
    measure::{Effort, Figure},
    table::{Group, Row, Unit},
};
use crate::{
    jit::{Jit02, Jit04},
    runtime::{Event, OutputCounter, Runtime},
    wasmi_host::WasmiHost,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

/// Measures one process's memory, and prints it
#[derive(clap::Args)]
pub struct Child {
    /// ours, trimmed, jit-0.2 or jit-0.4
    runtime: String,
    module: PathBuf,
    rooms: usize,
}

impl Child {
    pub fn run(&self) -> Result<()> {
        let runtime: Box<dyn Runtime> = match self.runtime.as_str() {
            "ours" | "trimmed" => Box::new(WasmiHost::room()),
            "jit-0.2" => Box::new(Jit02),
            "jit-0.4" => Box::new(Jit04),
            other => bail!("there is no runtime {other:?}"),
        };
        let wasm = std::fs::read(&self.module)?;
        let sink = Arc::new(OutputCounter::default());
        let module = runtime.load(&wasm)?;
        let open = |id: usize| {
            let mut room = module.open(&format!("room-{id}"), sink.clone())?;
            room.handle(Event::Connect(1));
            for _ in 0..8 {
                room.handle(Event::text(1, "0123456789abcdef"));
            }
            if self.runtime == "trimmed" {
                room.trim();
            }
            anyhow::Ok(room)
        };
        // The first room allocates what all share: translated code, buffers.
        let mut rooms = Vec::with_capacity(1 + self.rooms);
        rooms.push(open(0)?);
        let before = resident_bytes("self")?;
        let start = Instant::now();
        while rooms.len() <= self.rooms {
            // The JIT hosts fail or panic when no more memory can be mapped.
            let Ok(Ok(room)) = catch_unwind(AssertUnwindSafe(|| open(rooms.len()))) else {
                break;
            };
            rooms.push(room);
        }
        let nanos = start.elapsed().as_nanos() / rooms.len() as u128;
        println!(
            "{} {before} {} {nanos}",
            rooms.len() - 1,
            resident_bytes("self")?
        );
        // Only now, so that no room's memory is freed before the measurement.
        drop(rooms);
        Ok(())
    }
}

/// Resident memory of a process. `smaps_rollup` is exact; `statm` lags by each thread's cached
/// counts.
pub fn resident_bytes(process: &str) -> Result<usize> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
        .context("this row needs Linux")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Rss:"))
        .context("no Rss")?;
    let kib: usize = line.split_whitespace().nth(1).context("no Rss")?.parse()?;
    Ok(kib * 1024)
}

/// The figures of a child process.
struct Process {
    /// Rooms opened after the first.
    rooms: f64,
    baseline: f64,
    per_room: f64,
    open_nanos: f64,
}

/// Measures a child process with this many rooms, or as many as it can open.
fn run_child(runtime: &str, module: &Path, rooms: usize) -> Result<Process> {
    let output = Command::new(std::env::current_exe()?)
        .args(["memory-child", runtime])
        .arg(module)
        .arg(rooms.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [opened, before, after, open_nanos] = numbers[..] else {
        bail!(
            "{runtime} with {rooms} rooms failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    Ok(Process {
        rooms: opened,
        baseline: before,
        per_room: (after - before) / opened,
        open_nanos,
    })
}

/// The guests: title, file, and the JIT host's argument and name.
const GUESTS: [(&str, &str, &str, &str); 3] = [
    ("SDK 0.2", "echo-rust-0.2", "jit-0.2", "JIT 0.2.9"),
    ("SDK 0.4", "echo-rust-0.4", "jit-0.4", "JIT 0.4.4"),
    ("C", "echo-c", "jit-0.2", "JIT 0.2.9"),
];

fn module(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/rooms/wasm")
        .join(format!("{file}.wasm"))
}

/// How many rooms one process can hold, and the memory of each. Needs some gigabytes.
pub fn rooms_rows() -> Result<Vec<Row>> {
    const MAX_ROOMS: usize = 50_000;
    let mut rows = Vec::new();
    for (title, file, jit, jit_name) in GUESTS {
        let module = module(file);
        let processes = [
            (
                "this crate, trimmed",
                run_child("trimmed", &module, MAX_ROOMS)?,
            ),
            (jit_name, run_child(jit, &module, MAX_ROOMS)?),
        ];
        let row = |what: &str, unit, value: fn(&Process) -> f64| {
            let first = [value(&processes[0].1)];
            let figures = processes
                .iter()
                .map(|(name, one)| Figure::new(name, vec![value(one)], &first));
            Row {
                title: format!("{what}, {title} echo"),
                group: Group::Rooms,
                unit,
                figures: figures.collect(),
                goal: None,
            }
        };
        rows.push(row("rooms in one process", Unit::PerProcess, |process| {
            1.0 / process.rooms
        }));
        rows.push(row("each of them takes", Unit::Bytes, |process| {
            process.per_room
        }));
    }
    Ok(rows)
}

/// Memory per added room and of a process with one room, and the time to open a room in fresh
/// memory.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let rounds = effort.rounds.clamp(3, 9);
    let mut rows = Vec::new();
    for (title, file, jit, jit_name) in GUESTS {
        let module = module(file);
        for count in [100, 1_000] {
            let mut ours = Vec::new();
            let mut theirs = Vec::new();
            let mut trimmed = Vec::new();
            for _ in 0..rounds {
                ours.push(run_child("ours", &module, count)?);
                theirs.push(run_child(jit, &module, count)?);
                trimmed.push(run_child("trimmed", &module, count)?);
                let all =
                    [&ours, &theirs, &trimmed].map(|all| all.last().map(|process| process.rooms));
                ensure!(
                    all == [Some(count as f64); 3],
                    "not all of {count} rooms were opened: {all:?}"
                );
            }
            let row = |title: String, group, unit, value: fn(&Process) -> f64| {
                let values = |all: &[Process]| all.iter().map(value).collect::<Vec<_>>();
                let contenders = [
                    ("this crate", &ours),
                    (jit_name, &theirs),
                    ("this crate, trimmed", &trimmed),
                ];
                let figures = contenders
                    .map(|(name, all)| Figure::new(name, values(all), &values(&ours)))
                    .into();
                Row {
                    title,
                    group,
                    unit,
                    figures,
                    goal: None,
                }
            };
            rows.push(row(
                format!("a room of {count}, {title} echo"),
                Group::Memory,
                Unit::Bytes,
                |process| process.per_room,
            ));
            if count == 1_000 {
                rows.push(row(
                    format!("the process with one room, {title} echo"),
                    Group::Memory,
                    Unit::Bytes,
                    |process| process.baseline,
                ));
                rows.push(row(
                    format!("new room in fresh memory, with 9 events, {title} echo"),
                    Group::Start,
                    Unit::Nanos,
                    |process| process.open_nanos,
                ));
            }
        }
    }
    Ok(rows)
}
