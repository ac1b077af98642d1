//! Modules.

use crate::{
    buffer::stateroom_buffer,
    failure::{Failure, unknown_value},
    ffi::{Caller, Handle, HandleType, Versioned},
    limits::{self, stateroom_limits},
    number::{any_stateroom_abi, any_stateroom_compilation, any_stateroom_payload_buffer},
    status::stateroom_status,
};
use core::{
    ffi::c_void,
    ptr::{self, null},
};
use stateroom_wasmi_host::{Compilation, LoadOptions, Module, PayloadBuffer, abi::AbiVersion};

/// A module: compiled and checked once, shared by its rooms.
pub struct stateroom_module {
    _opaque: [u8; 0],
}

/// When the functions of a module are translated for the interpreter.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_compilation {
    /// Each at its first call; all are validated when the module is loaded. The default.
    Lazy = 0,
    /// All when the module is loaded, so that no event waits for a translation or allocates for
    /// it.
    Eager = 1,
    /// Each is validated and translated at its first call: for modules that were checked before
    /// and must start at once.
    OnDemand = 2,
}

/// What happens to the buffer in a guest that payloads are passed in.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_payload_buffer {
    /// It is kept for guests that are known to allow it. The default.
    Auto = 0,
    /// It is kept between events.
    Keep = 1,
    /// It is allocated and freed for each event.
    PerEvent = 2,
}

/// The interface between a module and its host.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_abi {
    /// The documented interface: `jam_malloc`, `connect`, `message`, `send_message`, ….
    V0_2 = 2,
    /// The interface of `stateroom-wasm` 0.4: `stateroom_recv`, `stateroom_send`.
    V0_4 = 4,
}

/// How a module is loaded. Set `size` and leave everything else 0 for the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_load_options {
    /// sizeof (stateroom_load_options).
    pub size: usize,
    /// The limits of the module and its rooms; read during the call. NULL: the default ones.
    pub limits: *const stateroom_limits,
    /// When its functions are translated.
    pub compilation: any_stateroom_compilation,
    /// Whether its guests keep their buffer for payloads.
    pub payload_buffer: any_stateroom_payload_buffer,
    /// Not 0: rooms of the module can be saved, and may have the fault policy ROLLBACK.
    pub snapshots: i32,
    /// Not 0: the module may use SIMD instructions.
    pub simd: i32,
}

/// What a module is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_module_info {
    /// Set by the caller: sizeof (stateroom_module_info).
    pub size: usize,
    /// The interface that it uses.
    pub abi: any_stateroom_abi,
    /// Not 0: its guests keep their buffer for payloads.
    pub keeps_payload_buffer: i32,
}

/// Estimated bytes of heap on a 32-bit target; on a 64-bit target about twice as many.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_heap_estimate {
    /// Set by the caller: sizeof (stateroom_heap_estimate).
    pub size: usize,
    /// The peak while the module is loaded.
    pub load: usize,
    /// For as long as the module or a room of it exists.
    pub module: usize,
    /// For each room.
    pub room: usize,
    /// The part of `room` that is the guest's memory, which is one allocation.
    pub memory: usize,
    /// What must be free for the module and one room.
    pub with_one_room: usize,
}

/// Compiles a module, and checks that it is a room; to check one, load and free it. `wasm` is
/// read during the call. `options` may be NULL.
///
/// The caller owns `*module` and frees it with stateroom_module_free; on failure it is NULL.
///
/// Any thread. A module may be used by several threads at once, but rooms of one module on
/// several threads slow each other down; so load it once for each.
///
/// Errors: INVALID_ARGUMENT, UNSUPPORTED, INVALID_LIMITS, INVALID_MODULE, NOT_A_ROOM (the message
/// lists all problems, one a line), MODULE_TOO_LARGE, HIDDEN_STATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_module_load(
    wasm: *const c_void,
    wasm_len: usize,
    options: *const stateroom_load_options,
    module: *mut *mut stateroom_module,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("module", module, ptr::null_mut())?;
        let wasm = caller.bytes("wasm", wasm, wasm_len)?;
        let options = caller.read_versioned_or_default("options", options)?;
        let limits = limits::read(caller, options.limits)?;
        let loaded = Module::load_with(wasm, &limits, load_options(&options)?)?;
        out.set(Handle::create(loaded));
        Ok(())
    })
}

/// Frees a module and sets `*module` to NULL; a no-op if it is NULL. Rooms that are open go on.
///
/// No other thread may be using this handle. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_module_free(
    module: *mut *mut stateroom_module,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        drop(caller.take_handle::<Module>("module", module, |_| Ok(()))?);
        Ok(())
    })
}

/// Says what a module is. The caller has set `info->size`.
///
/// Any thread. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_module_get_info(
    module: *const stateroom_module,
    info: *mut stateroom_module_info,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let module: &Module = caller.handle("module", module)?;
        let abi = match module.abi() {
            AbiVersion::V0_2 => stateroom_abi::V0_2,
            AbiVersion::V0_4 => stateroom_abi::V0_4,
        };
        let value = stateroom_module_info {
            size: size_of::<stateroom_module_info>(),
            abi: abi as i32,
            keeps_payload_buffer: module.keeps_payload_buffer().into(),
        };
        caller.write_versioned("info", info, value)
    })
}

/// Writes the limits that a module was loaded with. The caller has set `limits->size`.
///
/// Any thread. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_module_get_limits(
    module: *const stateroom_module,
    limits: *mut stateroom_limits,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let module: &Module = caller.handle("module", module)?;
        caller.write_versioned("limits", limits, module.limits().into())
    })
}

/// Estimates the heap for loading a module and opening a room, from its bytes, which may be
/// anything. It allocates nothing. Where memory is short, refuse a module whose estimate does not
/// fit. `limits` may be NULL for the default ones. The caller has set `estimate->size`.
///
/// Any thread. Errors: INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_module_estimate_heap(
    wasm: *const c_void,
    wasm_len: usize,
    limits: *const stateroom_limits,
    estimate: *mut stateroom_heap_estimate,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let wasm = caller.bytes("wasm", wasm, wasm_len)?;
        let limits = limits::read(caller, limits)?;
        let estimated = Module::heap_estimate(wasm, &limits);
        let value = stateroom_heap_estimate {
            size: size_of::<stateroom_heap_estimate>(),
            load: estimated.load,
            module: estimated.module,
            room: estimated.room,
            memory: estimated.memory,
            with_one_room: estimated.with_one_room(),
        };
        caller.write_versioned("estimate", estimate, value)
    })
}

fn load_options(options: &stateroom_load_options) -> Result<LoadOptions, Failure> {
    let compilation = match options.compilation {
        v if v == stateroom_compilation::Lazy as i32 => Compilation::Lazy,
        v if v == stateroom_compilation::Eager as i32 => Compilation::Eager,
        v if v == stateroom_compilation::OnDemand as i32 => Compilation::OnDemand,
        v => return Err(unknown_value("compilation", v)),
    };
    let payload_buffer = match options.payload_buffer {
        v if v == stateroom_payload_buffer::Auto as i32 => PayloadBuffer::Auto,
        v if v == stateroom_payload_buffer::Keep as i32 => PayloadBuffer::Keep,
        v if v == stateroom_payload_buffer::PerEvent as i32 => PayloadBuffer::PerEvent,
        v => return Err(unknown_value("payload_buffer", v)),
    };
    let loaded = LoadOptions::new()
        .compilation(compilation)
        .payload_buffer(payload_buffer);
    #[cfg(feature = "snapshot")]
    let loaded = loaded.snapshots(options.snapshots != 0);
    #[cfg(not(feature = "snapshot"))]
    if options.snapshots != 0 {
        return Err(Failure::Unsupported("snapshots"));
    }
    #[cfg(feature = "simd")]
    let loaded = loaded.simd(options.simd != 0);
    #[cfg(not(feature = "simd"))]
    if options.simd != 0 {
        return Err(Failure::Unsupported("simd"));
    }
    Ok(loaded)
}

impl Default for stateroom_load_options {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            limits: null(),
            compilation: stateroom_compilation::Lazy as i32,
            payload_buffer: stateroom_payload_buffer::Auto as i32,
            snapshots: 0,
            simd: 0,
        }
    }
}

impl HandleType for Module {
    type Opaque = stateroom_module;
    const KIND: u32 = u32::from_be_bytes(*b"modu");
}

// SAFETY: it begins with its size, and consists of integers and a pointer.
unsafe impl Versioned for stateroom_load_options {}
// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_module_info {}
// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_heap_estimate {}
