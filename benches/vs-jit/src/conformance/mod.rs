//! The same modules, the same events: whether this repository's crate and the JIT host answer alike.

mod compare;
mod differences;
mod script;

use crate::{
    jit::{Jit02, Jit04},
    runtime::{Notebook, Room, Runtime},
    wasmi_host::WasmiHost,
};
use anyhow::{Context, Result, bail};
use compare::{Answer, Dice, TimerWatch};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use script::{Happening, Rooms, Script};
use stateroom_wasmi_host::Compilation;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Compare the answers of this crate and of the JIT hosts
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

/// Compares, prints what was found, and answers whether all is well.
pub fn run(options: &Options) -> Result<bool> {
    let files = match options.module.is_empty() {
        true => bundled()?,
        false => options.module.clone(),
    };
    println!(
        "Each room is run by the JIT host of its ABI and by this crate in {} ways.\n",
        ways().len()
    );
    let mut is_well = true;
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let wasm =
            std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        match compare_module(&name, &wasm, options) {
            Ok(Verdict::Same(counts)) => println!("same      {name}: {counts}"),
            Ok(Verdict::NotComparable(reason)) => println!("left out  {name}: {reason}"),
            Err(difference) => {
                is_well = false;
                println!("DIFFERS   {name}: {difference:#}");
            }
        }
    }
    println!(
        "\nDifferences that are faults or limits of the JIT host (README.md has the reasons):\n"
    );
    for difference in differences::all() {
        let (shown, is_expected) = difference.show();
        is_well &= is_expected;
        println!(
            "{}{shown}",
            if is_expected {
                ""
            } else {
                "NOT AS DOCUMENTED "
            }
        );
    }
    Ok(is_well)
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
    Same(String),
    NotComparable(&'static str),
}

/// How this crate runs each room: none of it may show.
fn ways() -> Vec<(&'static str, WasmiHost)> {
    vec![
        ("lazily translated", WasmiHost::room()),
        (
            "eagerly translated",
            WasmiHost::room().with_compilation(Compilation::Eager),
        ),
        (
            "in slices of 500 units of fuel",
            WasmiHost::room().with_slices_of(500),
        ),
        ("without fuel", WasmiHost::room().without_fuel()),
        ("in a host", WasmiHost::host()),
    ]
}

fn compare_module(name: &str, wasm: &[u8], options: &Options) -> Result<Verdict> {
    // What the bundled rooms with pages of another size end with.
    if ["-small-page", "-rust-small"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Ok(Verdict::NotComparable(
            "no JIT host loads a module with custom page sizes",
        ));
    }
    if name == "floats-wat" {
        return Ok(Verdict::NotComparable(
            "the bits of a NaN are the processor's in the JIT host",
        ));
    }
    let rooms = Rooms::of(name);
    let mut script = Script::new(rooms);
    let mut counts = Counts::default();
    compare_events(wasm, rooms, &mut script, &mut counts).context("the scripted events")?;
    const SEQUENCE: usize = 2_000;
    let mut left = options.events;
    for sequence in 0.. {
        if left == 0 {
            break;
        }
        let rng = ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(sequence));
        let len = left.min(SEQUENCE);
        left -= len;
        compare_events(
            wasm,
            rooms,
            &mut Script::random(rooms, rng, len),
            &mut counts,
        )
        .with_context(|| format!("random sequence {sequence} of seed {}", options.seed))?;
    }
    Ok(Verdict::Same(counts.to_string()))
}

#[derive(Default)]
struct Counts {
    events: usize,
    outputs: usize,
    bytes: usize,
    timers: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            events,
            outputs,
            bytes,
            timers,
        } = self;
        write!(
            f,
            "{events} events, {outputs} outputs of {bytes} bytes, {timers} timers set"
        )
    }
}

impl Counts {
    fn add(&mut self, answer: &Answer) {
        self.events += 1;
        self.outputs += answer.outputs.len();
        self.bytes += answer
            .outputs
            .iter()
            .map(compare::Output::len)
            .sum::<usize>();
        self.timers += usize::from(answer.sets_timer());
    }
}

/// A room of one of the hosts, and what it said.
struct Side {
    name: &'static str,
    room: Box<dyn Room>,
    notebook: Arc<Notebook>,
    timer: TimerWatch,
}

impl Side {
    fn open(name: &'static str, runtime: &dyn Runtime, wasm: &[u8]) -> Result<Self> {
        let notebook = Arc::new(Notebook::default());
        let room = runtime
            .load(wasm)
            .and_then(|module| module.open("lobby", notebook.clone()))
            .with_context(|| format!("{name} does not open the room"))?;
        Ok(Self {
            name,
            room,
            notebook,
            timer: TimerWatch::default(),
        })
    }

    fn answer(&mut self) -> Answer {
        self.timer.answer(self.notebook.take())
    }

    fn handle(&mut self, happening: &Happening) -> Answer {
        if *happening == Happening::Timer {
            self.timer.fires();
        }
        self.room.handle(happening.event());
        self.answer()
    }
}

/// Runs both sides through a script in step and compares after every event.
fn compare_events(
    wasm: &[u8],
    rooms: Rooms,
    script: &mut Script,
    counts: &mut Counts,
) -> Result<()> {
    let jit: (&str, &dyn Runtime) = match speaks_0_4(wasm) {
        true => ("the JIT host 0.4.4", &Jit04),
        false => ("the JIT host 0.2.9", &Jit02),
    };
    let mut theirs = Side::open(jit.0, jit.1, wasm)?;
    let mut ours = ways()
        .into_iter()
        .map(|(name, runtime)| Side::open(name, &runtime, wasm))
        .collect::<Result<Vec<_>>>()?;
    let mut expected = theirs.answer();
    let mut happened: Vec<Happening> = Vec::new();
    loop {
        counts.add(&expected);
        for side in &mut ours {
            let answer = match happened.last() {
                Some(happening) => side.handle(happening),
                None => side.answer(),
            };
            let same = match rooms {
                // Their random numbers are the system's, ours come from a seed.
                Rooms::Dice => Dice::is_alike(&expected, &answer),
                // A host does not tell what its rooms ask of the timer, only when to poll.
                _ if side.name == "in a host" => expected.outputs == answer.outputs,
                _ => expected == answer,
            };
            if !same {
                bail!(report(
                    &happened,
                    (theirs.name, &expected),
                    (side.name, &answer),
                    side.room.fault()
                ));
            }
        }
        let Some(happening) = script.next(theirs.timer.is_set()) else {
            return Ok(());
        };
        expected = theirs.handle(&happening);
        happened.push(happening);
    }
}

fn report(
    happened: &[Happening],
    theirs: (&str, &Answer),
    ours: (&str, &Answer),
    fault: Option<String>,
) -> String {
    const SHOWN: usize = 5;
    let mut text = String::from("the answers differ after");
    if happened.len() > SHOWN {
        let _ = write!(text, " {} events and", happened.len() - SHOWN);
    }
    for happening in happened.iter().rev().take(SHOWN).rev() {
        let _ = write!(text, "\n    {:?}", happening.event());
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

fn speaks_0_4(wasm: &[u8]) -> bool {
    // The name of the export stands in the binary as it is.
    const NAME: &[u8] = b"stateroom_recv";
    wasm.windows(NAME.len()).any(|window| window == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `.ci` runs of the comparison: all modules, a bounded number of events.
    #[test]
    fn all_modules_answer_alike() {
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
    fn the_documented_differences_are_there() {
        for difference in differences::all() {
            let (shown, is_expected) = difference.show();
            assert!(is_expected, "{shown}");
        }
    }

    /// A comparison that cannot fail says nothing.
    #[test]
    fn a_guest_that_answers_otherwise_is_noticed() {
        let rooms = Rooms::Echo;
        let echo = include_bytes!("../../../../examples/rooms/wasm/echo-c.wasm");
        let notebook = Arc::new(Notebook::default());
        let doctored = Doctored(
            Jit02
                .load(echo)
                .unwrap()
                .open("lobby", notebook.clone())
                .unwrap(),
        );
        let mut theirs = Side {
            name: "doctored",
            room: Box::new(doctored),
            notebook,
            timer: TimerWatch::default(),
        };
        let mut ours = Side::open("ours", &WasmiHost::room(), echo).unwrap();
        let mut script = Script::random(rooms, ChaCha8Rng::seed_from_u64(3), 200);
        let mut differing = 0;
        while let Some(happening) = script.next(false) {
            differing += usize::from(theirs.handle(&happening) != ours.handle(&happening));
        }
        assert!(
            differing > 0,
            "200 events, and a host that loses every tenth message was not noticed"
        );
    }

    /// Loses every tenth message.
    struct Doctored(Box<dyn Room>);

    impl Room for Doctored {
        fn handle(&mut self, event: crate::runtime::Event<'_>) {
            use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
            static EVENTS: AtomicUsize = AtomicUsize::new(0);
            if EVENTS.fetch_add(1, Relaxed) % 10 != 9 {
                self.0.handle(event);
            }
        }
    }
}
