//! A module: compiled and checked once, shared by all of its rooms.

use crate::{
    abi::{AbiVersion, ExternKind},
    error::LoadError,
    guest::{self, Compilation, Compiled, Parse},
    limits::Limits,
};
use alloc::sync::Arc;
use core::fmt;

/// A WebAssembly module that is a Stateroom room, compiled and checked against the ABI.
///
/// Cloning is cheap: clones share the compiled code. Rooms of one module on several threads should
/// each be made from a module of their own (loaded once a thread), since threads that share one
/// interpreter engine slow each other down.
#[derive(Clone)]
pub struct Module {
    pub(crate) compiled: Arc<Compiled>,
}

/// How a module is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// When its functions are translated. Default [`Compilation::Lazy`].
    pub compilation: Compilation,
    /// Whether its rooms may have the policy [`Rollback`](crate::FaultPolicy::Rollback). Loading
    /// then looks at each instruction once more, and keeps a changed copy of the module while it
    /// does. A module whose state is not all in its memory and its globals is refused. Default no.
    #[cfg(feature = "rollback")]
    pub rollback: bool,
}

impl LoadOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            compilation: Compilation::Lazy,
            #[cfg(feature = "rollback")]
            rollback: false,
        }
    }

    setters! { compilation: Compilation }

    #[cfg(feature = "rollback")]
    setters! { rollback: bool }
}

impl From<Compilation> for LoadOptions {
    fn from(compilation: Compilation) -> Self {
        Self {
            compilation,
            ..Self::default()
        }
    }
}

impl Module {
    /// Compiles a binary module and checks it, with [`LoadOptions::default`].
    ///
    /// The limits are those of the module and of each room made from it.
    ///
    /// # Errors
    ///
    /// If the bytes are too many, no valid WebAssembly, or not a room. Then
    /// [`LoadError::Abi`] lists all that is wrong.
    #[cfg(feature = "validate")]
    pub fn load(wasm: &[u8], limits: &Limits) -> Result<Self, LoadError> {
        Self::load_with(wasm, limits, Compilation::default())
    }

    /// The same, with options.
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

    /// The same, but the module is not validated. Everything else is checked: its length, that its
    /// imports and exports fit the ABI, and all that its rooms do.
    ///
    /// For firmware whose modules are part of its image, and were validated when that was built.
    /// Without the feature `validate`, which is on by default, the validator is left out of the
    /// program: on a Cortex-M that is a quarter of its flash, and half of its stack while it loads.
    ///
    /// # Safety
    ///
    /// The module must be one that [`Module::load`] accepts with the same features of this crate,
    /// such as in a test or a build script; where it is not valid, what the interpreter does is
    /// undefined.
    ///
    /// # Errors
    ///
    /// As [`Module::load`], but for what only validation finds.
    #[cfg(feature = "unchecked")]
    #[allow(unsafe_code, reason = "see the module that this calls")]
    pub unsafe fn load_unchecked(
        wasm: &[u8],
        limits: &Limits,
        options: impl Into<LoadOptions>,
    ) -> Result<Self, LoadError> {
        Self::load_by(wasm, limits, options.into(), |engine, wasm| {
            // SAFETY: the caller says that the module is valid. What rollback changes of it is valid
            // if the module is.
            unsafe { guest::unchecked(engine, wasm) }
        })
    }

    fn load_by(
        wasm: &[u8],
        limits: &Limits,
        options: LoadOptions,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        limits.check().map_err(LoadError::Limits)?;
        if wasm.len() > limits.max_module_bytes {
            return Err(LoadError::TooLarge {
                bytes: wasm.len(),
                limit: limits.max_module_bytes,
            });
        }
        #[cfg(feature = "rollback")]
        if options.rollback {
            let compiled = Compiled::exposed(wasm, limits, options.compilation, parse)?;
            return Ok(Self {
                compiled: Arc::new(compiled),
            });
        }
        let compiled = Compiled::new(wasm, limits, options.compilation, parse)?;
        Ok(Self {
            compiled: Arc::new(compiled),
        })
    }

    /// Compiles a module in the text format, and checks it.
    ///
    /// # Errors
    ///
    /// As [`Module::load`], and if the text is not valid.
    #[cfg(feature = "wat")]
    pub fn load_wat(text: &str, limits: &Limits) -> Result<Self, LoadError> {
        let wasm = wat::parse_str(text)
            .map_err(|error| LoadError::Text(crate::error::EngineError::new(error)))?;
        Self::load(&wasm, limits)
    }

    /// The ABI that the module speaks.
    #[must_use]
    pub fn abi(&self) -> AbiVersion {
        self.compiled.abi
    }

    /// The limits that it was loaded with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.compiled.limits
    }

    /// What the module imports: module, name and kind of each import, in order.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str, ExternKind)> {
        self.compiled.shape().imports.into_iter()
    }

    /// What the module exports: name and kind of each export.
    pub fn exports(&self) -> impl Iterator<Item = (&str, ExternKind)> {
        self.compiled.shape().exports.into_iter()
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("abi", &self.abi())
            .finish_non_exhaustive()
    }
}
