//! The functions that a guest may call.

mod context;
mod stateroom;
#[cfg_attr(not(feature = "wasi"), path = "wasi_off.rs")]
pub(super) mod wasi;

use super::host_state::HostState;
use crate::abi::{ENV, wasi::WasiVersion};
use wasmi::{ExternType, Linker, errors::LinkerError};

/// A linker with exactly the module's imports, which the ABI check has accepted.
pub(super) fn linker(module: &wasmi::Module) -> Result<Linker<HostState>, LinkerError> {
    let mut linker = Linker::new(module.engine());
    // A module may import a function twice.
    linker.allow_shadowing(true);
    for import in module.imports() {
        let name = import.name();
        match import.module() {
            ENV => stateroom::define(&mut linker, name)?,
            module => {
                if let Some(version) = WasiVersion::imported_as(module)
                    && let ExternType::Func(ty) = import.ty()
                {
                    wasi::define(&mut linker, version, name, ty)?;
                }
            }
        }
    }
    Ok(linker)
}
