//! The interpreter's configuration, and its types translated into the ABI's.

use super::wasmi_bugs::{MEMORY_GROW_COST, TABLE_GROW_COST};
use crate::{
    abi::{ExternKind, ModuleShape, Signature, ValueType, find_versions},
    limits::Limits,
    load_options::{Compilation, LoadOptions},
    structure::Structure,
};
use wasmi::{
    CompilationMode, Config, CustomFuelCosts, Engine, Error, ExternType, OperatorCost, ValType,
};

/// The version of wasmi, and a number that counts changes of this crate to what guests can observe.
pub(crate) const ENGINE_VERSION: [u8; 4] = [2, 0, 0, 1];

/// Code beyond which a module is compiled when it is loaded, whatever the options say: translating a
/// function costs no fuel, so an event must never wait for much of it.
const MAX_LAZY_CODE_BYTES: usize = 256 << 10;

/// An engine for one module; threads that share an engine contend for it.
pub(super) fn engine(limits: &Limits, options: LoadOptions, structure: &Structure) -> Engine {
    let mut config = Config::default();
    let compilation = match options.compilation {
        _ if structure.code_bytes > MAX_LAZY_CODE_BYTES => Compilation::Eager,
        compilation => compilation,
    };
    config
        .consume_fuel(limits.max_fuel_per_event.is_some())
        // Translation must cost nothing: the first room would pay for all others, and running out of
        // fuel while a callee is translated ends a call instead of pausing it.
        .fuel_cost(CustomFuelCosts {
            bytes_copied_per_fuel: 64,
            fuel_per_bytes_translated: 0,
            fuel_per_bytes_validated: 0,
        })
        .operator_cost(operator_costs())
        // Debug information would cost megabytes.
        .ignore_custom_sections(true)
        .set_max_recursion_depth(limits.max_recursion_depth)
        .set_min_stack_height(limits.max_stack_bytes.min(1024))
        .set_max_stack_height(limits.max_stack_bytes)
        .compilation_mode(match compilation {
            Compilation::Eager => CompilationMode::Eager,
            Compilation::Lazy => CompilationMode::LazyTranslation,
            Compilation::OnDemand => CompilationMode::Lazy,
        });
    // Proposals can be disabled only when the validator is compiled in.
    #[cfg(feature = "validate")]
    config.wasm_custom_page_sizes(true);
    #[cfg(all(feature = "validate", feature = "simd"))]
    config
        .wasm_simd(options.simd)
        .wasm_relaxed_simd(options.simd);
    Engine::new(&config)
}

/// What an instruction costs by itself. Most cost one unit.
fn operator_costs() -> OperatorCost {
    OperatorCost {
        memory_grow: MEMORY_GROW_COST,
        table_grow: TABLE_GROW_COST,
        ..OperatorCost::default()
    }
}

/// Parses the bytes of a module.
pub(crate) type Parse = fn(&Engine, &[u8]) -> Result<wasmi::Module, Error>;

/// Parses and validates a module.
#[cfg(feature = "validate")]
pub(crate) fn validated(engine: &Engine, wasm: &[u8]) -> Result<wasmi::Module, Error> {
    wasmi::Module::new(engine, wasm)
}

/// The beginning of the names of exports that the host adds to a module.
pub(super) const ADDED: &str = "stateroom-wasmi-host:";

/// The module's own imports and exports.
pub(super) fn shape<'a>(module: &'a wasmi::Module, wasm: &'a [u8]) -> ModuleShape<'a> {
    let exports = module
        .exports()
        .filter(|export| !export.name().starts_with(ADDED));
    ModuleShape {
        imports: module
            .imports()
            .map(|i| (i.module(), i.name(), extern_kind(i.ty())))
            .collect(),
        exports: exports.map(|e| (e.name(), extern_kind(e.ty()))).collect(),
        versions: find_versions(wasm),
    }
}

fn extern_kind(ty: &ExternType) -> ExternKind {
    match ty {
        ExternType::Func(ty) => ExternKind::Func(Signature {
            params: ty.params().iter().map(|ty| value_type(*ty)).collect(),
            results: ty.results().iter().map(|ty| value_type(*ty)).collect(),
        }),
        ExternType::Memory(_) => ExternKind::Memory,
        ExternType::Table(_) => ExternKind::Table,
        ExternType::Global(ty) => ExternKind::Global(value_type(ty.content())),
    }
}

const fn value_type(ty: ValType) -> ValueType {
    match ty {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::V128 => ValueType::V128,
        ValType::FuncRef => ValueType::FuncRef,
        ValType::ExternRef => ValueType::ExternRef,
    }
}
