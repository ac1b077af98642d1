//! A module's start function, made an export.
//!
//! The interpreter runs a start function as a part of instantiation, where it cannot be paused. As
//! an export it is the first call of the guest: its fuel is an event's, granted slice by slice, and a
//! module can be instantiated without running any of its code.

use super::rewrite::{EXPORT_SECTION, push_leb128, push_section, with_entries};
use alloc::{borrow::Cow, vec::Vec};
use wasmparser::{Parser, Payload};

/// The name of the export that is added; see [`ADDED`](super::engine::ADDED).
pub(super) const START: &str = "stateroom-wasmi-host:start";

const KIND_FUNCTION: u8 = 0;

/// The module with its start function, if it has one, exported instead. Invalid modules are returned
/// as they are: the engine reports them.
pub(super) fn export_start(wasm: &[u8]) -> Cow<'_, [u8]> {
    match rewrite(wasm) {
        Some(rewritten) => Cow::Owned(rewritten),
        None => Cow::Borrowed(wasm),
    }
}

fn rewrite(wasm: &[u8]) -> Option<Vec<u8>> {
    let mut exports = None;
    // The end of the section before; the magic number and the version come first.
    let mut end = 8;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match payload {
            Payload::ExportSection(ref section) => exports = Some((end, section.range())),
            Payload::StartSection { func, range } => {
                let (exports_at, exports) = exports?;
                let contents = with_export(wasm.get(exports.clone())?, func)?;
                let mut rewritten = Vec::with_capacity(wasm.len() + START.len() + 16);
                rewritten.extend_from_slice(wasm.get(..exports_at)?);
                push_section(&mut rewritten, EXPORT_SECTION, &contents)?;
                rewritten.extend_from_slice(wasm.get(exports.end..end)?);
                rewritten.extend_from_slice(wasm.get(range.end..)?);
                return Some(rewritten);
            }
            _ => {}
        }
        if let Some((_, range)) = payload.as_section() {
            end = range.end;
        }
    }
    None
}

/// The contents of an export section with one more export.
fn with_export(contents: &[u8], function: u32) -> Option<Vec<u8>> {
    let mut export = Vec::with_capacity(START.len() + 7);
    push_leb128(&mut export, START.len() as u32);
    export.extend_from_slice(START.as_bytes());
    export.push(KIND_FUNCTION);
    push_leb128(&mut export, function);
    with_entries(contents, 1, &export)
}
