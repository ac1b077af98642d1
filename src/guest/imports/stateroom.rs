//! The functions of `env`: messages and the timer.

use super::{
    super::host_state::HostState,
    context::{CALL, charge, copying, fault, slice},
};
use crate::{
    abi::{self, Request},
    error::FaultCause,
    event::MessagePayload,
};
use wasmi::{Caller, Error, Func, Store};

/// The function of `env` with this name.
pub(super) fn function(store: &mut Store<HostState>, name: &str) -> Option<Func> {
    Some(match name {
        "send_message" => Func::wrap(store, send_message),
        "send_binary" => Func::wrap(store, send_binary),
        "set_timer" => Func::wrap(store, set_timer),
        "stateroom_send" => Func::wrap(store, stateroom_send),
        _ => return None,
    })
}

fn send_message(
    mut caller: Caller<'_, HostState>,
    client: i32,
    ptr: u32,
    len: u32,
) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "send_message", ptr, len)?;
    let text = core::str::from_utf8(bytes).map_err(|_| fault(FaultCause::NotUtf8))?;
    let recipient = abi::decode_recipient(client);
    state
        .send(recipient, MessagePayload::Text(text))
        .map_err(fault)
}

fn send_binary(
    mut caller: Caller<'_, HostState>,
    client: i32,
    ptr: u32,
    len: u32,
) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "send_binary", ptr, len)?;
    let recipient = abi::decode_recipient(client);
    state
        .send(recipient, MessagePayload::Bytes(bytes))
        .map_err(fault)
}

fn set_timer(mut caller: Caller<'_, HostState>, ms_delay: u32) -> Result<(), Error> {
    charge(&mut caller, CALL);
    // The documentation of ABI 0.2 says that zero cancels the timer.
    let ms_delay = (ms_delay > 0).then_some(ms_delay);
    caller.data_mut().set_timer(ms_delay).map_err(fault)
}

fn stateroom_send(mut caller: Caller<'_, HostState>, ptr: u32, len: u32) -> Result<(), Error> {
    charge(&mut caller, copying(len));
    let (bytes, state) = slice(&mut caller, "stateroom_send", ptr, len)?;
    match abi::decode(bytes).map_err(|error| fault(FaultCause::Undecodable(error)))? {
        Request::Message { recipient, payload } => state.send(recipient, payload).map_err(fault),
        // Zero fires it at once, as the published server does.
        Request::SetTimer { ms_delay } => state.set_timer(Some(ms_delay)).map_err(fault),
    }
}
