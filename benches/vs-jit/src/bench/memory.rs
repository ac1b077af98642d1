//! Resident memory: a process for each figure, since allocators keep what they once had.

use super::{
    measure::{Effort, Figure, median},
    table::{Group, Row, Unit},
};
use crate::{
    jit::{Jit02, Jit04},
    ours::Ours,
    words::{Event, Runtime, Tally},
};
use anyhow::{Context, Result, bail};
use std::{
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
            "ours" | "trimmed" => Box::new(Ours::room()),
            "jit-0.2" => Box::new(Jit02),
            "jit-0.4" => Box::new(Jit04),
            other => bail!("there is no runtime {other:?}"),
        };
        let wasm = std::fs::read(&self.module)?;
        let ears = Arc::new(Tally::default());
        let module = runtime.load(&wasm)?;
        let open = |id: usize| {
            let mut room = module.open(&format!("room-{id}"), ears.clone())?;
            room.handle(Event::Connect(1));
            for _ in 0..8 {
                room.handle(Event::text(1, "0123456789abcdef"));
            }
            if self.runtime == "trimmed" {
                room.trim();
            }
            anyhow::Ok(room)
        };
        // The first room brings what all share: translated code, buffers.
        let mut rooms = vec![open(0)?];
        let before = resident_bytes()?;
        let start = Instant::now();
        for id in 1..=self.rooms {
            rooms.push(open(id)?);
        }
        let nanos = start.elapsed().as_nanos() / self.rooms as u128;
        println!("{before} {} {nanos}", resident_bytes()?);
        // Before that, nothing of it may be given back.
        drop(rooms);
        Ok(())
    }
}

/// What this process has in memory. `smaps_rollup` counts exactly, where `statm` may be off by what
/// each thread has not told of yet.
fn resident_bytes() -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").context("this row needs Linux")?;
    let line = text.lines().find(|line| line.starts_with("Rss:")).context("no Rss")?;
    let kib: usize = line.split_whitespace().nth(1).context("no Rss")?.parse()?;
    Ok(kib * 1024)
}

/// What a child measured.
struct Process {
    baseline: f64,
    per_room: f64,
    open_nanos: f64,
}

fn child(runtime: &str, module: &Path, rooms: usize) -> Result<Process> {
    let output = Command::new(std::env::current_exe()?)
        .args(["memory-child", runtime])
        .arg(module)
        .arg(rooms.to_string())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [before, after, open_nanos] = numbers[..] else {
        bail!("{runtime} with {rooms} rooms failed: {}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Process { baseline: before, per_room: (after - before) / rooms as f64, open_nanos })
}

/// Memory by added room, of the process with one room, and the time of a room in fresh memory.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let rooms_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rooms/wasm");
    let guests = [
        ("SDK 0.2", "echo-rust-0.2", "jit-0.2", "JIT 0.2.9"),
        ("SDK 0.4", "echo-rust-0.4", "jit-0.4", "JIT 0.4.4"),
        ("C", "echo-c", "jit-0.2", "JIT 0.2.9"),
    ];
    let times = effort.rounds.clamp(3, 9);
    let mut rows = Vec::new();
    for (title, file, jit, jit_name) in guests {
        let module = rooms_folder.join(format!("{file}.wasm"));
        for count in [100, 1_000] {
            let mut ours = Vec::new();
            let mut theirs = Vec::new();
            let mut trimmed = Vec::new();
            for _ in 0..times {
                ours.push(child("ours", &module, count)?);
                theirs.push(child(jit, &module, count)?);
                trimmed.push(child("trimmed", &module, count)?);
            }
            let row = |title: String, group, unit, value: fn(&Process) -> f64| {
                let figure = |name: &str, all: &[Process]| Figure {
                    name: name.into(),
                    value: median(all.iter().map(value).collect()),
                    ratio: median(ours.iter().zip(all).map(|(a, b)| value(b) / value(a)).collect()),
                };
                let figures = vec![
                    figure("this crate", &ours),
                    figure(jit_name, &theirs),
                    figure("this crate, trimmed", &trimmed),
                ];
                Row { title, group, unit, figures }
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
