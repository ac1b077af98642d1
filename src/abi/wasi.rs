//! WASI: the functions that a module of either ABI may import, and the layouts of their structures.
//!
//! Sources: `wasi_unstable.witx` and `wasi_snapshot_preview1.witx`. The two have the same functions,
//! but for `sock_accept`, and nearly the same layouts.

use super::{
    Signature,
    description::{Function, find},
};

/// An optional export, called once before everything else: the constructor of a WASI reactor.
pub(crate) const CONSTRUCTOR: Function = ("_initialize", ":");

/// The export that runs a command, and that no room needs.
pub(crate) const COMMAND: &str = "_start";

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
}

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
