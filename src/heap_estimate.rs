//! Estimates the heap that a module will take, from its bytes.

use crate::{limits::Limits, module::Module, structure::Structure};

/// Estimated bytes of heap of a module on a 32-bit target, from [`Module::heap_estimate`].
///
/// Most failed allocations in the interpreter and its parser are panics. So estimate first, and
/// refuse a module that does not fit ([`with_one_room`](Self::with_one_room)). Budget with the
/// estimates of the rooms that are open, not with what is free: a room allocates some of its share
/// only when its guest first makes nested calls.
///
/// The estimate is an upper bound for hand-written and small compiled modules with
/// [`Compilation::Eager`](crate::Compilation::Eager), measured on Cortex-M and RISC-V. On a 64-bit
/// target the figures are about twice as high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapEstimate {
    /// The peak while the module is loaded.
    pub load: usize,
    /// For as long as the module or a room of it exists.
    pub module: usize,
    /// For each room: the guest's initial memory, its functions, globals, tables and all else that the
    /// module declares, its stack at its limit, buffers for a few short messages.
    pub room: usize,
    /// The part of `room` that is the guest's initial memory, one allocation (for each memory, if a
    /// module has several).
    pub memory: usize,
}

impl HeapEstimate {
    /// Without the guest's memory, for allocators that put large allocations into another region,
    /// such as external RAM.
    #[must_use]
    pub const fn without_memory(self) -> Self {
        Self {
            room: self.room - self.memory,
            memory: 0,
            ..self
        }
    }

    /// Bytes that must be free for the module and one room.
    #[must_use]
    pub const fn with_one_room(&self) -> usize {
        let kept = self.module.saturating_add(self.room);
        if kept > self.load { kept } else { self.load }
    }
}

/// For every module: the engine and its types.
const MODULE_BYTES: usize = 7 << 10;
/// For each byte of a module: the interpreter's instructions and their tables.
const BYTES_PER_BYTE: usize = 3;
/// For the parser, while the module is loaded.
const PARSER_BYTES: usize = 6 << 10;
/// For a room besides its memory and its stack.
const ROOM_BYTES: usize = 7 << 10;
/// What that includes of the functions, globals, exports and segments of a module: the interpreter's
/// arenas have space for some from the start.
const INCLUDED_INSTANCE_BYTES: usize = 3 << 10;
/// The estimate is for targets with pointers of 32 bits.
const POINTER_BYTES: usize = 4;
/// For each nested call on the interpreter's call stack, which grows by doubling.
const CALL_BYTES: usize = 48;
/// The least that such a call takes on the value stack.
const CALL_STACK_BYTES: usize = 16;

impl Module {
    /// Estimates the heap for loading a module and opening a room; see [`HeapEstimate`]. It does not
    /// allocate, and stops where the module is invalid.
    #[must_use]
    pub fn heap_estimate(wasm: &[u8], limits: &Limits) -> HeapEstimate {
        let structure = Structure::of(wasm);
        let kept_bytes = wasm.len().saturating_sub(structure.custom_bytes);
        let module = MODULE_BYTES.saturating_add(kept_bytes.saturating_mul(BYTES_PER_BYTE));
        let memory = usize::try_from(structure.memory_bytes)
            .unwrap_or(usize::MAX)
            .min(limits.max_memory_bytes);
        let instance = structure.instance_bytes(POINTER_BYTES);
        let calls = limits
            .max_recursion_depth
            .min(limits.max_stack_bytes / CALL_STACK_BYTES);
        let stack = limits
            .max_stack_bytes
            .saturating_add(calls.saturating_mul(CALL_BYTES));
        HeapEstimate {
            load: module.saturating_add(PARSER_BYTES),
            module,
            room: ROOM_BYTES
                .saturating_add(instance.saturating_sub(INCLUDED_INSTANCE_BYTES))
                .saturating_add(stack)
                .saturating_add(memory),
            memory,
        }
    }
}
