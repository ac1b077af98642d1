//! How a module is loaded.

/// Options for loading a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// When its functions are translated. Default [`Compilation::Lazy`].
    pub compilation: Compilation,
    /// Whether its guests keep a buffer for payloads between events. Default [`PayloadBuffer::Auto`].
    pub payload_buffer: PayloadBuffer,
    /// Whether the state of its rooms can be saved and restored: for [`Room::save`](crate::Room::save)
    /// and what stands on it, the policy [`Rollback`](crate::FaultPolicy::Rollback) included. Loading
    /// then hashes the module, scans all instructions, rewrites the module in memory, and makes an
    /// instance. Modules with state outside of memory and globals are refused. Default false.
    #[cfg(feature = "snapshot")]
    pub snapshots: bool,
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
            payload_buffer: PayloadBuffer::Auto,
            #[cfg(feature = "snapshot")]
            snapshots: false,
            #[cfg(feature = "simd")]
            simd: false,
        }
    }

    setters! { compilation: Compilation, payload_buffer: PayloadBuffer }

    #[cfg(feature = "snapshot")]
    setters! { snapshots: bool }

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

/// The export by which a module says that its buffer may be kept. Only its name counts: it may be a
/// function, which is never called, or a global.
pub(crate) const KEEP_PAYLOAD_BUFFER: &str = "stateroom_keep_payload_buffer";

/// What happens to the buffer, allocated by a guest, that a payload is passed in.
///
/// The JIT hosts allocate, pass and free each payload, which takes three calls of the guest. To keep
/// the buffer makes that one call, and is safe for a guest whose allocator hands out memory that
/// nobody else uses until it is freed. That is not so for an allocator that takes back all memory
/// when something is freed, nor for memory of a garbage collector that does not know of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadBuffer {
    /// It is kept for guests that are known to allow it, and else as [`PerEvent`](Self::PerEvent).
    /// The default.
    ///
    /// These are modules with an export named `stateroom_keep_payload_buffer` (a function, which is
    /// never called, or a global), and those of the published SDK `stateroom-wasm`: they export the
    /// version numbers of their ABI and contain a text of the SDK in their data.
    #[default]
    Auto,
    /// It is kept, and replaced by a longer one for a longer payload.
    Keep,
    /// It is allocated for each payload and freed after the event, as under the JIT hosts.
    PerEvent,
}
