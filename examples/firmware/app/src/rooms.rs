//! The bundled modules, and loading one if there is memory for it.

use crate::heap::Free;
use core::fmt;
use stateroom_wasmi_host::{
    Compilation, HeapEstimate, Limits, LoadError, LoadOptions, Module, OpenError,
};
use stateroom_wasmi_link::AddRoomError;

/// A bundled room: one of the constants below.
#[derive(Clone, Copy)]
pub struct Bundled {
    pub name: &'static str,
    /// As the build script has instrumented it.
    wasm: &'static [u8],
}

impl Bundled {
    /// How much heap it needs.
    pub fn estimate(self, limits: &Limits) -> HeapEstimate {
        Module::heap_estimate(self.wasm, limits)
    }

    /// Loads the module without checking that there is memory for it.
    ///
    /// # Errors
    ///
    /// If it does not load, which does not depend on what clients do.
    pub fn load(self, limits: &Limits) -> Result<Module, LoadError> {
        self.load_with(limits, LoadOptions::from(Compilation::Eager))
    }

    /// Loads the module for rooms that are saved.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    #[cfg(feature = "snapshot")]
    pub fn load_for_snapshots(self, limits: &Limits) -> Result<Module, LoadError> {
        self.load_with(
            limits,
            LoadOptions::from(Compilation::Eager).snapshots(true),
        )
    }

    fn load_with(self, limits: &Limits, options: LoadOptions) -> Result<Module, LoadError> {
        #[cfg(feature = "validate")]
        return Module::load_instrumented(self.wasm, limits, options);
        // SAFETY: it is part of this program, whose build script has instrumented it, and before that
        // validated it.
        #[cfg(not(feature = "validate"))]
        return unsafe { Module::load_instrumented_unchecked(self.wasm, limits, options) };
    }

    /// Loads the module, for rooms that are saved where rooms are saved at all, if it and one room of it
    /// fit into `free`; returns the rest.
    ///
    /// # Errors
    ///
    /// If it does not fit, or does not load.
    pub fn load_within(self, limits: &Limits, free: Free) -> Result<(Module, Free), RoomError> {
        #[cfg(feature = "snapshot")]
        let load = Self::load_for_snapshots;
        #[cfg(not(feature = "snapshot"))]
        let load = Self::load;
        let rest =
            free.reserve(self.estimate(limits))
                .map_err(|needed| RoomError::OutOfMemory {
                    needed,
                    free: free.heap,
                })?;
        Ok((load(self, limits).map_err(RoomError::Load)?, rest))
    }
}

macro_rules! bundled {
    ($name:literal) => {
        Bundled {
            name: $name,
            wasm: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
        }
    };
}

pub const CHAT: Bundled = bundled!("chat-rust-small");
pub const CLOCK: Bundled = bundled!("clock-rust-small");
pub const HOSTILE: Bundled = bundled!("hostile-rust-small");
pub const ECHO: Bundled = bundled!("echo-rust-no-std-small-page");
pub const ECHO_C: Bundled = bundled!("echo-c");
pub const ECHO_WAT: Bundled = bundled!("echo-wat");

/// Rooms that are written for little memory, or fit into one page of 64 KiB.
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

/// Rooms made with the SDKs: too many for a small flash, and too large for a small heap. Some import
/// functions of WASI, so that a program which loads them needs the feature `wasi`.
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

/// Why a room could not be opened.
pub enum RoomError {
    /// Nothing was allocated.
    OutOfMemory {
        needed: usize,
        free: usize,
    },
    Load(LoadError),
    Open(OpenError),
    AddRoom(AddRoomError),
}

impl fmt::Display for RoomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { needed, free } => {
                write!(
                    f,
                    "out of memory: about {needed} bytes of heap needed, {free} free"
                )
            }
            Self::Load(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::AddRoom(error) => error.fmt(f),
        }
    }
}
