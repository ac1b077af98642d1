//! Modules that are not validated.
#![allow(unsafe_code, reason = "the interpreter relies on valid modules")]

use wasmi::{Engine, Error, Module};

/// Parses a module without validating it.
///
/// # Safety
///
/// The module must be valid.
pub(crate) unsafe fn unchecked(engine: &Engine, wasm: &[u8]) -> Result<Module, Error> {
    // SAFETY: the caller guarantees that the module is valid.
    unsafe { Module::new_unchecked(engine, wasm) }
}
