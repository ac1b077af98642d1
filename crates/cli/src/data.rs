//! The flags of `serve` for rooms that survive the process.

use clap::{Args, ValueEnum};
use stateroom_wasmi_server::{
    ServerConfig,
    journal::{Durability, Journal, ModuleUpgrade},
};
use stateroom_wasmi_store::{DEFAULT_MAX_ROOMS, Recorder, Store};
use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Args)]
#[command(next_help_heading = "Rooms that survive")]
pub(crate) struct DataArgs {
    /// What is promised to rooms
    #[arg(long, value_enum, default_value_t = DurabilityArg::Durable, requires = "kept")]
    durability: DurabilityArg,
    /// The same for rooms whose ids begin with a prefix; the longest counts; may be repeated
    #[arg(
        long,
        value_name = "PREFIX=DURABILITY",
        value_parser = parse_rule,
        requires = "kept",
    )]
    durability_of: Vec<(String, DurabilityArg)>,
    /// Rooms that are kept, in a cluster by all nodes; new ones beyond that are refused
    #[arg(long, default_value_t = DEFAULT_MAX_ROOMS, value_name = "ROOMS", requires = "kept")]
    max_stored_rooms: u64,
    /// Folder for what rooms do, in files that `replay` reads; not of those that are in memory only
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Size of these files together, in MiB: beyond, the oldest are removed
    #[arg(long, default_value_t = 1024, value_name = "MIB", requires = "record")]
    record_limit: u64,
    /// What becomes of rooms of another module: stored ones, and open ones when it is read again
    #[arg(long, value_enum, default_value_t = UpgradeArg::Refuse)]
    upgrade: UpgradeArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum DurabilityArg {
    /// What a room sends waits until its events are on the disk, or on most of the disks of NATS
    Durable,
    /// What a room sends does not wait: a crash may undo the last moments
    Relaxed,
    /// Rooms are in memory only
    Memory,
}

#[derive(Clone, Copy, ValueEnum)]
enum UpgradeArg {
    /// Stored ones are kept as they are, and their clients are rejected; open ones as hook-or-restart
    Refuse,
    /// They begin anew with this module; clients with a token keep their ids
    Restart,
    /// Their state passes by the modules' exports; if it does not, they go on with the module that they have
    Hook,
    /// Their state passes by the modules' exports; if it does not, they begin anew
    HookOrRestart,
}

fn parse_rule(text: &str) -> Result<(String, DurabilityArg), String> {
    let (prefix, durability) = text
        .rsplit_once('=')
        .ok_or("it must be PREFIX=DURABILITY, such as match-=relaxed")?;
    let durability = DurabilityArg::from_str(durability, false)?;
    Ok((prefix.into(), durability))
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Durable => Self::Durable,
            DurabilityArg::Relaxed => Self::Relaxed,
            DurabilityArg::Memory => Self::Memory,
        }
    }
}

impl DataArgs {
    /// Rooms that are kept.
    #[cfg(feature = "cluster")]
    pub(crate) const fn max_stored_rooms(&self) -> u64 {
        self.max_stored_rooms
    }

    /// Opens the folder of `--data`, if there is one.
    pub(crate) fn apply(
        &self,
        data: Option<&Path>,
        config: ServerConfig,
    ) -> Result<ServerConfig, Box<dyn Error>> {
        let open = |data| Store::open_with(data, self.max_stored_rooms);
        let store = data.map(open).transpose()?;
        let mut journal = store.map(|store| Arc::new(store) as Arc<dyn Journal>);
        if let Some(folder) = &self.record {
            let recorder = Recorder::open(folder, self.record_limit << 20, journal);
            let recorder = recorder.map_err(|error| format!("cannot record: {error}"))?;
            journal = Some(Arc::new(recorder));
        }
        let rules = self.durability_of.iter();
        Ok(config
            .journal(journal)
            .durability(self.durability.into())
            .durability_of(
                rules.map(|(prefix, durability)| (prefix, Durability::from(*durability))),
            )
            .upgrade(match self.upgrade {
                UpgradeArg::Refuse => ModuleUpgrade::Refuse,
                UpgradeArg::Restart => ModuleUpgrade::Restart,
                UpgradeArg::Hook => ModuleUpgrade::Hook,
                UpgradeArg::HookOrRestart => ModuleUpgrade::HookOrRestart,
            }))
    }
}
