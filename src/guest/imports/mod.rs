//! What a module imports, linked to what the host has.

mod context;
mod stateroom;
mod wasi;

use super::host_state::State;
use crate::abi::{self, wasi_signature};
use wasmi::{Linker, errors::LinkerError};

/// A linker with exactly what the module imports; the ABI check has seen that the host has it.
pub(super) fn linker(module: &wasmi::Module) -> Result<Linker<State>, LinkerError> {
    let mut linker = Linker::new(module.engine());
    // Importing one thing twice is allowed.
    linker.allow_shadowing(true);
    for import in module.imports() {
        let (module, name) = (import.module(), import.name());
        match (module, name) {
            ("env", "send_message") => linker.func_wrap(module, name, stateroom::send_message)?,
            ("env", "send_binary") => linker.func_wrap(module, name, stateroom::send_binary)?,
            ("env", "set_timer") => linker.func_wrap(module, name, stateroom::set_timer)?,
            ("env", "stateroom_send") => {
                linker.func_wrap(module, name, stateroom::stateroom_send)?
            }
            (abi::WASI, _) => match wasi_signature(name) {
                Some(signature) => wasi::define(&mut linker, name, &signature)?,
                None => continue,
            },
            _ => continue,
        };
    }
    Ok(linker)
}
