//! The version numbers of a module, read from its data segments without running it.

use super::AbiVersion;
use alloc::vec::Vec;
use wasmparser::{DataKind, ExternalKind, Operator, Parser, Payload};

/// The exported version globals of a module with the numbers at their addresses.
///
/// The globals hold *addresses*. A linker puts the numbers into active data segments at constant
/// offsets. Anything else (or an invalid module) is skipped: the numbers are checked again in the
/// memory of each room, before the first call of its guest.
pub(crate) fn find_versions(wasm: &[u8]) -> Vec<(&str, i32)> {
    let mut globals = Vec::new();
    let mut imported_globals = 0;
    let mut wanted: Vec<(&str, u32)> = Vec::new();
    let mut found = Vec::new();
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
                let is_version = |export: &wasmparser::Export<'_>| {
                    export.kind == ExternalKind::Global && is_version_name(export.name)
                };
                for export in exports.into_iter().flatten().filter(is_version) {
                    let index = (export.index as usize).checked_sub(imported_globals);
                    if let Some(Some(address)) = index.and_then(|i| globals.get(i)) {
                        wanted.push((export.name, *address));
                    }
                }
            }
            Ok(Payload::DataSection(segments)) => {
                for segment in segments.into_iter().flatten() {
                    let DataKind::Active {
                        memory_index: 0,
                        offset_expr,
                    } = segment.kind
                    else {
                        continue;
                    };
                    let Some(offset) = constant(&offset_expr) else {
                        continue;
                    };
                    for (name, address) in &wanted {
                        if let Some(number) = read(segment.data, offset, *address) {
                            found.push((*name, number));
                        }
                    }
                }
            }
            Ok(_) => {}
            // The engine reports invalid modules later.
            Err(_) => break,
        }
    }
    found
}

fn is_version_name(name: &str) -> bool {
    AbiVersion::ALL
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

/// The number at `address`, if it lies in the segment `data` at `offset`.
fn read(data: &[u8], offset: u32, address: u32) -> Option<i32> {
    let from = usize::try_from(address.checked_sub(offset)?).ok()?;
    let bytes = data.get(from..)?.first_chunk()?;
    Some(i32::from_le_bytes(*bytes))
}
