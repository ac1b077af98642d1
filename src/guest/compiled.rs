//! A compiled module, shared by its guests.

use super::{
    engine::{self, Parse},
    grow, instrument,
    instrumented::{self, Preamble},
    keep_buffer, start, wasmi_bugs,
};
use crate::{
    abi::{AbiVersion, ModuleShape, check},
    error::{EngineError, LoadError},
    limits::Limits,
    load_options::LoadOptions,
    structure::Structure,
};
use alloc::borrow::Cow;

/// A module that was compiled and conforms to the ABI.
pub(crate) struct Compiled {
    pub(super) module: wasmi::Module,
    pub(crate) abi: AbiVersion,
    pub(crate) limits: Limits,
    pub(super) instrumentation: instrument::Instrumentation,
    pub(super) has_start: bool,
    pub(crate) instance_bytes: usize,
    /// Fuel that the time of making an instance is worth.
    pub(crate) instantiation_cost: u64,
    /// Whether guests keep their buffer for payloads between events.
    pub(crate) keeps_buffer: bool,
}

impl Compiled {
    pub(crate) fn new(
        wasm: &[u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        if instrumented::is_instrumented(wasm) {
            return Err(LoadError::AlreadyInstrumented);
        }
        let structure = measured(wasm, limits, options)?;
        let (rewritten, instrumentation) = rewrite(wasm, options)?;
        let mut compiled = Self::of_rewritten(
            &rewritten,
            structure,
            instrumentation,
            limits,
            options,
            parse,
        )?;
        compiled.keep_baseline()?;
        Ok(compiled)
    }

    /// Of a module that [`instrumented`] has made.
    pub(crate) fn of_instrumented(
        wasm: &'static [u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        let preamble = Preamble::read(wasm)?;
        let mut structure = measured(wasm, limits, options)?;
        structure.has_start = preamble.has_start;
        let instrumentation = instrument::of_preamble(&preamble, limits, options)?;
        Self::of_rewritten(wasm, structure, instrumentation, limits, options, parse)
    }

    fn of_rewritten(
        wasm: &[u8],
        structure: Structure,
        instrumentation: instrument::Instrumentation,
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        let invalid = |error| LoadError::Invalid(EngineError::new(error));
        let engine = engine::engine(limits, options, &structure);
        let module = parse(&engine, wasm).map_err(invalid)?;
        let abi = check_abi(&module, wasm)?;
        let keeps_buffer = keep_buffer::keeps_buffer(&module, abi, wasm, options.payload_buffer);
        Ok(Self {
            module,
            abi,
            limits: *limits,
            instrumentation,
            has_start: structure.has_start,
            instance_bytes: structure.instance_bytes(size_of::<usize>()),
            instantiation_cost: structure.instantiation_cost(),
            keeps_buffer,
        })
    }

    /// Whether its guests can return their state for those of another module.
    pub(crate) fn has_save(&self) -> bool {
        let handlers = &self.abi.description().handlers;
        self.module.get_export(handlers.save.export).is_some()
    }

    /// Whether its guests can go on with the state of another module's.
    pub(crate) fn has_load(&self) -> bool {
        let handlers = &self.abi.description().handlers;
        self.module.get_export(handlers.load.export).is_some()
    }

    /// Imports (module, name, kind) and exports (name, kind).
    pub(crate) fn shape(&self) -> ModuleShape<'_> {
        engine::shape(&self.module, &[])
    }
}

/// The module as the interpreter is given it.
pub(super) fn rewrite(
    wasm: &[u8],
    options: LoadOptions,
) -> Result<(Cow<'_, [u8]>, instrument::Instrumentation), LoadError> {
    let rewritten = start::export_start(wasm);
    let rewritten = grow::isolate_growth(&rewritten).map_or(rewritten, Cow::Owned);
    let rewritten = wasmi_bugs::separate_operands(&rewritten).map_or(rewritten, Cow::Owned);
    instrument::instrument(rewritten, wasm, options)
}

/// The structure of a module whose rooms are within the limits from the start.
#[inline(never)]
fn measured(wasm: &[u8], limits: &Limits, options: LoadOptions) -> Result<Structure, LoadError> {
    #[cfg(feature = "simd")]
    if options.simd
        && let Some(instruction) = wasmi_bugs::find_misread_store(wasm)
    {
        return Err(LoadError::Misread { instruction });
    }
    #[cfg(not(feature = "simd"))]
    let _ = options;
    let structure = Structure::of(wasm);
    structure.check(limits)?;
    Ok(structure)
}

/// Out of line, so that its frame is not on the stack while a module is parsed, which takes most.
#[inline(never)]
fn check_abi(module: &wasmi::Module, wasm: &[u8]) -> Result<AbiVersion, LoadError> {
    check(&engine::shape(module, wasm)).map_err(|(abi, problems)| LoadError::Abi { abi, problems })
}
