//! Modules that were instrumented before they are loaded, when a firmware is built: what such a module
//! says of itself.
//!
//! It begins with a custom section. That has the engine (4 bytes: the version of the interpreter, the
//! revision of this crate), the format of this section (1 byte), the SHA-256 of the module that it was made from, whether that
//! had a start function (1 byte), and, if its rooms can be saved, what their state consists of.

use super::engine::ENGINE_VERSION;
use crate::error::LoadError;
use wasmparser::BinaryReader;

/// The magic number, the version, and the id of a custom section: what precedes the section's length.
const BEFORE_LENGTH: &[u8; 9] = b"\0asm\x01\0\0\0\0";
/// The section's name after its length. It begins as all that the host adds to a module.
const NAME: &[u8] = b"\x21stateroom-wasmi-host:instrumented";
/// Changes with all that is in the section, and with the names of the exports that are added.
const FORMAT: u8 = 1;

/// What an instrumented module says of itself.
pub(super) struct Preamble {
    pub(super) has_start: bool,
    #[allow(dead_code, reason = "only snapshots name the module")]
    pub(super) module_hash: [u8; 32],
    /// What the state of its guests consists of; none if it was not instrumented for snapshots.
    #[allow(dead_code, reason = "only snapshots have it")]
    pub(super) state: Option<&'static [u8]>,
}

/// Whether a module says that it was instrumented.
pub(super) fn is_instrumented(wasm: &[u8]) -> bool {
    contents(wasm).is_some()
}

impl Preamble {
    pub(super) fn read(wasm: &'static [u8]) -> Result<Self, LoadError> {
        let error = |what| LoadError::NotInstrumented { what };
        let contents = contents(wasm).ok_or(error("not marked as such"))?;
        let (engine, rest) = contents.split_first_chunk().ok_or(error("damaged"))?;
        let (format, rest) = rest.split_first().ok_or(error("damaged"))?;
        if (*engine, *format) != (ENGINE_VERSION, FORMAT) {
            return Err(error("for another version"));
        }
        let (module_hash, rest) = rest.split_first_chunk().ok_or(error("damaged"))?;
        let (has_start, state) = rest.split_first().ok_or(error("damaged"))?;
        Ok(Self {
            has_start: *has_start != 0,
            module_hash: *module_hash,
            state: Some(state).filter(|state| !state.is_empty()),
        })
    }
}

/// The contents of the section.
fn contents(wasm: &[u8]) -> Option<&[u8]> {
    let mut reader = BinaryReader::new(wasm.strip_prefix(BEFORE_LENGTH)?, 0);
    let length = reader.read_var_u32().ok()?;
    let section = reader.read_bytes(length as usize).ok()?;
    section.strip_prefix(NAME)
}

#[cfg(all(feature = "snapshot", feature = "validate"))]
pub(crate) use self::writing::instrumented;

#[cfg(all(feature = "snapshot", feature = "validate"))]
mod writing {
    use super::{BEFORE_LENGTH, ENGINE_VERSION, FORMAT, NAME};
    use crate::{
        error::LoadError,
        guest::{Compiled, compiled::rewrite, rewrite::push_leb128},
        load_options::LoadOptions,
        snapshot::bytes::Writer,
    };
    use alloc::vec::Vec;
    use sha2::{Digest, Sha256};

    /// The magic number and the version.
    const HEADER: usize = 8;

    /// A module as the interpreter is given it, with what is else found out when it is loaded. `compiled`
    /// was made from the same bytes with the same options.
    pub(crate) fn instrumented(
        wasm: &[u8],
        options: LoadOptions,
        compiled: &Compiled,
    ) -> Result<Vec<u8>, LoadError> {
        let (rewritten, _) = rewrite(wasm, options)?;
        let mut contents = Vec::from(NAME);
        contents.extend(ENGINE_VERSION);
        contents.push(FORMAT);
        contents.extend_from_slice(&Sha256::digest(wasm));
        contents.push(compiled.has_start.into());
        if let Some(layout) = compiled.layout() {
            layout.write(&mut Writer::new(&mut contents));
        }
        let mut instrumented = Vec::with_capacity(rewritten.len() + contents.len() + 8);
        instrumented.extend_from_slice(BEFORE_LENGTH);
        push_leb128(&mut instrumented, contents.len() as u32);
        instrumented.extend(contents);
        instrumented.extend_from_slice(rewritten.get(HEADER..).unwrap_or_default());
        Ok(instrumented)
    }
}
