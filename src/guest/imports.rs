//! What a guest may import from `env`: sending, and the timer.

use super::{
    state::{FaultCauseError, State},
    wasi,
};
use crate::{
    abi::{self, Request, wasi_signature},
    error::FaultCause,
    event::MessagePayload,
};
use wasmi::{AsContextMut, Caller, Error, Extern, Linker, errors::LinkerError};

/// A linker with exactly what the module imports; the ABI check has seen that the host has it.
pub(super) fn linker(module: &wasmi::Module) -> Result<Linker<State>, LinkerError> {
    let mut linker = Linker::new(module.engine());
    // Importing one thing twice is allowed.
    linker.allow_shadowing(true);
    for import in module.imports() {
        let (module, name) = (import.module(), import.name());
        match (module, name) {
            ("env", "send_message") => linker.func_wrap(module, name, send_message)?,
            ("env", "send_binary") => linker.func_wrap(module, name, send_binary)?,
            ("env", "set_timer") => linker.func_wrap(module, name, set_timer)?,
            ("env", "stateroom_send") => linker.func_wrap(module, name, stateroom_send)?,
            (abi::WASI, _) => match wasi_signature(name) {
                Some(signature) => wasi::define(&mut linker, name, &signature)?,
                None => continue,
            },
            _ => continue,
        };
    }
    Ok(linker)
}

fn send_message(mut caller: Caller<'_, State>, client: i32, ptr: u32, len: u32) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "send_message", ptr, len)?;
    let text = core::str::from_utf8(bytes).map_err(|_| fault(FaultCause::NotUtf8))?;
    send(state, client, MessagePayload::Text(text))
}

fn send_binary(mut caller: Caller<'_, State>, client: i32, ptr: u32, len: u32) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "send_binary", ptr, len)?;
    send(state, client, MessagePayload::Bytes(bytes))
}

fn send(state: &mut State, client: i32, payload: MessagePayload<'_>) -> Result<(), Error> {
    let recipient = abi::decode_recipient(client).ok_or_else(|| fault(FaultCause::BadRecipient(client)))?;
    state.send(recipient, payload).map_err(fault)
}

fn set_timer(mut caller: Caller<'_, State>, ms_delay: u32) {
    charge(&mut caller, CALL);
    caller.data_mut().set_timer(ms_delay);
}

fn stateroom_send(mut caller: Caller<'_, State>, ptr: u32, len: u32) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "stateroom_send", ptr, len)?;
    match abi::decode(bytes).map_err(|error| fault(FaultCause::Undecodable(error)))? {
        Request::Message { recipient, payload } => state.send(recipient, payload).map_err(fault),
        Request::SetTimer { ms_delay } => {
            state.set_timer(ms_delay);
            Ok(())
        }
    }
}

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
    // Metering may be off.
    let Ok(left) = caller.get_fuel() else { return };
    caller.data_mut().fuel_debt += fuel.saturating_sub(left);
    caller.set_fuel(left.saturating_sub(fuel)).expect("metering is on, as was just seen");
}

/// The bytes that a guest points at, beside its state.
pub(super) fn slice<'a>(
    caller: &'a mut Caller<'_, State>,
    function: &'static str,
    ptr: u32,
    len: u32,
) -> Result<(&'a [u8], &'a mut State), Error> {
    let (memory, state) = memory(caller);
    let bytes = memory.get(ptr as usize..).and_then(|rest| rest.get(..len as usize));
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
    let memory = caller.data().memory.expect("a module without a memory is refused when it is loaded");
    memory.data_and_store_mut(caller.as_context_mut())
}

pub(super) fn fault(cause: FaultCause) -> Error {
    Error::host(FaultCauseError::from(cause))
}
