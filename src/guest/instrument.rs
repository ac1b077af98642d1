//! Rewrites a module at load, so that the state of its instances can be read and written.
//!
//! Memory is exported anyway. The mutable globals (a compiler's stack pointer is one) mostly are
//! not, and only exports can be reached from outside of the interpreter; so they are exported, too.

use super::{compiled::Compiled, host_state::HostState};
use crate::{
    error::{EngineError, LoadError},
    load_options::LoadOptions,
};
use alloc::{borrow::Cow, format, string::String, vec::Vec};
use wasm_encoder::{Encode, ExportKind, ExportSection, SectionId};
use wasmi::{Global, Instance, Store};
use wasmparser::{
    BinaryReaderError, ExternalKind, Operator, Parser, Payload, SectionLimited, ValType,
};

/// The names of the exports that were added to a module; none if it is not instrumented.
pub(super) struct AddedExports(Option<Vec<String>>);

/// The mutable globals of a guest; empty if its module is not instrumented.
pub(super) type Globals = Vec<Global>;

/// Instruments a module if the options ask for it.
pub(super) fn instrument(
    wasm: &[u8],
    options: LoadOptions,
) -> Result<(Cow<'_, [u8]>, AddedExports), LoadError> {
    if !options.rollback {
        return Ok((Cow::Borrowed(wasm), AddedExports(None)));
    }
    let (wasm, names) = export_globals(wasm).map_err(|error| match error {
        InstrumentError::HiddenState(what) => LoadError::HiddenState { what },
        InstrumentError::Invalid(error) => LoadError::Invalid(EngineError::new(error)),
    })?;
    Ok((Cow::Owned(wasm), AddedExports(Some(names))))
}

impl AddedExports {
    pub(super) fn find(&self, instance: Instance, store: &Store<HostState>) -> Globals {
        let names = self.0.iter().flatten();
        names
            .filter_map(|name| instance.get_global(store, name))
            .collect()
    }
}

impl Compiled {
    /// Whether the module is instrumented, so that the state of its guests can be saved.
    pub(crate) const fn is_instrumented(&self) -> bool {
        self.instrumented.0.is_some()
    }
}

/// What the name of an added export begins with; see [`ADDED`](super::engine::ADDED).
const PREFIX: &str = "stateroom-wasmi-host:global:";

/// Why a module cannot be instrumented.
enum InstrumentError {
    Invalid(BinaryReaderError),
    /// It has state that cannot be restored, because of this instruction, global or memory.
    HiddenState(&'static str),
}

impl From<BinaryReaderError> for InstrumentError {
    fn from(error: BinaryReaderError) -> Self {
        Self::Invalid(error)
    }
}

/// Adds the mutable globals to the exports of a module; returns their names, too. The other sections
/// are copied.
fn export_globals(wasm: &[u8]) -> Result<(Vec<u8>, Vec<String>), InstrumentError> {
    let (mut mutable_globals, mut names) = (Vec::new(), Vec::new());
    let mut rewritten = Vec::with_capacity(wasm.len() + 256);
    // The end of the previous section; the magic number and the version come first.
    let mut end = 8;
    rewritten.extend_from_slice(wasm.get(..end).unwrap_or(wasm));
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let Payload::CodeSectionEntry(body) = &payload {
            for operator in body.get_operators_reader()? {
                refuse_hidden_state(&operator?)?;
            }
        }
        if let Payload::MemorySection(memories) = &payload
            && memories.count() > 1
        {
            return Err(InstrumentError::HiddenState("a second memory"));
        }
        // Imported globals, which would shift the indices, are refused by the ABI.
        if let Payload::GlobalSection(globals) = &payload {
            mutable_globals = find_mutable(globals)?;
        }
        let Some((_, section)) = payload.as_section() else {
            continue;
        };
        // Empty if the section is truncated; the parser's error follows.
        let whole = wasm.get(end..section.end).unwrap_or_default();
        end = section.end;
        if let Payload::ExportSection(exports) = payload {
            let section = with_globals(exports, &mutable_globals, &mut names)?;
            rewritten.push(SectionId::Export.into());
            section.encode(&mut rewritten);
        } else {
            rewritten.extend_from_slice(whole);
        }
    }
    Ok((rewritten, names))
}

/// Dropped segments and changed tables cannot be restored. Compilers emit none of these instructions
/// for rooms.
const fn refuse_hidden_state(operator: &Operator<'_>) -> Result<(), InstrumentError> {
    Err(InstrumentError::HiddenState(match operator {
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

/// The indices of the mutable globals.
fn find_mutable(
    globals: &SectionLimited<'_, wasmparser::Global<'_>>,
) -> Result<Vec<u32>, InstrumentError> {
    let mut mutable = Vec::new();
    for (index, global) in (0..).zip(globals.clone()) {
        let ty = global?.ty;
        match ty.content_type {
            _ if !ty.mutable => {}
            ValType::Ref(_) => {
                return Err(InstrumentError::HiddenState(
                    "a mutable global of references",
                ));
            }
            _ => mutable.push(index),
        }
    }
    Ok(mutable)
}

/// The export section with these globals added; appends their names to `names`.
fn with_globals(
    exports: SectionLimited<'_, wasmparser::Export<'_>>,
    globals: &[u32],
    names: &mut Vec<String>,
) -> Result<ExportSection, InstrumentError> {
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
