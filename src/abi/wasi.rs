//! WASI: the functions that a module of either ABI may import, and the layouts of their structures.
//!
//! Sources: `wasi_unstable.witx` and `wasi_snapshot_preview1.witx`. The two have the same functions,
//! but for `sock_accept`, and nearly the same layouts.

use super::{
    Signature,
    description::{Function, find},
};

/// A version of WASI's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WasiVersion {
    Preview0,
    Preview1,
}

impl WasiVersion {
    /// The version that is imported by this module name.
    pub(crate) fn imported_as(module: &str) -> Option<Self> {
        [Self::Preview0, Self::Preview1]
            .into_iter()
            .find(|version| version.module() == module)
    }

    pub(crate) const fn module(self) -> &'static str {
        match self {
            Self::Preview0 => "wasi_unstable",
            Self::Preview1 => "wasi_snapshot_preview1",
        }
    }

    /// The type of the function of this name.
    pub(crate) fn function(self, name: &str) -> Option<Signature> {
        if self == Self::Preview0 && name == ADDED_IN_PREVIEW_1 {
            return None;
        }
        find(FUNCTIONS, name)
    }

    /// The length of a `filestat`: preview 0 counts links in 32 bits.
    pub(crate) const fn filestat_len(self) -> usize {
        match self {
            Self::Preview0 => 56,
            Self::Preview1 => 64,
        }
    }

    /// The length of a `subscription`.
    pub(crate) const fn subscription_len(self) -> usize {
        match self {
            Self::Preview0 => 56,
            Self::Preview1 => 48,
        }
    }

    /// Decodes a `subscription`. None if it is too short or has a number that WASI does not define.
    pub(crate) fn decode_subscription(self, bytes: &[u8]) -> Option<Subscription> {
        // Preview 0 has an identifier of the clock before its number.
        let clock = match self {
            Self::Preview0 => 24,
            Self::Preview1 => 16,
        };
        Some(Subscription {
            userdata: u64::from_le_bytes(array(bytes, 0)?),
            event: match bytes.get(8)? {
                0 => SubscribedEvent::Clock {
                    clock: ClockId::decode(u32::from_le_bytes(array(bytes, clock)?))?,
                    timeout: u64::from_le_bytes(array(bytes, clock + 8)?),
                    is_absolute: match u16::from_le_bytes(array(bytes, clock + 24)?) {
                        0 => false,
                        1 => true,
                        _ => return None,
                    },
                },
                1 => SubscribedEvent::Readable(u32::from_le_bytes(array(bytes, 16)?)),
                2 => SubscribedEvent::Writable(u32::from_le_bytes(array(bytes, 16)?)),
                _ => return None,
            },
        })
    }
}

/// Module names whose functions are known, but not part of this build.
pub(super) const LEFT_OUT: &[&str] = &[];

const ADDED_IN_PREVIEW_1: &str = "sock_accept";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockId {
    Realtime,
    Monotonic,
    /// The CPU time of a process or of a thread.
    CpuTime,
}

impl ClockId {
    pub(crate) const fn decode(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Realtime),
            1 => Some(Self::Monotonic),
            2 | 3 => Some(Self::CpuTime),
            _ => None,
        }
    }
}

/// What `poll_oneoff` is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) userdata: u64,
    pub(crate) event: SubscribedEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscribedEvent {
    Clock {
        clock: ClockId,
        /// In nanoseconds: a time of the clock if it is absolute, else from now.
        timeout: u64,
        is_absolute: bool,
    },
    /// A file descriptor can be read.
    Readable(u32),
    /// A file descriptor can be written.
    Writable(u32),
}

/// The result of `poll_oneoff` for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollResult {
    pub(crate) errno: u16,
    /// Bytes that can be read or written.
    pub(crate) available: u64,
    /// The other end is closed.
    pub(crate) is_hung_up: bool,
}

impl Subscription {
    /// The length of an `event`.
    pub(crate) const EVENT_LEN: usize = 32;

    /// Encodes the `event` that responds to it.
    pub(crate) fn encode_event(&self, result: PollResult) -> [u8; Self::EVENT_LEN] {
        let mut bytes = [0; Self::EVENT_LEN];
        bytes[..8].copy_from_slice(&self.userdata.to_le_bytes());
        bytes[8..10].copy_from_slice(&result.errno.to_le_bytes());
        bytes[10] = match self.event {
            SubscribedEvent::Clock { .. } => 0,
            SubscribedEvent::Readable(_) => 1,
            SubscribedEvent::Writable(_) => 2,
        };
        bytes[16..24].copy_from_slice(&result.available.to_le_bytes());
        bytes[24] = result.is_hung_up.into();
        bytes
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// All of preview 1. Source: `wasi_snapshot_preview1.witx`.
const FUNCTIONS: &[Function] = &[
    ("args_get", "ii:i"),
    ("args_sizes_get", "ii:i"),
    ("clock_res_get", "ii:i"),
    ("clock_time_get", "iIi:i"),
    ("environ_get", "ii:i"),
    ("environ_sizes_get", "ii:i"),
    ("fd_advise", "iIIi:i"),
    ("fd_allocate", "iII:i"),
    ("fd_close", "i:i"),
    ("fd_datasync", "i:i"),
    ("fd_fdstat_get", "ii:i"),
    ("fd_fdstat_set_flags", "ii:i"),
    ("fd_fdstat_set_rights", "iII:i"),
    ("fd_filestat_get", "ii:i"),
    ("fd_filestat_set_size", "iI:i"),
    ("fd_filestat_set_times", "iIIi:i"),
    ("fd_pread", "iiiIi:i"),
    ("fd_prestat_dir_name", "iii:i"),
    ("fd_prestat_get", "ii:i"),
    ("fd_pwrite", "iiiIi:i"),
    ("fd_read", "iiii:i"),
    ("fd_readdir", "iiiIi:i"),
    ("fd_renumber", "ii:i"),
    ("fd_seek", "iIii:i"),
    ("fd_sync", "i:i"),
    ("fd_tell", "ii:i"),
    ("fd_write", "iiii:i"),
    ("path_create_directory", "iii:i"),
    ("path_filestat_get", "iiiii:i"),
    ("path_filestat_set_times", "iiiiIIi:i"),
    ("path_link", "iiiiiii:i"),
    ("path_open", "iiiiiIIii:i"),
    ("path_readlink", "iiiiii:i"),
    ("path_remove_directory", "iii:i"),
    ("path_rename", "iiiiii:i"),
    ("path_symlink", "iiiii:i"),
    ("path_unlink_file", "iii:i"),
    ("poll_oneoff", "iiii:i"),
    ("proc_exit", "i:"),
    ("proc_raise", "i:i"),
    ("random_get", "ii:i"),
    ("sched_yield", ":i"),
    ("sock_accept", "iii:i"),
    ("sock_recv", "iiiiii:i"),
    ("sock_send", "iiiii:i"),
    ("sock_shutdown", "ii:i"),
];
