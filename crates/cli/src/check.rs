//! `stateroom-wasmi check`.

use crate::{advice, diagnosis, module_file::ModuleFile, print, room_args::RoomArgs};
use clap::Args;
use serde::Serialize;
use stateroom_wasmi_host::{
    Budget, ClientId, Escaped, Event, Host, LoadError, ManualClock, Module, OutputMessage, Room,
    RoomKey, RoomOptions, SendError, Transport, WithSources,
};
use std::{
    convert::Infallible,
    error::Error,
    fmt::{self, Display},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

/// Check whether a module can be served, what it imports and what its rooms cost
///
/// A room is opened as `serve` would with the same flags, once with the empty id and once with the
/// longest. The exit status is 1 if that fails.
#[derive(Args)]
pub(crate) struct Check {
    /// A .wasm or .wat file, or a folder with server.wasm
    module: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rooms: RoomArgs,
}

/// The result of the check.
#[derive(Default, Serialize)]
struct Report {
    module: String,
    ok: bool,
    /// The ABI, if it can be recognised.
    abi: Option<String>,
    /// In the binary format; none if the file could not be read.
    module_bytes: Option<usize>,
    imports: Vec<Item>,
    /// Imports that are not listed.
    more_imports: usize,
    exports: Vec<Item>,
    more_exports: usize,
    /// What a room costs; none if it cannot be opened.
    room: Option<Cost>,
    /// `possible`, or why its rooms cannot be rolled back.
    rollback: Option<String>,
    /// What keeps it from being served.
    problems: Vec<String>,
    more_problems: usize,
    /// What is legal, but most likely not meant.
    warnings: Vec<String>,
    /// What to do about the problems, if they have a usual reason.
    help: Vec<String>,
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
    /// Of the host's heap, for what the module declares.
    instance_bytes: usize,
    /// Fuel to initialise the guest.
    fuel_to_open: u64,
    /// Fuel to connect the first client.
    fuel_to_connect: u64,
}

/// The most of each list that is printed: a small module can have a million.
const MAX_LISTED: usize = 100;

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let report = self.report();
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            print(&report.to_string())?;
        }
        Ok(if report.ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn report(&self) -> Report {
        let mut report = Report {
            module: listed(ModuleFile::name(&self.module)),
            ..Report::default()
        };
        match ModuleFile::read(&self.module) {
            Ok(file) => self.check(&file.wasm, &mut report),
            Err(error) => report.problems.push(error.to_string()),
        }
        report.ok = report.problems.is_empty();
        report.more_problems = cut(&mut report.problems);
        report.more_imports = cut(&mut report.imports);
        report.more_exports = cut(&mut report.exports);
        report
    }

    fn check(&self, wasm: &[u8], report: &mut Report) {
        let options = self.rooms.load_options();
        report.module_bytes = Some(wasm.len());
        match Module::load_with(wasm, &self.rooms.limits(), options) {
            Ok(module) => {
                report.describe(&module);
                report.warnings = diagnosis::warnings(&module, wasm);
                let for_rollback =
                    Module::load_with(wasm, module.limits(), options.snapshots(true));
                let rollback = for_rollback.map_or_else(|e| e.to_string(), |_| "possible".into());
                report.rollback = Some(rollback);
                self.open_rooms(&module, report);
            }
            Err(error) => {
                if let LoadError::Abi { abi, .. } = &error {
                    report.abi = abi.map(|abi| abi.to_string());
                }
                report.problems = diagnosis::problems(&error, wasm);
                report.help = advice::on(&error, wasm);
            }
        }
    }

    /// Opens a room with the empty id, and one with the longest.
    fn open_rooms(&self, module: &Module, report: &mut Report) {
        let max_bytes = module.limits().max_room_id_bytes;
        let mut shortest = Trial::new(self, module, "");
        let longest = Trial::new(self, module, &"x".repeat(max_bytes));
        report.room = shortest.cost.take();
        let with_longest = |text| format!("with an id of {max_bytes} bytes: {text}");
        for (list, shortest, longest) in [
            (&mut report.problems, shortest.problem, longest.problem),
            (&mut report.warnings, shortest.survived, longest.survived),
        ] {
            match (shortest, longest) {
                (None, None) => {}
                (None, Some(longest)) => list.push(with_longest(longest)),
                (Some(shortest), None) => list.push(format!("with the empty id: {shortest}")),
                (Some(shortest), Some(longest)) if shortest == longest => list.push(shortest),
                (Some(shortest), Some(longest)) => {
                    list.extend([
                        format!("with the empty id: {shortest}"),
                        with_longest(longest),
                    ]);
                }
            }
        }
        if report
            .problems
            .iter()
            .any(|text| text.contains("unreachable"))
        {
            report.help.extend(advice::on_silent_panic(module));
        }
        if shortest.has_null_allocator || longest.has_null_allocator {
            report.warnings.push(NULL_ALLOCATOR.into());
        }
    }
}

const NULL_ALLOCATOR: &str = "its allocator returns null: this host then adds pages for payloads to \
    the room's memory, others write over the bottom of it. Build the room's crate without link-time \
    optimisation, and with another level than \"s\" or \"z\"";

/// A room that was opened, with its first client, to see what happens.
#[derive(Default)]
struct Trial {
    /// None if the room could not be opened.
    cost: Option<Cost>,
    problem: Option<String>,
    /// A fault that the room's policy let it survive.
    survived: Option<String>,
    has_null_allocator: bool,
}

impl Trial {
    /// Opens a room as a worker of the server does.
    fn new(check: &Check, module: &Module, id: &str) -> Self {
        let clock = ManualClock::new();
        let mut host = Host::new(&clock, Discard)
            .with_seed(check.rooms.seed.unwrap_or(0))
            .with_fault_policy(check.rooms.on_fault());
        let unix_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let options = RoomOptions::new().unix_time_at_zero(unix_time.unwrap_or(Duration::ZERO));
        let key = match host.open_with(id, module, options) {
            Ok(key) => key,
            Err(error) => {
                return Self {
                    problem: Some(WithSources(&error).to_string()),
                    ..Self::default()
                };
            }
        };
        host.poll(Budget::UNLIMITED);
        let fuel_to_open = host.room(key).map_or(0, Room::fuel_used);
        // Fails if the room has ended, which its fault explains.
        let _ = host.enqueue(key, Event::Connect(ClientId(1)));
        host.poll(Budget::UNLIMITED);
        host.room(key)
            .map(|room| Self::of(room, fuel_to_open))
            .unwrap_or_default()
    }

    fn of(room: &Room, fuel_to_open: u64) -> Self {
        let fault = room
            .last_fault()
            .map(|fault| WithSources(fault).to_string());
        let is_lost = room.is_closed() || room.is_restarting();
        let (problem, survived) = match fault {
            fault if is_lost => (fault, None),
            Some(fault) => (
                None,
                Some(format!("{fault}, which `--on-fault` lets it survive")),
            ),
            None => (None, None),
        };
        Self {
            cost: (!is_lost).then(|| Cost {
                memory_bytes: room.stats().memory_bytes,
                instance_bytes: room.stats().instance_bytes,
                fuel_to_open,
                fuel_to_connect: room.fuel_used() - fuel_to_open,
            }),
            problem,
            survived,
            has_null_allocator: room.has_null_allocator(),
        }
    }
}

/// A transport to nobody.
struct Discard;

impl Transport for Discard {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        Ok(())
    }
}

impl Report {
    fn describe(&mut self, module: &Module) {
        self.abi = Some(module.abi().to_string());
        self.imports = module
            .imports()
            .map(|(module, name, kind)| Item {
                name: listed(format_args!("{module}.{name}")),
                kind: kind.to_string(),
            })
            .collect();
        self.exports = module
            .exports()
            .map(|(name, kind)| Item {
                name: listed(name),
                kind: kind.to_string(),
            })
            .collect();
    }
}

/// A name from outside, as it is listed.
fn listed(name: impl Display) -> String {
    const MAX_CHARS: usize = 200;
    Escaped::new(name).at_most(MAX_CHARS).to_string()
}

/// Cuts a list off where it is too long; returns how much is missing.
fn cut<T>(list: &mut Vec<T>) -> usize {
    let more = list.len().saturating_sub(MAX_LISTED);
    list.truncate(MAX_LISTED);
    more
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok {
            "can be served"
        } else {
            "cannot be served"
        };
        writeln!(f, "{}: {verdict}", self.module)?;
        for problem in &self.problems {
            writeln!(f, "  problem: {}", indented(problem))?;
        }
        if self.more_problems > 0 {
            writeln!(f, "  and {} more problems", self.more_problems)?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {}", indented(warning))?;
        }
        for help in &self.help {
            writeln!(f, "  help: {help}")?;
        }
        let Some(bytes) = self.module_bytes else {
            return Ok(());
        };
        writeln!(f, "ABI       {}", self.abi.as_deref().unwrap_or("unknown"))?;
        writeln!(f, "length    {bytes} bytes")?;
        if let Some(room) = &self.room {
            writeln!(
                f,
                "memory    {} bytes a room, and up to {} of the host's for its functions and the like",
                room.memory_bytes, room.instance_bytes
            )?;
            writeln!(
                f,
                "fuel      {} to open a room, {} for its first client",
                room.fuel_to_open, room.fuel_to_connect
            )?;
        }
        if let Some(rollback) = &self.rollback {
            writeln!(f, "rollback  {rollback}")?;
        }
        write_list(f, "imports", &self.imports, self.more_imports)?;
        write_list(f, "exports", &self.exports, self.more_exports)
    }
}

/// A text of several lines, all but the first further to the right.
fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

fn write_list(f: &mut fmt::Formatter<'_>, title: &str, items: &[Item], more: usize) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        let title = if i == 0 { title } else { "" };
        writeln!(f, "{title:<9} {}: {}", item.name, item.kind)?;
    }
    match more {
        0 => Ok(()),
        more => writeln!(f, "{:<9} and {more} more", ""),
    }
}
