//! Instructions that grow a memory or a table, each moved into a function of its own.
//!
//! Where wasmi dispatches by tail calls, `memory.grow` and `table.grow` by anything but 0 return by a
//! call instead of a jump, and leave about 200 bytes on the host's stack until the interpreter is
//! left. They cost fuel accordingly, and the interpreter is left after so much of it
//! ([`MAX_UNINTERRUPTED_FUEL`](super::wasmi_bugs::MAX_UNINTERRUPTED_FUEL)). But fuel is taken for a
//! whole block when that is entered: what a recursive function does after its calls was paid for long
//! before, and would run without a pause. In a function that does nothing else, each is paid for when
//! it runs.
//!
//! The loop that bare metal dispatches with has no such frames. Its modules are rewritten all the same:
//! a block that may grow something, but does not, costs what it costs everywhere.

use super::rewrite::{push_leb128, push_section, with_entries};
use alloc::vec::Vec;
use core::ops::Range;
use wasmparser::{FunctionBody, Operator, Parser, Payload, RefType, TypeRef};

const TYPE_SECTION: u8 = 1;
const FUNCTION_SECTION: u8 = 3;
const CODE_SECTION: u8 = 10;

/// The module with all that grows something in functions that do nothing else. None if there is
/// nothing, or the module is invalid, which the engine reports.
pub(super) fn isolate_growth(wasm: &[u8]) -> Option<Vec<u8>> {
    Growth::of(wasm)?.rewrite(wasm)
}

/// What an instruction grows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Memory(u32),
    Table(u32),
}

/// The instructions of a module that grow something.
#[derive(Default)]
struct Growth {
    types: u32,
    functions: u32,
    tables: Vec<RefType>,
    /// Each has a function.
    targets: Vec<Target>,
    /// Where the instructions are, in order, and which of the targets they grow.
    instructions: Vec<(Range<usize>, u32)>,
}

impl Growth {
    /// None if there are none, or the module is invalid.
    fn of(wasm: &[u8]) -> Option<Self> {
        let mut growth = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.ok()? {
                Payload::TypeSection(types) => growth.types = types.count(),
                Payload::ImportSection(imports) => {
                    let is_function =
                        |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_));
                    let functions = imports.into_iter().flatten().filter(is_function).count();
                    growth.functions = functions as u32;
                }
                Payload::FunctionSection(functions) => growth.functions += functions.count(),
                Payload::TableSection(tables) => {
                    let tables = tables.into_iter().flatten();
                    growth.tables = tables.map(|table| table.ty.element_type).collect();
                }
                Payload::CodeSectionEntry(body) if may_grow(body.as_bytes()) => growth.find(&body),
                _ => {}
            }
        }
        (!growth.instructions.is_empty()).then_some(growth)
    }

    /// Finds the instructions of a function. Nothing after an invalid one ever runs.
    fn find(&mut self, body: &FunctionBody<'_>) {
        let Ok(mut reader) = body.get_operators_reader() else {
            return;
        };
        while !reader.eof() {
            let from = reader.original_position();
            let target = match reader.read() {
                Ok(Operator::MemoryGrow { mem }) => Target::Memory(mem),
                Ok(Operator::TableGrow { table }) => Target::Table(table),
                Ok(_) => continue,
                Err(_) => return,
            };
            let known = self.targets.iter().position(|known| *known == target);
            let index = known.unwrap_or_else(|| {
                self.targets.push(target);
                self.targets.len() - 1
            });
            let range = from..reader.original_position();
            self.instructions.push((range, index as u32));
        }
    }

    fn rewrite(&self, wasm: &[u8]) -> Option<Vec<u8>> {
        let mut rewritten = Vec::with_capacity(wasm.len() + wasm.len() / 16 + 256);
        // The end of the section before; the magic number and the version come first.
        let mut end = 8;
        rewritten.extend_from_slice(wasm.get(..end)?);
        let (mut bodies, mut code) = (Vec::new(), 0..0);
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            if let Payload::CodeSectionEntry(body) = &payload {
                self.push_body(&mut bodies, wasm, body.range())?;
                if body.range().end == code.end {
                    let contents = self.code(wasm.get(code.clone())?, &bodies)?;
                    push_section(&mut rewritten, CODE_SECTION, &contents)?;
                }
            }
            let Some((id, range)) = payload.as_section() else {
                continue;
            };
            let whole = wasm.get(end..range.end)?;
            let contents = wasm.get(range.clone())?;
            end = range.end;
            let count = self.targets.len() as u32;
            match id {
                TYPE_SECTION => {
                    let contents = with_entries(contents, count, &self.encoded_types()?)?;
                    push_section(&mut rewritten, id, &contents)?;
                }
                FUNCTION_SECTION => {
                    let mut types = Vec::new();
                    (0..count).for_each(|index| push_leb128(&mut types, self.types + index));
                    let contents = with_entries(contents, count, &types)?;
                    push_section(&mut rewritten, id, &contents)?;
                }
                CODE_SECTION => code = range,
                _ => rewritten.extend_from_slice(whole),
            }
        }
        Some(rewritten)
    }

    /// A body with its length, in which the instructions are calls.
    fn push_body(&self, bodies: &mut Vec<u8>, wasm: &[u8], body: Range<usize>) -> Option<()> {
        let (mut rewritten, mut from) = (Vec::new(), body.start);
        let first = self
            .instructions
            .partition_point(|(range, _)| range.start < body.start);
        let all = self.instructions.get(first..)?;
        for (range, target) in all.iter().take_while(|(range, _)| range.end <= body.end) {
            rewritten.extend_from_slice(wasm.get(from..range.start)?);
            rewritten.push(CALL);
            push_leb128(&mut rewritten, self.functions.checked_add(*target)?);
            from = range.end;
        }
        rewritten.extend_from_slice(wasm.get(from..body.end)?);
        push_leb128(bodies, u32::try_from(rewritten.len()).ok()?);
        bodies.extend_from_slice(&rewritten);
        Some(())
    }

    /// The contents of the code section, with these bodies and the functions of the targets.
    fn code(&self, contents: &[u8], bodies: &[u8]) -> Option<Vec<u8>> {
        let count = wasmparser::BinaryReader::new(contents, 0)
            .read_var_u32()
            .ok()?;
        let mut code = Vec::with_capacity(bodies.len() + 64);
        push_leb128(&mut code, count.checked_add(self.targets.len() as u32)?);
        code.extend_from_slice(bodies);
        for target in &self.targets {
            // No locals; the parameters are the operands.
            let mut body = Vec::from([0, LOCAL_GET, 0]);
            match target {
                Target::Memory(memory) => {
                    body.push(MEMORY_GROW);
                    push_leb128(&mut body, *memory);
                }
                Target::Table(table) => {
                    body.extend([LOCAL_GET, 1, TABLE_GROW[0], TABLE_GROW[1]]);
                    push_leb128(&mut body, *table);
                }
            }
            body.push(END);
            push_leb128(&mut code, body.len() as u32);
            code.extend_from_slice(&body);
        }
        Some(code)
    }

    /// The types of the functions of the targets.
    fn encoded_types(&self) -> Option<Vec<u8>> {
        let mut types = Vec::new();
        for target in &self.targets {
            types.push(FUNCTION_TYPE);
            match target {
                Target::Memory(_) => types.extend([1, I32]),
                Target::Table(table) => {
                    let is_function = self.tables.get(*table as usize)?.is_func_ref();
                    types.extend([2, if is_function { FUNCREF } else { EXTERNREF }, I32]);
                }
            }
            types.extend([1, I32]);
        }
        Some(types)
    }
}

const CALL: u8 = 0x10;
const LOCAL_GET: u8 = 0x20;
const MEMORY_GROW: u8 = 0x40;
const TABLE_GROW: [u8; 2] = [0xfc, 0x0f];
const END: u8 = 0x0b;
const FUNCTION_TYPE: u8 = 0x60;
const I32: u8 = 0x7f;
const FUNCREF: u8 = 0x70;
const EXTERNREF: u8 = 0x6f;

/// A quick search for the bytes of these instructions; it may have false positives.
fn may_grow(body: &[u8]) -> bool {
    // `table.grow` may be encoded with a longer LEB128.
    body.windows(2)
        .any(|pair| pair[0] == MEMORY_GROW || matches!(pair, [0xfc, 0x0f | 0x8f]))
}
