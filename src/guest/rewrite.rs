//! Writing parts of a binary module.

use alloc::vec::Vec;
use wasmparser::BinaryReader;

pub(super) const EXPORT_SECTION: u8 = 7;

/// Appends a section with these contents.
pub(super) fn push_section(module: &mut Vec<u8>, id: u8, contents: &[u8]) -> Option<()> {
    module.push(id);
    push_leb128(module, u32::try_from(contents.len()).ok()?);
    module.extend_from_slice(contents);
    Some(())
}

/// The contents of a section that is a list, with more entries, which are already encoded.
pub(super) fn with_entries(contents: &[u8], added: u32, entries: &[u8]) -> Option<Vec<u8>> {
    let mut reader = BinaryReader::new(contents, 0);
    let count = reader.read_var_u32().ok()?;
    let mut extended = Vec::with_capacity(contents.len() + entries.len() + 5);
    push_leb128(&mut extended, count.checked_add(added)?);
    extended.extend_from_slice(contents.get(reader.current_position()..)?);
    extended.extend_from_slice(entries);
    Some(extended)
}

/// WebAssembly's encoding of integers.
pub(super) fn push_leb128(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
