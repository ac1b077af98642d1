//! Limits of modules and their rooms.

use crate::{
    buffer::stateroom_buffer,
    failure::Failure,
    ffi::{Caller, Versioned},
    status::stateroom_status,
};
use stateroom_wasmi_host::Limits;

macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        impl From<&Limits> for stateroom_limits {
            fn from(limits: &Limits) -> Self {
                Self {
                    size: size_of::<Self>(),
                    $($field: limits.$field,)*
                    max_fuel_per_event: limits.max_fuel_per_event.unwrap_or(u64::MAX),
                    fuel_per_slice: limits.fuel_per_slice,
                }
            }
        }

        impl From<&stateroom_limits> for Limits {
            fn from(limits: &stateroom_limits) -> Self {
                let unmetered = limits.max_fuel_per_event == u64::MAX;
                Self::new()
                    $(.$field(limits.$field))*
                    .max_fuel_per_event((!unmetered).then_some(limits.max_fuel_per_event))
                    .fuel_per_slice(limits.fuel_per_slice)
            }
        }
    };
}

/// The limits of a module and of each of its rooms. A module that exceeds one is refused; a guest
/// that exceeds one fails; a client that exceeds one gets an error.
///
/// Fill it with stateroom_limits_default or stateroom_limits_small, and change what you must.
/// What a program that was compiled with an older header does not know has its default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_limits {
    /// sizeof (stateroom_limits).
    pub size: usize,
    /// Length of a module in bytes. Default 16 MiB, small 128 KiB.
    pub max_module_bytes: usize,
    /// Linear memory of one room in bytes. Default 64 MiB, small 64 KiB.
    pub max_memory_bytes: usize,
    /// Elements of all tables of one room. Default 65,536, small 1,024.
    pub max_table_elements: usize,
    /// Heap that one room takes for what its module declares, in bytes. Default 16 MiB, small 64
    /// KiB.
    pub max_instance_bytes: usize,
    /// Locals that a function may declare. Default 800, small 200.
    pub max_function_locals: usize,
    /// The interpreter's value stack of one room in bytes. Default 1 MiB, small 4 KiB.
    pub max_stack_bytes: usize,
    /// Depth of nested calls. Default 10,000, small 32.
    pub max_recursion_depth: usize,
    /// Length of one message in bytes, to and from a room. Default 1 MiB, small 1 KiB.
    pub max_message_bytes: usize,
    /// Events that wait for a busy room; at least 2. Default 1,024, small 8.
    pub max_inbox_events: usize,
    /// Bytes of the messages that wait; at least `max_message_bytes`. Default 4 MiB, small 2 KiB.
    pub max_inbox_bytes: usize,
    /// Messages that a room may send within one event. Default 4,096, small 16.
    pub max_outbox_messages: usize,
    /// Bytes that a room may send within one event. Default 4 MiB, small 4 KiB.
    pub max_outbox_bytes: usize,
    /// Connected clients of one room. Default 1,024, small 8.
    pub max_clients: usize,
    /// Length of a room's id in bytes. Default 256, small 32.
    pub max_room_id_bytes: usize,
    /// Bytes that a guest may print to the log within one event. Default 16 KiB, small 1 KiB.
    pub max_log_bytes_per_event: usize,
    /// The same for each second of the room's time. Default 16 KiB, small 1 KiB.
    pub max_log_bytes_per_second: usize,
    /// Fuel that one event may use; one unit is about one simple instruction. STATEROOM_UNLIMITED
    /// turns metering off: an endless loop then hangs the host, so it is for trusted modules
    /// only. Default 100 million, small 1 million.
    pub max_fuel_per_event: u64,
    /// Fuel after which a guest is paused and other rooms have their turn. Default 1 million,
    /// small 10,000.
    pub fuel_per_slice: u64,
}

limits! {
    max_module_bytes,
    max_memory_bytes,
    max_table_elements,
    max_instance_bytes,
    max_function_locals,
    max_stack_bytes,
    max_recursion_depth,
    max_message_bytes,
    max_inbox_events,
    max_inbox_bytes,
    max_outbox_messages,
    max_outbox_bytes,
    max_clients,
    max_room_id_bytes,
    max_log_bytes_per_event,
    max_log_bytes_per_second,
}

/// Sets limits to those for a server or a desktop. The caller has set `limits->size`.
///
/// Any thread. Errors: INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_limits_default(
    limits: *mut stateroom_limits,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| fill(caller, limits, &Limits::new()))
}

/// Sets limits to those for a microcontroller with some hundred KiB of RAM. The caller has set
/// `limits->size`.
///
/// Any thread. Errors: INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_limits_small(
    limits: *mut stateroom_limits,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| fill(caller, limits, &Limits::small()))
}

fn fill(caller: &Caller, out: *mut stateroom_limits, limits: &Limits) -> Result<(), Failure> {
    caller.write_versioned("limits", out, limits.into())
}

/// The limits that the caller gave, or the default ones.
pub(crate) fn read(caller: &Caller, limits: *const stateroom_limits) -> Result<Limits, Failure> {
    let limits = caller.read_versioned_or_default("limits", limits)?;
    Ok(Limits::from(&limits))
}

impl Default for stateroom_limits {
    fn default() -> Self {
        Self::from(&Limits::new())
    }
}

// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_limits {}
