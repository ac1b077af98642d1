//! A module: compiled and checked once, shared by its rooms.

use crate::{
    abi::{AbiVersion, ExternKind},
    error::LoadError,
    guest::{self, Compiled, Parse},
    limits::Limits,
    load_options::LoadOptions,
};
use alloc::sync::Arc;
use core::fmt;

/// A WebAssembly module that is a Stateroom room, compiled and checked against the ABI.
///
/// Cloning is cheap: clones share the compiled code. Load a module once for each thread that runs
/// rooms of it, since threads that share one interpreter engine slow each other down.
#[derive(Clone)]
pub struct Module {
    pub(crate) compiled: Arc<Compiled>,
}

impl Module {
    /// Compiles a binary module and checks it, with [`LoadOptions::default`].
    ///
    /// The limits apply to the module and to each room made from it.
    ///
    /// # Errors
    ///
    /// If the module is too long, not valid WebAssembly, or not a room. [`LoadError::Abi`] lists all
    /// problems.
    #[cfg(feature = "validate")]
    pub fn load(wasm: &[u8], limits: &Limits) -> Result<Self, LoadError> {
        Self::load_with(wasm, limits, LoadOptions::new())
    }

    /// Whether both are clones of one module.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
    }

    /// Like [`Module::load`], with options.
    ///
    /// ```
    /// # use stateroom_wasmi_host::*;
    /// # fn load(wasm: &[u8]) -> Result<Module, LoadError> {
    /// Module::load_with(wasm, &Limits::small(), Compilation::Eager)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Module::load`].
    #[cfg(feature = "validate")]
    pub fn load_with(
        wasm: &[u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        Self::load_by(wasm, limits, options.into(), guest::validated)
    }

    /// Like [`Module::load_with`], without validation. Everything else is checked: the module's
    /// length, its imports and exports, and what its rooms do.
    ///
    /// For firmware whose modules are part of its image, and were validated when that was built.
    /// Without the default feature `validate` the validator is not linked: on a Cortex-M that saves a
    /// quarter of the flash, and half of the stack while a module is loaded.
    ///
    /// # Safety
    ///
    /// The module must be one that [`Module::load_with`] accepts with the same options and the same
    /// features of this crate, such as in a test or a build script. An invalid module is undefined
    /// behaviour.
    ///
    /// # Errors
    ///
    /// As [`Module::load`], except for what only validation finds.
    #[cfg(feature = "unchecked")]
    #[allow(unsafe_code, reason = "see the module that this calls")]
    pub unsafe fn load_unchecked(
        wasm: &[u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        Self::load_by(wasm, limits, options.into(), |engine, wasm| {
            // SAFETY: the caller guarantees that the module is valid. Instrumentation keeps it valid.
            unsafe { guest::unchecked(engine, wasm) }
        })
    }

    /// The bytes of a module for [`load_instrumented`](Self::load_instrumented): what loading else does to
    /// a module in memory, done once and for all. For the build script of a firmware.
    ///
    /// The module is checked as by [`load_with`](Self::load_with) with these limits and options. If these
    /// ask for snapshots, its rooms can be saved. It keeps the hash of the original, so that a room's
    /// snapshot can be loaded wherever the original is.
    ///
    /// ```
    /// # use stateroom_wasmi_host::*;
    /// # fn main() -> Result<(), LoadError> {
    /// # let wasm = include_bytes!("../examples/rooms/wasm/echo-c.wasm");
    /// // On the machine that builds the firmware:
    /// let options = LoadOptions::new().snapshots(true);
    /// let bytes = Module::instrument(wasm, &Limits::small(), options)?;
    /// // On the board, which has these bytes in its flash:
    /// # let bytes = bytes.leak();
    /// let module = Module::load_instrumented(bytes, &Limits::small(), options)?;
    /// assert_eq!(module.hash(), Some(ModuleHash::of(wasm)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Module::load`].
    #[cfg(all(feature = "snapshot", feature = "validate"))]
    pub fn instrument(
        wasm: &[u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<alloc::vec::Vec<u8>, LoadError> {
        let options = options.into();
        let module = Self::load_with(wasm, limits, options)?;
        guest::instrumented(wasm, options, &module.compiled)
    }

    /// Loads a module that `Module::instrument` has returned, as
    /// [`load_with`](Self::load_with) loads the original. Nothing of it is rewritten or copied, and no
    /// instance is made: it takes less memory and time, and a firmware that loads modules in this way
    /// alone takes less flash.
    ///
    /// Only for modules that come from nobody else, such as those of a firmware's own image. What the
    /// module says of its original and of its memory is believed, and whether it was rewritten is not
    /// checked: another module may use up the host's stack or be a panic, and the snapshots of its rooms
    /// may name a module that they are not of.
    ///
    /// # Errors
    ///
    /// As [`Module::load`], and if the module is not instrumented, was for another version of this crate,
    /// or not for the snapshots that the options ask for.
    #[cfg(feature = "validate")]
    pub fn load_instrumented(
        wasm: &'static [u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        Self::load_instrumented_by(wasm, limits, options.into(), guest::validated)
    }

    /// Like [`Module::load_instrumented`], without validation: see
    /// [`load_unchecked`](Self::load_unchecked).
    ///
    /// # Safety
    ///
    /// The module must be one that `Module::instrument` has returned, with the same features of this
    /// crate. An invalid module is undefined behaviour.
    ///
    /// # Errors
    ///
    /// As [`Module::load_instrumented`], except for what only validation finds.
    #[cfg(feature = "unchecked")]
    #[allow(unsafe_code, reason = "see the module that this calls")]
    pub unsafe fn load_instrumented_unchecked(
        wasm: &'static [u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        Self::load_instrumented_by(wasm, limits, options.into(), |engine, wasm| {
            // SAFETY: the caller guarantees that the module is valid.
            unsafe { guest::unchecked(engine, wasm) }
        })
    }

    fn load_instrumented_by(
        wasm: &'static [u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        check_length(wasm, limits)?;
        let compiled = Compiled::of_instrumented(wasm, limits, options, parse)?;
        Ok(Self {
            compiled: Arc::new(compiled),
        })
    }

    fn load_by(
        wasm: &[u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        check_length(wasm, limits)?;
        let compiled = Compiled::new(wasm, limits, options, parse)?;
        Ok(Self {
            compiled: Arc::new(compiled),
        })
    }

    /// Compiles a module in the text format and checks it, with [`LoadOptions::default`].
    ///
    /// # Errors
    ///
    /// As [`Module::load`], and if the text is not valid.
    #[cfg(feature = "wat")]
    pub fn load_wat(text: &str, limits: &Limits) -> Result<Self, LoadError> {
        let wasm = wat::parse_str(text)
            .map_err(|error| LoadError::Text(crate::error::EngineError::with_lines(error)))?;
        Self::load(&wasm, limits)
    }

    /// The ABI of the module.
    #[must_use]
    pub fn abi(&self) -> AbiVersion {
        self.compiled.abi
    }

    /// The limits that the module was loaded with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.compiled.limits
    }

    /// Whether its guests can pass on their state when another module replaces it: it exports
    /// `stateroom_save`.
    #[must_use]
    pub fn has_save(&self) -> bool {
        self.compiled.has_save()
    }

    /// Whether its guests can go on with the state of another module's: it exports `stateroom_load`.
    #[must_use]
    pub fn has_load(&self) -> bool {
        self.compiled.has_load()
    }

    /// Whether its guests keep their buffer for payloads between events ([`PayloadBuffer`]).
    ///
    /// [`PayloadBuffer`]: crate::PayloadBuffer
    #[must_use]
    pub fn keeps_payload_buffer(&self) -> bool {
        self.compiled.keeps_buffer
    }

    /// The hash of the module, if it was loaded for [snapshots](LoadOptions::snapshots): its rooms'
    /// snapshots name it.
    #[cfg(feature = "snapshot")]
    #[must_use]
    pub fn hash(&self) -> Option<crate::ModuleHash> {
        let layout = self.compiled.layout()?;
        Some(crate::ModuleHash(layout.module_hash))
    }

    /// Module, name and kind of each import, in order.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str, ExternKind)> {
        self.compiled.shape().imports.into_iter()
    }

    /// Name and kind of each export.
    pub fn exports(&self) -> impl Iterator<Item = (&str, ExternKind)> {
        self.compiled.shape().exports.into_iter()
    }
}

fn check_length(wasm: &[u8], limits: &Limits) -> Result<(), LoadError> {
    limits.check().map_err(LoadError::Limits)?;
    match wasm.len() > limits.max_module_bytes {
        true => Err(LoadError::TooLarge {
            bytes: wasm.len(),
            limit: limits.max_module_bytes,
        }),
        false => Ok(()),
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("abi", &self.abi())
            .finish_non_exhaustive()
    }
}
