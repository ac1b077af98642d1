//! Whose buffer for payloads may be kept between events.

use crate::{
    abi::AbiVersion,
    load_options::{KEEP_PAYLOAD_BUFFER, PayloadBuffer},
};
use wasmparser::BinaryReader;

/// Whether the guests of a module keep their buffer.
///
/// Left to itself, the host keeps it only for modules that say so, and for those of the published
/// SDK, which takes its buffers from Rust's global allocator: what that returns stays valid until it
/// is freed. These are told by two marks. The exported version numbers alone would not do, since the
/// JIT hosts ask for them and so guests of all kinds have them.
pub(super) fn keeps_buffer(
    module: &wasmi::Module,
    abi: AbiVersion,
    wasm: &[u8],
    choice: PayloadBuffer,
) -> bool {
    let exports = |name: &str| module.get_export(name).is_some();
    let description = abi.description();
    let is_by_sdk = || {
        let mut versions = description.version_globals.iter();
        versions.all(|(name, _)| exports(name))
            && data_section(wasm)
                .is_some_and(|data| contains(data, description.sdk_text.as_bytes()))
    };
    match choice {
        PayloadBuffer::Keep => true,
        PayloadBuffer::PerEvent => false,
        PayloadBuffer::Auto => exports(KEEP_PAYLOAD_BUFFER) || is_by_sdk(),
    }
}

/// The contents of a module's data section.
fn data_section(wasm: &[u8]) -> Option<&[u8]> {
    const HEADER: usize = 8;
    const DATA: u8 = 11;
    let mut sections = BinaryReader::new(wasm.get(HEADER..)?, HEADER);
    loop {
        let id = sections.read_u8().ok()?;
        let len = sections.read_var_u32().ok()?;
        let contents = sections.read_bytes(len as usize).ok()?;
        if id == DATA {
            return Some(contents);
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    // The first byte alone rules out most places, without a call.
    bytes
        .windows(text.len())
        .any(|window| window.first() == text.first() && window == text)
}
