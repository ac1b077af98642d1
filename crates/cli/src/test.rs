//! `stateroom-wasmi test`.

use crate::{
    diagnosis,
    module_file::ModuleFile,
    print,
    room_args::{FaultArgs, RoomLimitArgs},
};
use clap::Args;
use stateroom_wasmi_host::{Escaped, FaultPolicy, LoadOptions, Module};
use stateroom_wasmi_testkit::{Outcome, Script, ScriptError, TestOptions};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Play scripts with a room, and compare what its clients receive with what the scripts say
///
/// Each script has a room of its own, in virtual time. What a script says of its room takes precedence
/// over these flags. The exit status is 1 if a room does something else than a script says.
#[derive(Args)]
pub(crate) struct Test {
    /// A .wasm or .wat file, or a folder with server.wasm
    module: PathBuf,
    /// Scripts, of which docs/testing.md has the format
    #[arg(required = true, value_name = "SCRIPT")]
    scripts: Vec<PathBuf>,
    /// Write what the room does into the scripts, in place of what they expect
    #[arg(long)]
    bless: bool,
    /// Module that the room goes on with at a line `upgrade`, such as its next version [default: the same]
    #[arg(long, value_name = "MODULE")]
    next: Option<PathBuf>,
    /// Seed of the room's random generator
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fuel that a room may use in all; about one unit per instruction
    #[arg(long, default_value_t = TestOptions::new().max_fuel, value_name = "FUEL")]
    max_fuel: u64,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(flatten)]
    limits: RoomLimitArgs,
}

impl Test {
    /// Logs nothing: what a room prints stands beside what it explains.
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let options = TestOptions::new()
            .limits(self.limits.limits())
            .seed(self.seed)
            .on_fault(self.faults.policy())
            .max_fuel(self.max_fuel);
        let wasm = ModuleFile::read(&self.module)?.wasm;
        let next = self.next.as_deref().map(ModuleFile::read).transpose()?;
        let next = next.map(|file| file.wasm);
        let load = LoadOptions::new()
            .simd(true)
            .snapshots(options.on_fault == FaultPolicy::Rollback);
        // Once, and not for each script; and it says more of what is wrong.
        Module::load_with(&wasm, &options.limits, load)
            .map_err(|error| diagnosis::explain(&error, &wasm))?;

        let count = self.scripts.len();
        let scripts = if count == 1 { "script" } else { "scripts" };
        print(&format!("\nrunning {count} {scripts}\n"))?;
        let mut failures = Vec::new();
        for path in &self.scripts {
            let (verdict, failure) = match self.play(path, &wasm, next.as_deref(), &options) {
                Ok(Verdict::Ok) => ("ok", None),
                Ok(Verdict::Blessed) => ("blessed", None),
                Err(failure) => ("FAILED", Some(failure)),
            };
            let name = Escaped::new(path.display());
            print(&format!("test {name} ... {verdict}\n"))?;
            failures.extend(failure);
        }
        self.summarise(&failures)
    }

    fn summarise(&self, failures: &[String]) -> Result<ExitCode, Box<dyn Error>> {
        let mut text = String::new();
        if !failures.is_empty() {
            text += "\nfailures:\n";
        }
        for failure in failures {
            text += &format!("\n{}\n", failure.trim_end());
        }
        let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
        let failed = failures.len();
        let passed = self.scripts.len() - failed;
        text += &format!("\ntest result: {verdict}. {passed} passed; {failed} failed\n\n");
        print(&text)?;
        Ok(if failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Plays a script.
    ///
    /// # Errors
    ///
    /// Why it failed.
    fn play(
        &self,
        path: &Path,
        wasm: &[u8],
        next: Option<&[u8]>,
        options: &TestOptions,
    ) -> Result<Verdict, String> {
        let script = Script::read(path).map_err(|error: ScriptError| error.to_string())?;
        let outcome = match next {
            Some(next) => script.run_upgrade(wasm, next, options),
            None => script.run(wasm, options),
        };
        match outcome {
            outcome if outcome.is_ok() => Ok(Verdict::Ok),
            outcome if self.bless && outcome.error().is_none() => bless(path, &outcome),
            outcome => Err(outcome.to_string()),
        }
    }
}

enum Verdict {
    Ok,
    /// It was rewritten.
    Blessed,
}

fn bless(path: &Path, outcome: &Outcome) -> Result<Verdict, String> {
    fs::write(path, outcome.script())
        .map(|()| Verdict::Blessed)
        .map_err(|error| format!("{}: cannot write it: {error}", Escaped::new(path.display())))
}
