//! A module, changed so that the state of its instances can be read and written from outside.
//!
//! Memory is exported anyway. The mutable globals (a compiler's stack pointer is one) mostly are
//! not, and an interpreter reaches only what is exported; so they are added to the exports.

use alloc::{format, string::String, vec::Vec};
use wasm_encoder::{Encode, ExportKind, ExportSection, SectionId};
use wasmparser::{
    BinaryReaderError, ExternalKind, Operator, Parser, Payload, SectionLimited, ValType,
};

/// A module with its mutable globals exported.
pub(super) struct Exposed {
    pub(super) wasm: Vec<u8>,
    /// The names of the exports that were added.
    pub(super) globals: Vec<String>,
}

/// Whether this export was added here.
pub(super) fn is_exposed(export: &str) -> bool {
    export.starts_with(PREFIX)
}

const PREFIX: &str = "stateroom-wasmi-host:global:";

/// Why there is no exposed form of a module.
pub(super) enum ExposeError {
    Invalid(BinaryReaderError),
    /// It has state that cannot be written: what this instruction, or a global of this type,
    /// changes.
    Hidden(&'static str),
}

impl From<BinaryReaderError> for ExposeError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Invalid(error)
    }
}

/// Adds the mutable globals to the exports of a module. Its other sections stay as they are.
pub(super) fn expose(wasm: &[u8]) -> Result<Exposed, ExposeError> {
    let mut mutable_globals = Vec::new();
    let mut exposed = Exposed {
        wasm: Vec::with_capacity(wasm.len() + 256),
        globals: Vec::new(),
    };
    // Where the section that was read last ends; the magic number and the version come first.
    let mut end = 8;
    exposed
        .wasm
        .extend_from_slice(wasm.get(..end).unwrap_or(wasm));
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let Payload::CodeSectionEntry(body) = &payload {
            for operator in body.get_operators_reader()? {
                refuse_hidden_state(&operator?)?;
            }
        }
        // Imported globals, which would shift the numbers, are refused by the ABI.
        if let Payload::GlobalSection(globals) = &payload {
            mutable_globals = find_mutable(globals)?;
        }
        let Some((_, section)) = payload.as_section() else {
            continue;
        };
        // Of a section that is cut off there is less; the error follows.
        let whole = wasm.get(end..section.end).unwrap_or_default();
        end = section.end;
        if let Payload::ExportSection(exports) = payload {
            let section = with_globals(exports, &mutable_globals, &mut exposed.globals)?;
            exposed.wasm.push(SectionId::Export.into());
            section.encode(&mut exposed.wasm);
        } else {
            exposed.wasm.extend_from_slice(whole);
        }
    }
    Ok(exposed)
}

/// What is dropped or put into a table stays so. Compilers use none of these for the guests of
/// rooms.
const fn refuse_hidden_state(operator: &Operator<'_>) -> Result<(), ExposeError> {
    Err(ExposeError::Hidden(match operator {
        Operator::DataDrop { .. } => "data.drop",
        Operator::ElemDrop { .. } => "elem.drop",
        Operator::TableSet { .. } => "table.set",
        Operator::TableGrow { .. } => "table.grow",
        Operator::TableFill { .. } => "table.fill",
        Operator::TableCopy { .. } => "table.copy",
        Operator::TableInit { .. } => "table.init",
        _ => return Ok(()),
    }))
}

/// The numbers of the mutable globals.
fn find_mutable(
    globals: &SectionLimited<'_, wasmparser::Global<'_>>,
) -> Result<Vec<u32>, ExposeError> {
    let mut mutable = Vec::new();
    for (number, global) in (0..).zip(globals.clone()) {
        let ty = global?.ty;
        match ty.content_type {
            _ if !ty.mutable => {}
            ValType::Ref(_) => return Err(ExposeError::Hidden("a mutable global of references")),
            _ => mutable.push(number),
        }
    }
    Ok(mutable)
}

/// The section of exports with one more for each of these globals; `names` are told of them.
fn with_globals(
    exports: SectionLimited<'_, wasmparser::Export<'_>>,
    globals: &[u32],
    names: &mut Vec<String>,
) -> Result<ExportSection, ExposeError> {
    let mut section = ExportSection::new();
    for export in exports {
        let export = export?;
        let kind = match export.kind {
            ExternalKind::Func => ExportKind::Func,
            ExternalKind::Table => ExportKind::Table,
            ExternalKind::Memory => ExportKind::Memory,
            ExternalKind::Global => ExportKind::Global,
            ExternalKind::Tag => ExportKind::Tag,
        };
        section.export(export.name, kind, export.index);
    }
    for global in globals {
        let name = format!("{PREFIX}{global}");
        section.export(&name, ExportKind::Global, *global);
        names.push(name);
    }
    Ok(section)
}
