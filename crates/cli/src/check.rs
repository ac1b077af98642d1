//! `stateroom-wasmi check`.

use crate::{module_file::ModuleFile, with_sources};
use clap::Args;
use serde::Serialize;
use stateroom_wasmi_host::{
    ClientId, Event, Fault, Instant, Limits, LoadError, LoadOptions, Module, Room, RoomOptions,
};
use std::{error::Error, path::PathBuf, process::ExitCode};

/// Check whether a module can be served, what it imports and what its rooms cost
#[derive(Args)]
pub(crate) struct Check {
    /// A .wasm or .wat file, or a folder with server.wasm
    module: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result of the check.
#[derive(Default, Serialize)]
struct Report {
    module: String,
    ok: bool,
    /// The ABI, if it can be recognised.
    abi: Option<String>,
    module_bytes: usize,
    imports: Vec<Item>,
    exports: Vec<Item>,
    /// What a room costs; none if it cannot be opened.
    room: Option<Cost>,
    /// `possible`, or why its rooms cannot be rolled back.
    rollback: Option<String>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Item {
    name: String,
    kind: String,
}

/// Measured on one room.
#[derive(Serialize)]
struct Cost {
    /// Linear memory of an open room.
    memory_bytes: usize,
    /// Fuel to initialise the guest.
    fuel_to_open: u64,
    /// Fuel to connect the first client.
    fuel_to_connect: u64,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let report = Report::of(ModuleFile::read(&self.module)?);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            report.print();
        }
        Ok(if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl Report {
    fn of(file: ModuleFile) -> Self {
        let mut report = Self {
            module: file.name,
            module_bytes: file.wasm.len(),
            ..Self::default()
        };
        let options = LoadOptions::new().simd(true);
        match Module::load_with(&file.wasm, &Limits::default(), options) {
            Ok(module) => report.describe(&module, &file.wasm),
            Err(LoadError::Abi { abi, problems }) => {
                report.abi = abi.map(|abi| abi.to_string());
                report.problems = problems.iter().map(ToString::to_string).collect();
            }
            Err(error) => report.problems.push(with_sources(&error)),
        }
        report.ok = report.problems.is_empty();
        report
    }

    fn describe(&mut self, module: &Module, wasm: &[u8]) {
        self.abi = Some(module.abi().to_string());
        self.imports = module
            .imports()
            .map(|(module, name, kind)| Item {
                name: format!("{module}.{name}"),
                kind: kind.to_string(),
            })
            .collect();
        self.exports = module
            .exports()
            .map(|(name, kind)| Item {
                name: name.to_owned(),
                kind: kind.to_string(),
            })
            .collect();
        let options = LoadOptions::new().rollback(true).simd(true);
        let for_rollback = Module::load_with(wasm, &Limits::default(), options);
        self.rollback =
            Some(for_rollback.map_or_else(|error| error.to_string(), |_| "possible".to_owned()));
        match Cost::of(module) {
            Ok(cost) => self.room = Some(cost),
            Err(error) => self.problems.push(with_sources(&*error)),
        }
    }

    fn print(&self) {
        let verdict = if self.ok {
            "can be served"
        } else {
            "cannot be served"
        };
        println!("{}: {verdict}", self.module);
        for problem in &self.problems {
            println!("  problem: {problem}");
        }
        println!("ABI       {}", self.abi.as_deref().unwrap_or("unknown"));
        println!("length    {} bytes", self.module_bytes);
        if let Some(room) = &self.room {
            println!("memory    {} bytes a room", room.memory_bytes);
            println!(
                "fuel      {} to open a room, {} for its first client",
                room.fuel_to_open, room.fuel_to_connect
            );
        }
        if let Some(rollback) = &self.rollback {
            println!("rollback  {rollback}");
        }
        for (title, items) in [("imports", &self.imports), ("exports", &self.exports)] {
            for (i, item) in items.iter().enumerate() {
                let title = if i == 0 { title } else { "" };
                println!("{title:<9} {}: {}", item.name, item.kind);
            }
        }
    }
}

impl Cost {
    fn of(module: &Module) -> Result<Self, Box<dyn Error>> {
        let mut room = Room::new(module, "check", RoomOptions::default())?;
        finish(&mut room)?;
        let fuel_to_open = room.fuel_used();
        room.handle_event(Instant::ZERO, Event::Connect(ClientId(1)))?;
        finish(&mut room)?;
        Ok(Self {
            memory_bytes: room.stats().memory_bytes,
            fuel_to_open,
            fuel_to_connect: room.fuel_used() - fuel_to_open,
        })
    }
}

/// Runs a room until it is idle.
fn finish(room: &mut Room) -> Result<(), Fault> {
    loop {
        while room.poll_output().is_some() {}
        if let Some(fault) = room.fault() {
            return Err(fault.clone());
        }
        if !room.has_work(Instant::ZERO) {
            return Ok(());
        }
        room.resume(Instant::ZERO);
    }
}
