//! Names and signatures: what a module must export and what it may import.
//!
//! Signatures are in the shorthand of [`Signature`]: `i` is an i32, `I` an i64, results follow the
//! colon. The unsigned numbers of the ABI are i32 in WebAssembly.

use super::{AbiVersion, Signature};

/// A name with the signature of its function.
pub(crate) type Named = (&'static str, &'static str);

pub(crate) const MEMORY: &str = "memory";

/// What a module of this ABI must export besides its memory. Source: `stateroom-wasm-macro` 0.2.9
/// and 0.4.0.
pub(crate) const fn exports(abi: AbiVersion) -> &'static [Named] {
    match abi {
        AbiVersion::V0_2 => &[
            ("jam_malloc", "i:i"),
            ("jam_free", "ii:"),
            ("initialize", "ii:"),
            ("connect", "i:"),
            ("disconnect", "i:"),
            ("timer", ":"),
            ("message", "iii:"),
            ("binary", "iii:"),
        ],
        AbiVersion::V0_4 => &[
            ("stateroom_malloc", "i:i"),
            ("stateroom_free", "ii:"),
            ("stateroom_recv", "ii:"),
        ],
    }
}

/// What a module may export: a WASI reactor's constructor, called first.
pub(crate) const REACTOR: Named = ("_initialize", ":");

/// The exported globals that hold the addresses of the two version numbers, with what those
/// numbers must be. A guest without them is accepted, since the documented interface of 0.2 does
/// not list them.
pub(crate) const fn versions(abi: AbiVersion) -> [(&'static str, i32); 2] {
    match abi {
        AbiVersion::V0_2 => [("JAMSOCKET_API_VERSION", 1), ("JAMSOCKET_API_PROTOCOL", 0)],
        AbiVersion::V0_4 => [("STATEROOM_API_VERSION", 1), ("STATEROOM_API_PROTOCOL", 0)],
    }
}

/// What a module of this ABI may import from `env`.
const fn env_imports(abi: AbiVersion) -> &'static [Named] {
    match abi {
        AbiVersion::V0_2 => &[
            ("send_message", "iii:"),
            ("send_binary", "iii:"),
            ("set_timer", "i:"),
        ],
        AbiVersion::V0_4 => &[("stateroom_send", "ii:")],
    }
}

/// The module name of the WASI functions.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";

/// All of WASI preview 1. Source: `wasi_snapshot_preview1.witx`.
const WASI_FUNCTIONS: &[Named] = &[
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

/// The signature of a WASI function, if there is one of that name.
pub(crate) fn wasi_signature(name: &str) -> Option<Signature> {
    find(WASI_FUNCTIONS, name)
}

/// The signature of what a module of this ABI may import by these names, if it may.
pub(crate) fn import_signature(abi: AbiVersion, module: &str, name: &str) -> Option<Signature> {
    match module {
        "env" => find(env_imports(abi), name),
        WASI => wasi_signature(name),
        _ => None,
    }
}

fn find(table: &[Named], name: &str) -> Option<Signature> {
    let (_, shorthand) = table.iter().find(|(known, _)| *known == name)?;
    Some(Signature::from_shorthand(shorthand))
}
