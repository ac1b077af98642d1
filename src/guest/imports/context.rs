//! Access to the memory, the state and the fuel of the guest that calls an import.

use super::super::host_state::{FaultCauseError, HostState};
use crate::error::FaultCause;
use wasmi::{AsContextMut, Caller, Error};

/// Fuel for one call of an import: about its cost in instructions.
pub(super) const CALL: u64 = 16;

/// Fuel for an import that reads and copies `len` bytes.
pub(super) fn copying(len: u32) -> u64 {
    CALL + u64::from(len) / 8
}

/// Charges the guest for the host's work, so that a chain of calls cannot take much longer than a
/// slice.
///
/// If the slice has too little left, the rest becomes a debt and the call goes on; the guest is
/// paused where the interpreter next looks at its fuel. So the fuel that an event uses does not depend on how it was
/// sliced.
pub(super) fn charge(caller: &mut Caller<'_, HostState>, fuel: u64) {
    // `get_fuel` would create an error when metering is off.
    if !caller.data().is_metered {
        return;
    }
    let left = caller.get_fuel().expect("metering is on");
    caller.data_mut().fuel_debt += fuel.saturating_sub(left);
    caller
        .set_fuel(left.saturating_sub(fuel))
        .expect("metering is on");
}

/// As [`charge`], for work that takes long: a fault if the event has no fuel for it at all. (Else a row
/// of such calls, between which the interpreter does not look at its fuel, would go on.)
#[allow(dead_code, reason = "only functions of WASI take so long")]
pub(super) fn spend(caller: &mut Caller<'_, HostState>, fuel: u64) -> Result<(), Error> {
    charge(caller, fuel);
    caller.data().check_debt().map_err(fault)
}

/// The bytes at a guest's pointer, and its state.
pub(super) fn slice<'a>(
    caller: &'a mut Caller<'_, HostState>,
    function: &'static str,
    ptr: u32,
    len: u32,
) -> Result<(&'a [u8], &'a mut HostState), Error> {
    let (memory, state) = memory(caller);
    let bytes = memory
        .get(ptr as usize..)
        .and_then(|rest| rest.get(..len as usize));
    match bytes {
        Some(bytes) => Ok((bytes, state)),
        None => Err(fault(FaultCause::BadPointer { function, ptr, len })),
    }
}

/// The guest's memory and its state.
pub(super) fn memory<'a>(
    caller: &'a mut Caller<'_, HostState>,
) -> (&'a mut [u8], &'a mut HostState) {
    let memory = caller
        .data()
        .memory
        .expect("no guest runs before it was given its memory");
    memory.data_and_store_mut(caller.as_context_mut())
}

pub(super) fn fault(cause: FaultCause) -> Error {
    Error::host(FaultCauseError::from(cause))
}
