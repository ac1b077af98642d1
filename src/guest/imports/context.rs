//! How imports get at the memory, the state and the fuel of the guest that calls them.

use super::super::host_state::{FaultCauseError, State};
use crate::error::FaultCause;
use wasmi::{AsContextMut, Caller, Error, Extern};

/// Fuel for one call of an import, about what it takes beside an instruction.
pub(super) const CALL: u64 = 16;

/// Fuel for an import that looks at and copies `len` bytes.
pub(super) fn copying(len: u32) -> u64 {
    CALL + u64::from(len) / 8
}

/// Takes fuel for what the host does on behalf of the guest, so that a chain of calls cannot take
/// more time than a slice is meant to.
///
/// What is lacking is noted as a debt and the call goes on: the guest is paused at its next
/// instruction. So the fuel that an event uses does not depend on how it was sliced.
pub(super) fn charge(caller: &mut Caller<'_, State>, fuel: u64) {
    // Not asked of the store, which makes an error when metering is off.
    if !caller.data().is_metered {
        return;
    }
    let left = caller.get_fuel().expect("metering is on");
    caller.data_mut().fuel_debt += fuel.saturating_sub(left);
    caller
        .set_fuel(left.saturating_sub(fuel))
        .expect("metering is on");
}

/// The bytes that a guest points at, beside its state.
pub(super) fn slice<'a>(
    caller: &'a mut Caller<'_, State>,
    function: &'static str,
    ptr: u32,
    len: u32,
) -> Result<(&'a [u8], &'a mut State), Error> {
    let (memory, state) = memory(caller);
    let bytes = memory
        .get(ptr as usize..)
        .and_then(|rest| rest.get(..len as usize));
    match bytes {
        Some(bytes) => Ok((bytes, state)),
        None => Err(fault(FaultCause::BadPointer { function, ptr, len })),
    }
}

/// The guest's memory, beside its state.
pub(super) fn memory<'a>(caller: &'a mut Caller<'_, State>) -> (&'a mut [u8], &'a mut State) {
    if caller.data().memory.is_none() {
        // Only a start function calls while the guest is not there yet.
        caller.data_mut().memory = caller.get_export("memory").and_then(Extern::into_memory);
    }
    let memory = caller
        .data()
        .memory
        .expect("a module without a memory is refused when it is loaded");
    memory.data_and_store_mut(caller.as_context_mut())
}

pub(super) fn fault(cause: FaultCause) -> Error {
    Error::host(FaultCauseError::from(cause))
}
