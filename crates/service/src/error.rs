//! Why there is no service.

use stateroom_wasmi_host::{Fault, LoadError, OpenError};
use std::{error::Error, fmt, io, path::PathBuf};

/// Why a module could not be loaded, or a room of it not be built: what the [`anyhow::Error`] of this
/// crate's functions can be downcast to.
#[derive(Debug)]
#[non_exhaustive]
pub enum WasmRuntimeError {
    /// The file cannot be read.
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The module is no room; all that is wrong with it.
    Load(LoadError),
    /// A room of the module cannot be opened.
    Open(OpenError),
    /// The guest failed while it was initialised.
    Fault(Fault),
}

impl fmt::Display for WasmRuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "cannot read the module {path:?}"),
            Self::Load(_) => f.write_str("cannot load the module"),
            Self::Open(_) => f.write_str("cannot open the room"),
            Self::Fault(_) => f.write_str("cannot initialise the room"),
        }
    }
}

impl Error for WasmRuntimeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(match self {
            Self::File { error, .. } => error,
            Self::Load(error) => error,
            Self::Open(error) => error,
            Self::Fault(fault) => fault,
        })
    }
}
