//! A compiled module, shared by its guests.

use super::{
    engine::{self, Parse},
    host_state::HostState,
    imports, instrument,
};
use crate::{
    abi::{AbiVersion, ModuleShape, check},
    error::{EngineError, LoadError},
    limits::Limits,
    load_options::LoadOptions,
};
use wasmi::Linker;

/// A module that was compiled and conforms to the ABI, with its imports linked.
pub(crate) struct Compiled {
    pub(super) module: wasmi::Module,
    pub(super) linker: Linker<HostState>,
    pub(crate) abi: AbiVersion,
    pub(crate) limits: Limits,
    pub(super) instrumented: instrument::AddedExports,
}

impl Compiled {
    pub(crate) fn new(
        wasm: &[u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        #[cfg(feature = "simd")]
        if options.simd
            && let Some(instruction) = super::wasmi_bugs::find_misread_store(wasm)
        {
            return Err(LoadError::Misread { instruction });
        }
        let (wasm, instrumented) = instrument::instrument(wasm, options)?;
        let invalid = |error| LoadError::Invalid(EngineError::new(error));
        let engine = engine::engine(limits, options);
        let module = parse(&engine, &wasm).map_err(invalid)?;
        let abi = check_abi(&module, &wasm)?;
        let linker = imports::linker(&module).map_err(|error| invalid(error.into()))?;
        Ok(Self {
            module,
            linker,
            abi,
            limits: *limits,
            instrumented,
        })
    }

    /// Imports (module, name, kind) and exports (name, kind).
    pub(crate) fn shape(&self) -> ModuleShape<'_> {
        engine::shape(&self.module, &[])
    }
}

/// Out of line, so that its frame is not on the stack while a module is parsed, which takes most.
#[inline(never)]
fn check_abi(module: &wasmi::Module, wasm: &[u8]) -> Result<AbiVersion, LoadError> {
    check(&engine::shape(module, wasm)).map_err(|(abi, problems)| LoadError::Abi { abi, problems })
}
