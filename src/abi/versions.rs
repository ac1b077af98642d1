//! The version numbers of a module, read from its data segments without running it.

use super::{AbiVersion, description::MEMORY};
use alloc::vec::Vec;
use wasmparser::{DataKind, ExternalKind, Operator, Parser, Payload};

/// A version global and the memory at its address.
struct Version<'a> {
    name: &'a str,
    address: u32,
    bytes: [u8; 4],
}

/// The exported version globals of a module with the numbers at their addresses before anything of
/// it runs: zero where there is no data. None if the data segments are not at constant offsets.
///
/// The globals hold *addresses*. In an invalid module anything may be found or missed; the numbers
/// are checked again in the memory of each room.
pub(crate) fn find_versions(wasm: &[u8]) -> Vec<(&str, i32)> {
    let mut globals = Vec::new();
    let mut imported_globals = 0;
    let mut memory = 0;
    let mut versions: Vec<Version<'_>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::ImportSection(imports)) => {
                let is_global = |import: &wasmparser::Import<'_>| {
                    matches!(import.ty, wasmparser::TypeRef::Global(_))
                };
                imported_globals = imports.into_iter().flatten().filter(is_global).count();
            }
            Ok(Payload::GlobalSection(section)) => {
                globals = section
                    .into_iter()
                    .flatten()
                    .map(|g| constant(&g.init_expr))
                    .collect();
            }
            Ok(Payload::ExportSection(exports)) => {
                for export in exports.into_iter().flatten() {
                    let index = export.index;
                    match export.kind {
                        ExternalKind::Memory if export.name == MEMORY => memory = index,
                        ExternalKind::Global if is_version_name(export.name) => {
                            let index = (index as usize).checked_sub(imported_globals);
                            if let Some(Some(address)) = index.and_then(|i| globals.get(i)) {
                                versions.push(Version {
                                    name: export.name,
                                    address: *address,
                                    bytes: [0; 4],
                                });
                            }
                        }
                        _ => {}
                    }
                }
            }
            Ok(Payload::DataSection(segments)) => {
                for segment in segments.into_iter().flatten() {
                    if let DataKind::Active {
                        memory_index,
                        offset_expr,
                    } = segment.kind
                        && memory_index == memory
                    {
                        match constant(&offset_expr) {
                            Some(offset) => versions
                                .iter_mut()
                                .for_each(|version| version.write(offset, segment.data)),
                            None => return Vec::new(),
                        }
                    }
                }
            }
            Ok(_) => {}
            // The engine reports invalid modules later.
            Err(_) => break,
        }
    }
    versions
        .iter()
        .map(|version| (version.name, i32::from_le_bytes(version.bytes)))
        .collect()
}

impl Version<'_> {
    /// Copies what a data segment at `offset` has for it.
    fn write(&mut self, offset: u32, data: &[u8]) {
        for (i, byte) in (0..).zip(&mut self.bytes) {
            let address = u64::from(self.address) + i;
            let index = address.checked_sub(offset.into());
            let index = index.and_then(|index| usize::try_from(index).ok());
            if let Some(new) = index.and_then(|index| data.get(index)) {
                *byte = *new;
            }
        }
    }
}

fn is_version_name(name: &str) -> bool {
    AbiVersion::NEWEST_FIRST
        .iter()
        .flat_map(|abi| abi.description().version_globals)
        .any(|(known, _)| *known == name)
}

/// The value of an expression that is one `i32.const`.
fn constant(expr: &wasmparser::ConstExpr<'_>) -> Option<u32> {
    let mut operators = expr.get_operators_reader();
    match (operators.read().ok()?, operators.read().ok()?) {
        (Operator::I32Const { value }, Operator::End) => Some(value.cast_unsigned()),
        _ => None,
    }
}
