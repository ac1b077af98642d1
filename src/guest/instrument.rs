//! Rewrites a module at load, so that the state of its instances can be read and written.
//!
//! Memory is exported anyway. The mutable globals (a compiler's stack pointer is one) mostly are
//! not, and only exports can be reached from outside of the interpreter; so they are exported, too.

use super::{
    Guest, compiled::Compiled, host_state::HostState, image::Baseline, instrumented::Preamble,
    memory::page_bytes, stdio::Stdio,
};
#[cfg(feature = "validate")]
use crate::snapshot::bytes::Writer;
use crate::{
    error::{EngineError, LoadError},
    limits::Limits,
    load_options::LoadOptions,
    snapshot::bytes::{Malformed, Reader},
};
use alloc::{borrow::Cow, boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::time::Duration;
use sha2::{Digest, Sha256};
use wasm_encoder::{Encode, ExportKind, ExportSection, SectionId};
use wasmi::{Global, Instance, Store};
use wasmparser::{
    BinaryReaderError, ExternalKind, Operator, Parser, Payload, SectionLimited, ValType,
};

/// What the state of a module's guests consists of; none if the module is not instrumented.
pub(crate) struct Instrumentation(Option<Arc<Layout>>);

/// What the state of a module's guests consists of.
#[derive(Default)]
pub(crate) struct Layout {
    /// The SHA-256 of the module, as it was before it was rewritten.
    pub(crate) module_hash: [u8; 32],
    /// The names of the mutable globals, as they are exported.
    globals: Vec<String>,
    /// Bytes of all mutable globals.
    pub(crate) globals_bytes: usize,
    pub(super) baseline: Baseline,
    pub(super) page_bytes: usize,
    /// The most that the memory can grow to, by the module.
    declared_max_bytes: usize,
    /// The same, by the module and by the limits.
    pub(crate) max_memory_bytes: usize,
}

/// A guest's access to its state; none if its module is not instrumented.
pub(super) type Access = Option<StateAccess>;

pub(super) struct StateAccess {
    pub(super) layout: Arc<Layout>,
    /// In the order of the layout.
    pub(super) globals: Vec<Global>,
    /// The seed of its random numbers.
    pub(super) seed: u64,
}

/// Instruments a module if the options ask for it. `original` is the module before it was rewritten
/// for other reasons.
pub(super) fn instrument<'a>(
    wasm: Cow<'a, [u8]>,
    original: &[u8],
    options: LoadOptions,
) -> Result<(Cow<'a, [u8]>, Instrumentation), LoadError> {
    match options.snapshots {
        true => instrumented(&wasm, original),
        false => Ok((wasm, Instrumentation(None))),
    }
}

/// Out of line, so that its frame is not on the stack while another module is parsed.
#[inline(never)]
fn instrumented<'a>(
    wasm: &[u8],
    original: &[u8],
) -> Result<(Cow<'a, [u8]>, Instrumentation), LoadError> {
    let (wasm, layout) = export_globals(wasm).map_err(|error| match error {
        InstrumentError::HiddenState(what) => LoadError::HiddenState { what },
        InstrumentError::Invalid(error) => LoadError::Invalid(EngineError::new(error)),
    })?;
    let layout = Layout {
        module_hash: Sha256::digest(original).into(),
        ..layout
    };
    Ok((Cow::Owned(wasm), Instrumentation(Some(Arc::new(layout)))))
}

/// The instrumentation of a module that was instrumented before, if the options ask for it.
pub(super) fn of_preamble(
    preamble: &Preamble,
    limits: &Limits,
    options: LoadOptions,
) -> Result<Instrumentation, LoadError> {
    if !options.snapshots {
        return Ok(Instrumentation(None));
    }
    let state = preamble.state.ok_or(LoadError::NotInstrumented {
        what: "not for snapshots",
    })?;
    let layout = Layout::read(preamble.module_hash, &mut Reader::new(state), limits)
        .map_err(|Malformed| LoadError::NotInstrumented { what: "damaged" })?;
    Ok(Instrumentation(Some(Arc::new(layout))))
}

impl Layout {
    /// Appends what [`read`](Self::read) makes it from, besides the hash.
    #[cfg(feature = "validate")]
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.size(self.globals_bytes);
        writer.size(self.globals.len());
        for name in &self.globals {
            writer.sized(name.as_bytes());
        }
        writer.size(self.page_bytes);
        writer.size(self.declared_max_bytes);
        self.baseline.write(writer);
    }

    fn read(
        module_hash: [u8; 32],
        reader: &mut Reader<'static>,
        limits: &Limits,
    ) -> Result<Self, Malformed> {
        let globals_bytes = reader.size()?;
        let mut globals = Vec::new();
        for _ in 0..reader.size()? {
            globals.push(reader.text()?.into());
        }
        let page_bytes = reader.size()?;
        // More than the address space of a small machine.
        let declared_max_bytes = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        Ok(Self {
            module_hash,
            globals,
            globals_bytes,
            baseline: Baseline::read(reader)?,
            page_bytes,
            declared_max_bytes,
            max_memory_bytes: declared_max_bytes.min(limits.max_memory_bytes),
        })
    }
}

impl Instrumentation {
    pub(super) fn access(&self, instance: Instance, store: &Store<HostState>, seed: u64) -> Access {
        let layout = self.0.as_ref()?;
        let globals = layout.globals.iter();
        Some(StateAccess {
            layout: layout.clone(),
            globals: globals
                .filter_map(|name| instance.get_global(store, name))
                .collect(),
            seed,
        })
    }
}

impl Compiled {
    /// What the state of its guests consists of, if the module was loaded for snapshots.
    pub(crate) fn layout(&self) -> Option<&Layout> {
        self.instrumentation.0.as_deref()
    }

    /// Keeps the memory of a fresh instance, which the state of a guest is compared with.
    ///
    /// Out of line, so that its frame is not on the stack while a module is parsed.
    ///
    /// # Errors
    ///
    /// If no instance can be made.
    #[inline(never)]
    pub(super) fn keep_baseline(&mut self) -> Result<(), LoadError> {
        if self.instrumentation.0.is_none() {
            return Ok(());
        }
        let stdio = Stdio::new(&"".into(), &self.limits);
        let mut guest = Guest::new(self, 0, Duration::ZERO, true, stdio)
            .map_err(|fault| LoadError::Instantiation(Box::new(fault)))?;
        let (memory, store) = (guest.exports.memory, &mut guest.store);
        let baseline = Baseline::of(memory.data(&**store));
        let declared = memory.ty(&**store).maximum().unwrap_or(u64::MAX);
        // Of one that never grows it does not matter.
        let page_bytes = page_bytes(memory, store).unwrap_or(1);
        let declared = usize::try_from(declared).unwrap_or(usize::MAX);
        drop(guest);
        if let Some(layout) = self.instrumentation.0.as_mut().and_then(Arc::get_mut) {
            layout.baseline = baseline;
            layout.page_bytes = page_bytes;
            layout.declared_max_bytes = declared.saturating_mul(page_bytes);
            layout.max_memory_bytes = layout.declared_max_bytes.min(self.limits.max_memory_bytes);
        }
        Ok(())
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

/// Adds the mutable globals to the exports of a module; returns their layout, too. The other sections
/// are copied.
fn export_globals(wasm: &[u8]) -> Result<(Vec<u8>, Layout), InstrumentError> {
    let mut mutable_globals = Vec::new();
    let mut layout = Layout::default();
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
            (mutable_globals, layout.globals_bytes) = find_mutable(globals)?;
        }
        let Some((_, section)) = payload.as_section() else {
            continue;
        };
        // Empty if the section is truncated; the parser's error follows.
        let whole = wasm.get(end..section.end).unwrap_or_default();
        end = section.end;
        if let Payload::ExportSection(exports) = payload {
            let section = with_globals(exports, &mutable_globals, &mut layout.globals)?;
            rewritten.push(SectionId::Export.into());
            section.encode(&mut rewritten);
        } else {
            rewritten.extend_from_slice(whole);
        }
    }
    Ok((rewritten, layout))
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

/// The indices of the mutable globals, and how many bytes their values are.
fn find_mutable(
    globals: &SectionLimited<'_, wasmparser::Global<'_>>,
) -> Result<(Vec<u32>, usize), InstrumentError> {
    let (mut mutable, mut bytes) = (Vec::new(), 0);
    for (index, global) in (0..).zip(globals.clone()) {
        let ty = global?.ty;
        if !ty.mutable {
            continue;
        }
        bytes += match ty.content_type {
            ValType::I32 | ValType::F32 => 4,
            ValType::I64 | ValType::F64 => 8,
            ValType::V128 => 16,
            ValType::Ref(_) => {
                return Err(InstrumentError::HiddenState(
                    "a mutable global of references",
                ));
            }
        };
        mutable.push(index);
    }
    Ok((mutable, bytes))
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
