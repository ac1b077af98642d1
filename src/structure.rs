//! What a module is made of, counted from its bytes, before anything is compiled.

use crate::{abi::ENV, error::LoadError, limits::Limits};
use wasmparser::{
    BinaryReader, ConstExpr, DataKind, ElementItems, ElementKind, FunctionBody, Parser, Payload,
    TableInit, TypeRef, ValType,
};

/// The counts of a module's parts that its rooms pay for. Where the module is invalid, counting
/// stops: the engine reports that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Structure {
    /// Bytes of custom sections, which are not kept.
    pub(crate) custom_bytes: usize,
    /// Bytes of the code section.
    pub(crate) code_bytes: usize,
    /// Initial bytes of all memories.
    pub(crate) memory_bytes: u64,
    /// Initial elements of all tables.
    table_elements: u64,
    /// Locals of the function that has most of them, without its parameters.
    max_locals: u64,
    /// Parameters or results of the type that has most of them.
    max_values: u64,
    /// Bytes of the longest constant expression.
    max_constant_bytes: u64,
    imports: usize,
    /// Imports that are not of the ABI itself.
    wasi_imports: usize,
    functions: usize,
    globals: usize,
    exports: usize,
    /// Bytes of their names.
    export_name_bytes: usize,
    tables: usize,
    pub(crate) memories: usize,
    data_segments: usize,
    data_bytes: usize,
    element_segments: usize,
    /// Elements of all segments.
    segment_elements: usize,
    /// Whether it has a start function.
    pub(crate) has_start: bool,
}

/// Parameters or results of a type. A branch with many values is translated to as many copies, so that
/// a module of some KiB could become gigabytes. Compilers pass the rest in memory.
const MAX_VALUES: usize = 32;

/// The interpreter evaluates constant expressions by recursion. Compilers emit one instruction or three.
const MAX_CONSTANT_BYTES: usize = 128;

/// Each costs some bytes even when it is empty.
pub(crate) const MAX_TABLES: usize = 64;
/// The same.
pub(crate) const MAX_MEMORIES: usize = 64;

/// What one room of a module takes of the host's heap and time, besides its linear memory.
///
/// The figures of each part are upper bounds that were measured with wasmi 2.0.0 (heap in pointers:
/// its arenas grow by doubling).
struct Weight {
    pointers: usize,
    /// Fuel that the time of its instantiation is worth.
    fuel: u64,
}

const FUNCTION: Weight = weight(13, 30);
const GLOBAL: Weight = weight(7, 30);
const EXPORT: Weight = weight(11, 300);
const IMPORT: Weight = weight(19, 200);
/// One without an effect has a copy of its parameters and results.
const WASI_IMPORT: Weight = weight(87, 200);
const TABLE: Weight = weight(14, 60);
const MEMORY: Weight = weight(20, 60);
const TABLE_ELEMENT: Weight = weight(1, 1);
const SEGMENT: Weight = weight(9, 50);
const SEGMENT_ELEMENT: Weight = weight(1, 4);

const fn weight(pointers: usize, fuel: u64) -> Weight {
    Weight { pointers, fuel }
}

impl Structure {
    pub(crate) fn of(wasm: &[u8]) -> Self {
        let mut structure = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let Ok(payload) = payload else { break };
            structure.count(payload, wasm);
        }
        structure
    }

    fn count(&mut self, payload: Payload<'_>, wasm: &[u8]) {
        match payload {
            Payload::CustomSection(section) => self.custom_bytes += section.range().len(),
            Payload::ImportSection(section) => {
                for import in section.into_iter().flatten() {
                    match import.module {
                        ENV => self.imports += 1,
                        _ => self.wasi_imports += 1,
                    }
                    if let TypeRef::Memory(ty) = import.ty {
                        self.count_memory(&ty);
                    }
                }
            }
            Payload::TypeSection(section) => {
                let contents = wasm.get(section.range()).unwrap_or_default();
                self.max_values = max_values(contents).max(self.max_values);
            }
            Payload::FunctionSection(section) => self.functions += section.count() as usize,
            Payload::TableSection(section) => {
                for table in section.into_iter().flatten() {
                    self.tables += 1;
                    if let TableInit::Expr(init) = &table.init {
                        self.count_constant(init);
                    }
                    self.table_elements = self.table_elements.saturating_add(table.ty.initial);
                }
            }
            Payload::MemorySection(section) => {
                for ty in section.into_iter().flatten() {
                    self.count_memory(&ty);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section.into_iter().flatten() {
                    self.globals += 1;
                    self.count_constant(&global.init_expr);
                }
            }
            Payload::ExportSection(section) => {
                for export in section.into_iter().flatten() {
                    self.exports += 1;
                    self.export_name_bytes += export.name.len();
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::ElementSection(section) => {
                for segment in section.into_iter().flatten() {
                    self.element_segments += 1;
                    if let ElementKind::Active { offset_expr, .. } = &segment.kind {
                        self.count_constant(offset_expr);
                    }
                    match segment.items {
                        ElementItems::Functions(items) => {
                            self.segment_elements += items.count() as usize;
                        }
                        ElementItems::Expressions(_, items) => {
                            for item in items.into_iter().flatten() {
                                self.segment_elements += 1;
                                self.count_constant(&item);
                            }
                        }
                    }
                }
            }
            Payload::DataSection(section) => {
                self.data_bytes += section.range().len();
                for segment in section.into_iter().flatten() {
                    self.data_segments += 1;
                    if let DataKind::Active { offset_expr, .. } = &segment.kind {
                        self.count_constant(offset_expr);
                    }
                }
            }
            Payload::CodeSectionStart { size, .. } => self.code_bytes = size as usize,
            Payload::CodeSectionEntry(body) => {
                self.max_locals = self.max_locals.max(count_locals(&body));
            }
            _ => {}
        }
    }

    fn count_constant(&mut self, expression: &ConstExpr<'_>) {
        let bytes = expression.get_binary_reader().bytes_remaining() as u64;
        self.max_constant_bytes = self.max_constant_bytes.max(bytes);
    }

    fn count_memory(&mut self, ty: &wasmparser::MemoryType) {
        self.memories += 1;
        let page_bytes = 1_u64 << ty.page_size_log2.unwrap_or(16).min(16);
        let bytes = ty.initial.saturating_mul(page_bytes);
        self.memory_bytes = self.memory_bytes.saturating_add(bytes);
    }

    fn parts(&self) -> [(usize, Weight); 11] {
        [
            (self.functions, FUNCTION),
            (self.globals, GLOBAL),
            (self.exports, EXPORT),
            (self.imports, IMPORT),
            (self.wasi_imports, WASI_IMPORT),
            (self.tables, TABLE),
            // Every instance has one.
            (self.memories.saturating_sub(1), MEMORY),
            (to_usize(self.table_elements), TABLE_ELEMENT),
            (self.data_segments, SEGMENT),
            (self.element_segments, SEGMENT),
            (self.segment_elements, SEGMENT_ELEMENT),
        ]
    }

    /// Heap of one instance in bytes, besides its linear memory and what every instance takes.
    pub(crate) fn instance_bytes(&self, pointer_bytes: usize) -> usize {
        let pointers = self.parts().iter().fold(0_usize, |sum, (count, weight)| {
            sum.saturating_add(count.saturating_mul(weight.pointers))
        });
        pointers
            .saturating_mul(pointer_bytes)
            .saturating_add(self.export_name_bytes)
    }

    /// Fuel that the time of an instantiation is worth, with its memory.
    pub(crate) fn instantiation_cost(&self) -> u64 {
        let parts = self.parts().iter().fold(0_u64, |sum, (count, weight)| {
            sum.saturating_add((*count as u64).saturating_mul(weight.fuel))
        });
        let bytes = to_usize(self.memory_bytes)
            .saturating_add(self.data_bytes)
            .saturating_add(self.export_name_bytes);
        parts.saturating_add(memory_cost(bytes))
    }

    /// # Errors
    ///
    /// If rooms of the module would not be within the limits from the start.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), LoadError> {
        let checks = [
            (
                "bytes of initial memory",
                self.memory_bytes,
                limits.max_memory_bytes,
            ),
            (
                "parameters or results in one type",
                self.max_values,
                MAX_VALUES,
            ),
            (
                "bytes in one constant expression",
                self.max_constant_bytes,
                MAX_CONSTANT_BYTES,
            ),
            ("tables", self.tables as u64, MAX_TABLES),
            ("memories", self.memories as u64, MAX_MEMORIES),
            (
                "initial elements in its tables",
                self.table_elements,
                limits.max_table_elements,
            ),
            (
                "locals in one function",
                self.max_locals,
                limits.max_function_locals,
            ),
            (
                "bytes of functions, globals, exports and segments in each room",
                self.instance_bytes(size_of::<usize>()) as u64,
                limits.max_instance_bytes,
            ),
        ];
        for (what, count, limit) in checks {
            let limit = limit as u64;
            if count > limit {
                return Err(LoadError::TooMany { what, count, limit });
            }
        }
        Ok(())
    }
}

/// Fuel that the time is worth of giving a guest so much memory: most is the operating system's, for
/// its pages.
pub(crate) const fn memory_cost(bytes: usize) -> u64 {
    bytes as u64 / 2
}

/// Fuel that the time is worth of looking through a guest's memory for what is not zero, and copying
/// that.
#[cfg(feature = "snapshot")]
pub(crate) const fn copy_cost(bytes: usize) -> u64 {
    bytes as u64 / 8
}

/// The most parameters or results in a section of types. (The parser's own types allocate.)
fn max_values(types: &[u8]) -> u64 {
    let mut max = 0;
    // What is invalid is refused later.
    let _ = find_max_values(&mut BinaryReader::new(types, 0), &mut max);
    max
}

fn find_max_values(types: &mut BinaryReader<'_>, max: &mut u64) -> wasmparser::Result<()> {
    const FUNCTION: u8 = 0x60;
    for _ in 0..types.read_var_u32()? {
        if types.read_u8()? != FUNCTION {
            break;
        }
        for _ in ["parameters", "results"] {
            let count = types.read_var_u32()?;
            *max = u64::from(count).max(*max);
            for _ in 0..count {
                types.read::<ValType>()?;
            }
        }
    }
    Ok(())
}

fn count_locals(body: &FunctionBody<'_>) -> u64 {
    let locals = body.get_locals_reader().into_iter().flatten().flatten();
    locals.map(|(count, _)| u64::from(count)).sum()
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
