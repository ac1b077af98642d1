//! How a module is loaded.

/// Options for loading a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// When its functions are translated. Default [`Compilation::Lazy`].
    pub compilation: Compilation,
    /// Whether its rooms may have the policy [`Rollback`](crate::FaultPolicy::Rollback). Loading
    /// then scans all instructions, and rewrites the module in memory. Modules with state outside of
    /// memory and globals are refused. Default false.
    #[cfg(feature = "rollback")]
    pub rollback: bool,
    /// Whether the module may use SIMD instructions. If not, validation refuses a module that does.
    /// Default false.
    ///
    /// `Module::load_unchecked` does not validate, so it refuses no SIMD: a module that uses SIMD
    /// without this option breaks its safety contract.
    #[cfg(feature = "simd")]
    pub simd: bool,
}

impl LoadOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            compilation: Compilation::Lazy,
            #[cfg(feature = "rollback")]
            rollback: false,
            #[cfg(feature = "simd")]
            simd: false,
        }
    }

    setters! { compilation: Compilation }

    #[cfg(feature = "rollback")]
    setters! { rollback: bool }

    #[cfg(feature = "simd")]
    setters! { simd: bool }
}

impl From<Compilation> for LoadOptions {
    fn from(compilation: Compilation) -> Self {
        Self {
            compilation,
            ..Self::default()
        }
    }
}

/// When the functions of a module are validated and translated to the interpreter's instructions.
/// It does not change their behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compilation {
    /// All are validated when the module is loaded, and each is translated at its first call, so that
    /// code that never runs costs little. The default.
    #[default]
    Lazy,
    /// All are validated and translated when the module is loaded, so that no event waits for a
    /// translation or allocates memory for it.
    Eager,
    /// Each is validated and translated at its first call, for rooms that must start at once: loading
    /// skips the functions' code. No invalid function runs: its call is a fault
    /// ([`InvalidFunction`](crate::FaultCause::InvalidFunction)), where the other modes refuse the
    /// module. So it is for modules that were checked before.
    OnDemand,
}
