//! The functions that a guest may call.

mod context;
mod stateroom;
#[cfg_attr(not(feature = "wasi"), path = "wasi_off.rs")]
pub(super) mod wasi;

use super::host_state::HostState;
use crate::abi::{ENV, wasi::WasiVersion};
use alloc::vec::Vec;
use wasmi::{Extern, ExternType, Func, ImportType, Store};

/// The host functions that a module imports, in its order. The ABI check has accepted all of them.
pub(super) fn functions(module: &wasmi::Module, store: &mut Store<HostState>) -> Vec<Extern> {
    module
        .imports()
        .filter_map(|import| function(&import, store))
        .map(Extern::Func)
        .collect()
}

fn function(import: &ImportType<'_>, store: &mut Store<HostState>) -> Option<Func> {
    let name = import.name();
    match (import.module(), import.ty()) {
        (ENV, _) => stateroom::function(store, name),
        (module, ExternType::Func(ty)) => {
            WasiVersion::imported_as(module).map(|version| wasi::function(store, version, name, ty))
        }
        _ => None,
    }
}
