//! The modules, and how one is loaded if there is memory for it.

use core::fmt;
use stateroom_wasmi_host::{Compilation, Limits, LoadError, Module, OpenError, driver::link::CarryError};

/// The name of a bundled room, and its module.
pub type Bundled = (&'static str, &'static [u8]);

macro_rules! bundled {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../rooms/wasm/", $name, ".wasm")))
    };
}

pub const CHAT: Bundled = bundled!("chat-rust-small");
pub const CLOCK: Bundled = bundled!("clock-rust-small");
pub const HOSTILE: Bundled = bundled!("hostile-rust-small");
pub const ECHO: Bundled = bundled!("echo-rust-no-std-small-page");
pub const ECHO_C: Bundled = bundled!("echo-c");
pub const ECHO_WAT: Bundled = bundled!("echo-wat");

/// Those that are written for little memory, or fit into one page of 64 KiB.
pub const SMALL: [Bundled; 11] = [
    ECHO_WAT,
    bundled!("echo-rust-no-std"),
    ECHO,
    bundled!("floats-wat"),
    ECHO_C,
    HOSTILE,
    CLOCK,
    bundled!("counter-c"),
    bundled!("echo-assemblyscript"),
    bundled!("clock-assemblyscript"),
    CHAT,
];

/// Those made with the SDKs: too many for a small flash, and too large for a small heap.
pub const SDK: [Bundled; 14] = [
    bundled!("echo-rust-0.2"),
    bundled!("counter-rust-0.2"),
    bundled!("clock-rust-0.2"),
    bundled!("cursors-rust-0.2"),
    bundled!("chat-rust-0.2"),
    bundled!("echo-rust-0.2-wasi"),
    bundled!("dice-rust-0.2-wasi"),
    bundled!("echo-rust-0.4"),
    bundled!("counter-rust-0.4"),
    bundled!("clock-rust-0.4"),
    bundled!("cursors-rust-0.4"),
    bundled!("chat-rust-0.4"),
    bundled!("echo-rust-0.4-wasi"),
    bundled!("dice-rust-0.4-wasi"),
];

/// Loads a module if it and one room of it fit into so many bytes of the heap.
pub fn load(wasm: &[u8], limits: &Limits, free: usize) -> Result<Module, Refused> {
    let needed = Module::heap_estimate(wasm, limits).with_one_room();
    if needed > free {
        return Err(Refused::NoMemory { needed, free });
    }
    Module::load_with(wasm, limits, Compilation::Eager).map_err(Refused::Load)
}

/// Why a room is not there.
pub enum Refused {
    /// Nothing was tried.
    NoMemory {
        needed: usize,
        free: usize,
    },
    Load(LoadError),
    Open(OpenError),
    Carry(CarryError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory { needed, free } => {
                write!(f, "it takes about {needed} bytes of heap, and {free} are free")
            }
            Self::Load(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Carry(error) => error.fmt(f),
        }
    }
}
