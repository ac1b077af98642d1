//! The benchmark: one command measures all rows and writes the tables.

mod chart;
mod cold_rooms;
mod measure;
pub mod memory;
mod noisy_neighbour;
mod rows;
#[cfg(feature = "server")]
pub mod server;
mod size;
mod table;

use anyhow::{Context, Result, bail};
use measure::Effort;
use std::{fmt::Write as _, path::PathBuf, time::Duration};
use table::Row;

/// Measure this crate and the JIT hosts against each other
#[derive(clap::Args)]
pub struct Options {
    /// Takes a minute or two, for a first look
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Takes most of an hour, for figures to quote; needs 4 GiB of free memory
    #[arg(long)]
    full: bool,
    /// Measure only rows whose ids start with one of these, such as echo,cold,compute,memory,server
    #[arg(long, value_delimiter = ',', value_name = "ROW,…")]
    only: Vec<String>,
    /// Also write vs-jit.md and vs-jit.svg to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List the ids of the rows and exit
    #[arg(long)]
    list: bool,
}

impl Options {
    fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort {
                rounds: 7,
                turn: Duration::from_millis(5),
            },
            (_, true) => Effort {
                rounds: 101,
                turn: Duration::from_millis(30),
            },
            _ => Effort {
                rounds: 25,
                turn: Duration::from_millis(20),
            },
        }
    }

    /// Rows that need gigabytes of memory or minutes of building are measured on request only.
    fn wants(&self, id: &str) -> bool {
        let is_costly = ["rooms", "size"].contains(&id);
        (self.only.is_empty() && (self.full || !is_costly))
            || self
                .only
                .iter()
                .any(|prefix| id.starts_with(prefix.as_str()))
    }
}

pub fn run(options: &Options) -> Result<()> {
    let effort = options.effort();
    if options.list {
        rows::all().iter().for_each(|(id, _)| println!("{id}"));
        OTHER_ROWS.iter().for_each(|id| println!("{id}"));
        return Ok(());
    }
    let mut rows = Vec::new();
    for (id, row) in rows::all() {
        if options.wants(&id) {
            eprintln!("{id} …");
            rows.push(row(effort));
        }
    }
    for id in OTHER_ROWS {
        if options.wants(id) {
            eprintln!("{id} …");
            rows.extend(other_rows(id, effort)?);
        }
    }
    if rows.is_empty() {
        bail!("no rows match; --list shows all");
    }
    let text = page(options, &rows);
    println!("{text}");
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("no folder {}", folder.display()))?;
        std::fs::write(folder.join("vs-jit.md"), &text)?;
        std::fs::write(folder.join("vs-jit.svg"), chart::svg(&rows))?;
    }
    Ok(())
}

/// The ids of the rows that need more than this process.
const OTHER_ROWS: [&str; 9] = [
    "by-turns",
    "memory",
    "rooms",
    "size",
    "server",
    "server-workers",
    "server-idle",
    "noisy-neighbour",
    "noisy-neighbour-server",
];

fn other_rows(id: &str, effort: Effort) -> Result<Vec<Row>> {
    match id {
        "by-turns" => Ok(cold_rooms::rows(effort)),
        "memory" => memory::rows(effort),
        "rooms" => memory::rooms_rows(),
        "size" => size::rows(),
        "noisy-neighbour" => noisy_neighbour::rows(effort),
        #[cfg(feature = "server")]
        "server" => server::rows(effort),
        #[cfg(feature = "server")]
        "server-workers" => server::worker_rows(effort),
        #[cfg(feature = "server")]
        "server-idle" => server::idle_rows(effort),
        #[cfg(feature = "server")]
        "noisy-neighbour-server" => server::noisy_neighbour_rows(effort),
        _ => Ok(Vec::new()),
    }
}

fn page(options: &Options, rows: &[Row]) -> String {
    let mut command = String::from("cargo run --release");
    if let Some(features) = features() {
        let _ = write!(command, " --features {features}");
    }
    command.push_str(" -- bench");
    if options.quick {
        command.push_str(" --quick");
    }
    if options.full {
        command.push_str(" --full");
    }
    if !options.only.is_empty() {
        let _ = write!(command, " --only {}", options.only.join(","));
    }
    let effort = options.effort();
    let mut text = String::from("# Comparison with the JIT host\n\n");
    let _ = write!(
        text,
        "Written by `{command}` in `benches/vs-jit`; its README describes the method, and where \
         this crate is slower. All contenders of a row run the same module; those of the rooms \
         went through `wasm-opt` (docs/rooms.md), which an interpreter needs more than a JIT. \
         Values are medians of {} rounds in which the contenders \
         alternate; ratios are medians of the rounds' ratios. A number in brackets is a multiple \
         of the first column's value. The machine is shared and noisy: ratios are more reliable \
         than times.\n\n- {}\n- {}\n\n![For each row, how many times faster or slower this \
         crate is than the JIT host](vs-jit.svg)\n",
        effort.rounds,
        machine(),
        versions(),
    );
    text.push_str(&table::markdown(rows));
    text
}

/// The enabled features besides the default, as an argument for cargo.
fn features() -> Option<String> {
    let features = [
        ("tinywasm", cfg!(feature = "tinywasm")),
        ("wasm3", cfg!(feature = "wasm3")),
        ("pulley", cfg!(feature = "pulley")),
    ];
    let on: Vec<&str> = features
        .iter()
        .filter(|(_, is_on)| *is_on)
        .map(|(name, _)| *name)
        .collect();
    (!on.is_empty()).then(|| on.join(","))
}

/// The operating system and processor.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!(
        "{} {}, {model}, {cores} cores",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// The versions in this package's lock file.
fn versions() -> String {
    let lock = include_str!("../../Cargo.lock");
    let version = |name: &str| {
        let mut found: Vec<&str> = Vec::new();
        let mut lines = lock.lines();
        while let Some(line) = lines.next() {
            if line == format!("name = \"{name}\"") {
                found.extend(lines.next().and_then(|line| line.split('"').nth(1)));
            }
        }
        found
    };
    let mut names = vec![
        "stateroom-wasmi-host",
        "wasmi",
        "stateroom-wasm-host",
        "wasmtime",
        "stateroom-server",
        "axum",
    ];
    // The lock file has optional dependencies even if they are not built.
    let features = features().unwrap_or_default();
    names.extend(
        ["tinywasm", "wasm3"]
            .into_iter()
            .filter(|name| features.contains(name)),
    );
    let has_pulley = features.contains("pulley");
    let shown = |name: &str| match version(name) {
        // The newest is Pulley's.
        versions if name == "wasmtime" && !has_pulley => versions[..versions.len() - 1].join(", "),
        versions => versions.join(", "),
    };
    names
        .iter()
        .map(|name| format!("{name} {}", shown(name)))
        .collect::<Vec<_>>()
        .join("; ")
}
