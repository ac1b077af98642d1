//! Modules that are not validated.
#![allow(
    unsafe_code,
    reason = "the interpreter trusts what it is not to validate"
)]

use wasmi::{Engine, Error, Module};

/// Parses a module without validating it.
///
/// # Safety
///
/// The module must be valid.
pub(crate) unsafe fn unchecked(engine: &Engine, wasm: &[u8]) -> Result<Module, Error> {
    // SAFETY: the same is asked of the caller.
    unsafe { Module::new_unchecked(engine, wasm) }
}
