//! Compares the outputs of this crate and of the JIT host for the same modules and events.

mod agreements;
mod compare;
mod differences;
mod go;
mod script;

use crate::{
    jit::{Jit02, Jit04},
    runtime::{Module, Recorder, Room, Runtime},
    wasmi_host::WasmiHost,
};
use anyhow::{Context, Result, bail};
use compare::{Dice, EventResult, TimerState, TimerTracker};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use script::{OwnedEvent, RoomKind, Script};
use stateroom_wasmi_host::{Compilation, PayloadBuffer};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Compare the outputs of this crate and of the JIT hosts
#[derive(clap::Args)]
pub struct Options {
    /// Random events for each module, in sequences of up to 2,000
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub events: usize,
    /// Seeds the random sequences
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Modules to compare [default: the bundled rooms and the guests of this package]
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub module: Vec<PathBuf>,
}

/// Compares, prints the results, and returns whether all are as expected.
pub fn run(options: &Options) -> Result<bool> {
    let files = match options.module.is_empty() {
        true => bundled()?,
        false => options.module.clone(),
    };
    println!(
        "Each room is run by the JIT host of its ABI and by this crate in {} configurations.\n",
        configurations().len()
    );
    let mut all_as_expected = true;
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let wasm =
            std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        match compare_module(&name, &wasm, options) {
            Ok(Verdict::Equal(counts)) => println!("same      {name}: {counts}"),
            Ok(Verdict::Skipped(reason)) => println!("skipped   {name}: {reason}"),
            Err(difference) => {
                all_as_expected = false;
                println!("DIFFERS   {name}: {difference:#}");
            }
        }
    }
    println!("\nSmall guests that run alike:\n");
    for agreement in agreements::all() {
        let title = agreement.title;
        match agreement.check() {
            Ok(()) => println!("same      {title}"),
            Err(difference) => {
                all_as_expected = false;
                println!("DIFFERS   {title} {difference:#}");
            }
        }
    }
    println!("\nIntended differences: faults or limits of the JIT host (see README.md):\n");
    for difference in differences::all() {
        let (text, is_expected) = difference.check();
        all_as_expected &= is_expected;
        println!(
            "{}{text}",
            if is_expected {
                ""
            } else {
                "NOT AS DOCUMENTED "
            }
        );
    }
    Ok(all_as_expected)
}

/// The bundled rooms, and the guests of this package.
pub fn bundled() -> Result<Vec<PathBuf>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in [
        here.join("../../examples/rooms/wasm"),
        here.join("guests/wasm"),
    ] {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("no folder {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal(String),
    Skipped(&'static str),
}

/// The configurations of this crate: none may change the outputs. After a fault they go on, as the
/// JIT host 0.2.9 does.
fn configurations() -> Vec<(&'static str, WasmiHost)> {
    let room = WasmiHost::room().that_continues();
    vec![
        ("lazily translated", room),
        (
            "eagerly translated",
            room.with_compilation(Compilation::Eager),
        ),
        ("in slices of 500 units of fuel", room.with_slices_of(500)),
        ("without fuel", room.without_fuel()),
        (
            "with a buffer for each payload",
            room.with_payload_buffer(PayloadBuffer::PerEvent),
        ),
        ("in a host", WasmiHost::host().that_continues()),
    ]
}

fn compare_module(name: &str, wasm: &[u8], options: &Options) -> Result<Verdict> {
    // Suffixes of the bundled rooms with custom page sizes.
    if ["-small-page", "-rust-small"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Ok(Verdict::Skipped(
            "no JIT host loads a module with custom page sizes",
        ));
    }
    if name == "floats-wat" {
        return Ok(Verdict::Skipped(
            "the bits of a NaN are the processor's in the JIT host",
        ));
    }
    let kind = RoomKind::of(name);
    let modules = load(wasm)?;
    let mut script = Script::scripted(kind);
    let mut counts = Counts::default();
    compare_events(&modules, kind, &mut script, &mut counts).context("the scripted events")?;
    const SEQUENCE: usize = 2_000;
    let mut left = options.events;
    for sequence in 0.. {
        if left == 0 {
            break;
        }
        let rng = ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(sequence));
        let len = left.min(SEQUENCE);
        left -= len;
        let mut script = Script::random(kind, rng, len);
        compare_events(&modules, kind, &mut script, &mut counts)
            .with_context(|| format!("random sequence {sequence} of seed {}", options.seed))?;
    }
    Ok(Verdict::Equal(counts.to_string()))
}

#[derive(Default)]
struct Counts {
    events: usize,
    messages: usize,
    bytes: usize,
    timers: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            events,
            messages,
            bytes,
            timers,
        } = self;
        write!(
            f,
            "{events} events, {messages} messages of {bytes} bytes, {timers} timers set"
        )
    }
}

impl Counts {
    fn add(&mut self, result: &EventResult) {
        self.events += 1;
        self.messages += result.messages.len();
        self.bytes += result
            .messages
            .iter()
            .map(compare::SentMessage::len)
            .sum::<usize>();
        self.timers += usize::from(result.sets_timer());
    }
}

/// A room of one of the hosts, and its outputs.
struct HostUnderTest {
    name: &'static str,
    room: Box<dyn Room>,
    recorder: Arc<Recorder>,
    timer: TimerTracker,
}

impl HostUnderTest {
    fn open((name, module): &LoadedModule) -> Result<Self> {
        let recorder = Arc::new(Recorder::default());
        let room = module
            .open("lobby", recorder.clone())
            .with_context(|| format!("{name} did not open the room"))?;
        Ok(Self {
            name,
            room,
            recorder,
            timer: TimerTracker::default(),
        })
    }

    fn event_result(&mut self) -> EventResult {
        self.timer.event_result(self.recorder.take())
    }

    fn handle(&mut self, event: &OwnedEvent) -> EventResult {
        if *event == OwnedEvent::Timer {
            self.timer.fire();
        }
        self.room.handle(event.as_event());
        let mut result = self.event_result();
        // Only the published host leaves that to its server.
        while result.timer == TimerState::Set(0) {
            let next = self.handle(&OwnedEvent::Timer);
            result.messages.extend(next.messages);
            result.timer = next.timer;
        }
        result
    }
}

/// A module loaded by the host of this name.
type LoadedModule = (&'static str, Box<dyn Module>);

/// A module loaded by all hosts, by the published one first.
fn load(wasm: &[u8]) -> Result<Vec<LoadedModule>> {
    load_as(wasm, &configurations())
}

/// A module loaded by the published host of its ABI, and by this crate in these configurations.
fn load_as(wasm: &[u8], ours: &[(&'static str, WasmiHost)]) -> Result<Vec<LoadedModule>> {
    let load = |name: &'static str, runtime: &dyn Runtime, wasm: &[u8]| {
        let module = runtime
            .load(wasm)
            .with_context(|| format!("{name} did not load the module"))?;
        anyhow::Ok((name, module))
    };
    let for_the_published_host = go::for_the_published_host(wasm)?;
    let theirs = for_the_published_host.as_deref().unwrap_or(wasm);
    let mut modules = vec![match is_abi_0_4(wasm) {
        true => load("the JIT host 0.4.4", &Jit04, theirs)?,
        false => load("the JIT host 0.2.9", &Jit02, theirs)?,
    }];
    for (name, runtime) in ours {
        modules.push(load(name, runtime, wasm)?);
    }
    Ok(modules)
}

/// Runs a script on all hosts in lockstep and compares after every event.
fn compare_events(
    modules: &[LoadedModule],
    kind: RoomKind,
    script: &mut Script,
    counts: &mut Counts,
) -> Result<()> {
    let mut hosts = modules
        .iter()
        .map(HostUnderTest::open)
        .collect::<Result<Vec<_>>>()?;
    let (theirs, ours) = hosts.split_first_mut().expect("the published host");
    let mut expected = theirs.event_result();
    let mut history: Vec<OwnedEvent> = Vec::new();
    loop {
        counts.add(&expected);
        for host in &mut *ours {
            let result = match history.last() {
                Some(event) => host.handle(event),
                None => host.event_result(),
            };
            let same = match kind {
                // Random numbers are from the system there, from a seed here.
                RoomKind::Dice => Dice::is_equivalent(&expected, &result),
                // A host does not report its rooms' timer requests, only when to poll.
                _ if host.name == "in a host" => expected.messages == result.messages,
                _ => expected == result,
            };
            if !same {
                bail!(report(
                    &history,
                    (theirs.name, &expected),
                    (host.name, &result),
                    host.room.fault()
                ));
            }
        }
        let Some(event) = script.next(theirs.timer.is_set()) else {
            break;
        };
        expected = theirs.handle(&event);
        history.push(event);
    }
    // A room that sends nothing any more would be equal to one that has nothing to send.
    match ours.iter().find_map(|host| host.room.fault()) {
        Some(fault) => bail!("no output differed, but {fault}"),
        None => Ok(()),
    }
}

fn report(
    history: &[OwnedEvent],
    theirs: (&str, &EventResult),
    ours: (&str, &EventResult),
    fault: Option<String>,
) -> String {
    const SHOWN: usize = 5;
    let mut text = String::from("the results differ after");
    if history.len() > SHOWN {
        let _ = write!(text, " {} events and", history.len() - SHOWN);
    }
    for event in history.iter().rev().take(SHOWN).rev() {
        let _ = write!(text, "\n    {:?}", event.as_event());
    }
    let _ = write!(
        text,
        "\n  {}: {}\n  this crate, {}: {}",
        theirs.0, theirs.1, ours.0, ours.1
    );
    if let Some(fault) = fault {
        let _ = write!(text, "\n  {fault}");
    }
    text
}

/// By its import; one that sends nothing, by its exports.
fn is_abi_0_4(wasm: &[u8]) -> bool {
    // Names are in the binary verbatim.
    let contains = |name: &[u8]| wasm.windows(name.len()).any(|window| window == name);
    contains(b"stateroom_send") || !contains(b"jam_malloc")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comparison in CI: all modules, a bounded number of events.
    #[test]
    fn all_modules_have_equal_outputs() {
        let options = Options {
            events: 400,
            seed: 7,
            module: Vec::new(),
        };
        for file in bundled().unwrap() {
            let name = file.file_stem().unwrap().to_string_lossy();
            let verdict = compare_module(&name, &std::fs::read(&file).unwrap(), &options);
            assert!(verdict.is_ok(), "{name}: {:#}", verdict.unwrap_err());
        }
    }

    #[test]
    fn small_guests_run_alike() {
        for agreement in agreements::all() {
            let result = agreement.check();
            assert!(
                result.is_ok(),
                "{} {:#}",
                agreement.title,
                result.unwrap_err()
            );
        }
    }

    #[test]
    fn the_documented_differences_exist() {
        for difference in differences::all() {
            let (text, is_expected) = difference.check();
            assert!(is_expected, "{text}");
        }
    }

    /// Guards against a comparison that cannot fail.
    #[test]
    fn a_lossy_host_is_noticed() {
        let kind = RoomKind::Echo;
        let echo = include_bytes!("../../../../examples/rooms/wasm/echo-c.wasm");
        let recorder = Arc::new(Recorder::default());
        let lossy = LossyRoom(
            Jit02
                .load(echo)
                .unwrap()
                .open("lobby", recorder.clone())
                .unwrap(),
        );
        let mut theirs = HostUnderTest {
            name: "lossy",
            room: Box::new(lossy),
            recorder,
            timer: TimerTracker::default(),
        };
        let ours = ("ours", WasmiHost::room().load(echo).unwrap());
        let mut ours = HostUnderTest::open(&ours).unwrap();
        let mut script = Script::random(kind, ChaCha8Rng::seed_from_u64(3), 200);
        let mut differing = 0;
        while let Some(event) = script.next(false) {
            differing += usize::from(theirs.handle(&event) != ours.handle(&event));
        }
        assert!(
            differing > 0,
            "a host that loses every tenth of 200 events must be noticed"
        );
    }

    /// Drops every tenth event.
    struct LossyRoom(Box<dyn Room>);

    impl Room for LossyRoom {
        fn handle(&mut self, event: crate::runtime::Event<'_>) {
            use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
            static EVENTS: AtomicUsize = AtomicUsize::new(0);
            if EVENTS.fetch_add(1, Relaxed) % 10 != 9 {
                self.0.handle(event);
            }
        }
    }
}
