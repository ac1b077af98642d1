//! How much heap a module will take, told from its bytes before anything is parsed.

use crate::{limits::Limits, module::Module};
use wasmparser::{Parser, Payload};

/// About how many bytes of heap a module takes on a 32-bit target, by [`Module::heap_estimate`].
///
/// The interpreter and its parser cannot be stopped in the middle: where an allocation of theirs
/// fails, they panic more often than not. So ask first, and refuse a module that does not fit
/// ([`with_one_room`](Self::with_one_room)). Count what was promised to the rooms that are there, not
/// what is free: a room takes some of its share only when its guest first calls deep.
///
/// It is an estimate from above, made for hand-written and small compiled modules that are compiled
/// with [`Compilation::Eager`](crate::Compilation::Eager), and measured on Cortex-M and RISC-V. On a
/// 64-bit target the figures are about twice as high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapEstimate {
    /// At the peak, while the module is loaded.
    pub load: usize,
    /// For as long as the module or a room of it is there.
    pub module: usize,
    /// For each room: the guest's memory as it starts, its stack at its limit, buffers for a few short
    /// messages.
    pub room: usize,
    /// Of `room`, the guest's memory as it starts, which the interpreter allocates in one piece.
    pub memory: usize,
}

impl HeapEstimate {
    /// The same for a room whose guest's memory does not lie in this heap: an allocator may give
    /// large pieces a region of their own, such as external RAM.
    #[must_use]
    pub const fn without_memory(self) -> Self {
        Self {
            room: self.room - self.memory,
            memory: 0,
            ..self
        }
    }

    /// What must be free for the module and one room of it.
    #[must_use]
    pub const fn with_one_room(&self) -> usize {
        let kept = self.module.saturating_add(self.room);
        if kept > self.load { kept } else { self.load }
    }
}

/// What every module takes: the engine, its types, the linked imports.
const MODULE_BYTES: usize = 6 << 10;
/// What a byte of a module becomes: instructions of the interpreter, and tables about them.
const BYTES_PER_BYTE: usize = 3;
/// What only the parser needs, on top.
const PARSER_BYTES: usize = 6 << 10;
/// What a room takes besides its memory and its stack.
const ROOM_BYTES: usize = 7 << 10;
/// What a call within a call takes of the interpreter's other stack, which grows by doubling.
const CALL_BYTES: usize = 48;
/// The least that such a call takes of the value stack.
const CALL_STACK_BYTES: usize = 16;

impl Module {
    /// About how much heap it will take to load these bytes and to open a room; see
    /// [`HeapEstimate`]. It allocates nothing, and looks at the module no further than it is valid.
    #[must_use]
    pub fn heap_estimate(wasm: &[u8], limits: &Limits) -> HeapEstimate {
        let (code_bytes, memory_bytes) = measure(wasm);
        let module = MODULE_BYTES.saturating_add(code_bytes.saturating_mul(BYTES_PER_BYTE));
        let memory = usize::try_from(memory_bytes)
            .unwrap_or(usize::MAX)
            .min(limits.max_memory_bytes);
        let calls = limits
            .max_recursion_depth
            .min(limits.max_stack_bytes / CALL_STACK_BYTES);
        let stack = limits
            .max_stack_bytes
            .saturating_add(calls.saturating_mul(CALL_BYTES));
        HeapEstimate {
            load: module.saturating_add(PARSER_BYTES),
            module,
            room: ROOM_BYTES.saturating_add(stack).saturating_add(memory),
            memory,
        }
    }
}

/// The length without custom sections, which are not kept, and the memory that it starts with.
fn measure(wasm: &[u8]) -> (usize, u64) {
    let (mut bytes, mut memory) = (wasm.len(), 0);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::CustomSection(section)) => {
                bytes = bytes.saturating_sub(section.range().len())
            }
            Ok(Payload::MemorySection(memories)) => {
                for ty in memories.into_iter().flatten() {
                    let page_bytes = 1_u64 << ty.page_size_log2.unwrap_or(16).min(16);
                    memory = ty.initial.saturating_mul(page_bytes).saturating_add(memory);
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    (bytes, memory)
}
