//! The flags that `serve` and `check` share: all that decides whether a module's rooms can run. `test` has
//! those for faults and limits.

use clap::{Args, builder::RangedU64ValueParser};
use stateroom_wasmi_host::{Backoff, FaultPolicy, Limits, LoadOptions};
use std::{path::PathBuf, time::Duration};

#[derive(Args)]
pub(crate) struct RoomArgs {
    /// Seed of the rooms' random generators [default: from the operating system; of `check`, 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Seconds after which a room that does nothing gives up its memory for its state, until it is
    /// needed; its clients stay connected [default: never]
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    hibernate_after: Option<u64>,
    /// A folder that keeps the rooms: they go on after a restart or a crash, and nothing that a client has
    /// seen is lost [default: rooms are in memory only]
    #[arg(long, value_name = "DIR", group = "kept")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(flatten)]
    limits: RoomLimitArgs,
}

/// The fault policy.
#[derive(Args)]
#[command(next_help_heading = "Faults")]
pub(crate) struct FaultArgs {
    /// What follows when a room's guest fails
    #[arg(long, value_enum, default_value_t = OnFault::Close)]
    on_fault: OnFault,
    /// Milliseconds before the first restart; doubled for each further one
    #[arg(long, default_value_t = Backoff::new().first.as_millis() as u64, value_name = "MS")]
    restart_wait: u64,
    /// Longest wait before a restart, in seconds; after running this long without a fault, the
    /// first wait applies again
    #[arg(long, default_value_t = Backoff::new().longest.as_secs(), value_name = "SECONDS")]
    restart_longest: u64,
    /// Consecutive restarts before the room is closed
    #[arg(long, default_value_t = Backoff::new().restarts)]
    restarts: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OnFault {
    /// Close the room and its clients
    Close,
    /// Start a fresh guest after a wait; the clients stay connected
    Restart,
    /// Go on with whatever state the guest is left in, as the JIT host 0.2.9 does
    Continue,
    /// Restore the state before the event; the room continues
    Rollback,
}

/// The limits of each room.
#[derive(Args)]
#[command(next_help_heading = "Limits of rooms")]
pub(crate) struct RoomLimitArgs {
    /// Clients of one room
    #[arg(
        long,
        default_value_t = LIMITS.max_clients,
        value_name = "CLIENTS",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..),
    )]
    max_clients: usize,
    /// Bytes of one message, in either direction
    #[arg(long, default_value_t = LIMITS.max_message_bytes, value_name = "BYTES")]
    max_message_bytes: usize,
    /// Bytes of memory of one room
    #[arg(long, default_value_t = LIMITS.max_memory_bytes, value_name = "BYTES")]
    max_memory_bytes: usize,
    /// Bytes of the host's heap that the functions, globals and other parts of a module take in one
    /// room
    #[arg(long, default_value_t = LIMITS.max_instance_bytes, value_name = "BYTES")]
    max_instance_bytes: usize,
    /// Locals that one function may declare
    #[arg(long, default_value_t = LIMITS.max_function_locals, value_name = "LOCALS")]
    max_function_locals: usize,
    /// Fuel of one event: about one unit per instruction
    #[arg(
        long,
        default_value_t = LIMITS.max_fuel_per_event.unwrap_or(u64::MAX),
        value_name = "FUEL",
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    max_fuel_per_event: u64,
    /// Bytes that one event may print to the log; what is beyond is dropped
    #[arg(long, default_value_t = LIMITS.max_log_bytes_per_event, value_name = "BYTES")]
    max_log_bytes_per_event: usize,
    /// Bytes that one room may print to the log per second; what is beyond is dropped
    #[arg(long, default_value_t = LIMITS.max_log_bytes_per_second, value_name = "BYTES")]
    max_log_bytes_per_second: usize,
}

/// The source of the flags' defaults.
const LIMITS: Limits = Limits::new();

impl RoomArgs {
    pub(crate) fn limits(&self) -> Limits {
        self.limits.limits()
    }

    pub(crate) fn on_fault(&self) -> FaultPolicy {
        self.faults.policy()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn hibernate_after(&self) -> Option<Duration> {
        self.hibernate_after.map(Duration::from_secs)
    }

    /// How the server loads a module with these flags.
    pub(crate) fn load_options(&self) -> LoadOptions {
        LoadOptions::new()
            .snapshots(
                self.on_fault() == FaultPolicy::Rollback
                    || self.hibernate_after.is_some()
                    || self.data.is_some(),
            )
            .simd(true)
    }
}

impl FaultArgs {
    pub(crate) fn policy(&self) -> FaultPolicy {
        match self.on_fault {
            OnFault::Close => FaultPolicy::Close,
            OnFault::Restart => FaultPolicy::Restart(
                Backoff::new()
                    .first(Duration::from_millis(self.restart_wait))
                    .longest(Duration::from_secs(self.restart_longest))
                    .restarts(self.restarts),
            ),
            OnFault::Continue => FaultPolicy::Continue,
            OnFault::Rollback => FaultPolicy::Rollback,
        }
    }
}

impl RoomLimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        LIMITS
            .max_clients(self.max_clients)
            .max_message_bytes(self.max_message_bytes)
            .max_memory_bytes(self.max_memory_bytes)
            .max_instance_bytes(self.max_instance_bytes)
            .max_function_locals(self.max_function_locals)
            .max_fuel_per_event(Some(self.max_fuel_per_event))
            .max_log_bytes_per_event(self.max_log_bytes_per_event)
            .max_log_bytes_per_second(self.max_log_bytes_per_second)
            // A message of maximum length must fit into the queues.
            .max_inbox_bytes(LIMITS.max_inbox_bytes.max(self.max_message_bytes))
            .max_outbox_bytes(LIMITS.max_outbox_bytes.max(self.max_message_bytes))
    }
}
