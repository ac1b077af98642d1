//! Rooms of a host.

use crate::{
    buffer::stateroom_buffer,
    failure::Failure,
    fault::{stateroom_fault, stateroom_fault_policy},
    ffi::{Caller, Versioned},
    host::{HostState, stateroom_host, with_host},
    module::stateroom_module,
    number::any_stateroom_fault,
    stats::stateroom_room_stats,
    status::stateroom_status,
    version::{STATEROOM_NO_ROOM, stateroom_room},
};
use core::{
    ffi::{c_char, c_void},
    time::Duration,
};
use stateroom_wasmi_host::{ClientId, Event, MessagePayload, Module, Room, RoomOptions};

/// Options of a room. Set `size` and leave everything else 0 for what the host has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_room_options {
    /// sizeof (stateroom_room_options).
    pub size: usize,
    /// Not 0: `seed` counts.
    pub has_seed: i32,
    /// Not 0: `unix_time` counts.
    pub has_unix_time: i32,
    /// Seeds the guest's random generator. The same seed gives the same numbers.
    pub seed: u64,
    /// The wall time when the room is opened, in nanoseconds since 1970.
    pub unix_time: u64,
    /// What follows when the guest fails.
    pub fault_policy: stateroom_fault_policy,
}

/// Opens a room of a module. `options` may be NULL. The module may be freed afterwards. The guest
/// is started by the next poll; if it fails, the fault policy is applied.
///
/// `*room` receives its key; on failure it is STATEROOM_NO_ROOM.
///
/// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, ID_TOO_LONG,
/// ID_TAKEN, TOO_MANY_ROOMS, NOT_LOADED_FOR_SNAPSHOTS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_open(
    host: *mut stateroom_host,
    now: u64,
    id: *const c_char,
    id_len: usize,
    module: *const stateroom_module,
    options: *const stateroom_room_options,
    room: *mut stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("room", room, STATEROOM_NO_ROOM)?;
        let id = caller.text("id", id, id_len)?;
        let module: &Module = caller.handle("module", module)?;
        let options = caller.read_versioned_or_default("options", options)?;
        let options = room_options(&options)?;
        with_host(caller, host, |state| {
            state.host.clock().set(now);
            let key = state.host.open_with(id, module, options)?;
            out.set(state.keys().to_program(key));
            Ok(())
        })
    })
}

/// Closes a room: its guest is dropped without a call, and the events that wait with it. What it
/// had sent is still delivered; then the callback `closed` is called, by a poll. A no-op if it is
/// closed.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_close(
    host: *mut stateroom_host,
    room: stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_host(caller, host, |state| {
            let key = state.key(room)?;
            Ok(state.host.close(key)?)
        })
    })
}

/// Removes a room at once, and drops what it had sent and was not delivered: for a room that
/// nobody listens to any more. The callback `closed` is not called.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_discard(
    host: *mut stateroom_host,
    room: stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_host(caller, host, |state| {
            let key = state.key(room)?;
            state.host.discard(key)?;
            Ok(())
        })
    })
}

/// Connects a client, whose id is from 1 to 2147483647. Like all events it waits in the room's
/// inbox until the host is polled.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
/// INVALID_CLIENT, ALREADY_CONNECTED, ROOM_FULL, INBOX_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_connect(
    host: *mut stateroom_host,
    room: stateroom_room,
    client: u32,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| enqueue(caller, host, room, Event::Connect(ClientId(client))))
}

/// Disconnects a client.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
/// INVALID_CLIENT, NOT_CONNECTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_disconnect(
    host: *mut stateroom_host,
    room: stateroom_room,
    client: u32,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| enqueue(caller, host, room, Event::Disconnect(ClientId(client))))
}

/// Gives a room a text that a client sent: UTF-8, copied. `text` may be NULL if `text_len` is 0.
///
/// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
/// INVALID_CLIENT, NOT_CONNECTED, MESSAGE_TOO_LONG, INBOX_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_text(
    host: *mut stateroom_host,
    room: stateroom_room,
    client: u32,
    text: *const c_char,
    text_len: usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let text = MessagePayload::Text(caller.text("text", text, text_len)?);
        enqueue(caller, host, room, Event::Message(ClientId(client), text))
    })
}

/// Gives a room bytes that a client sent; they are copied. `bytes` may be NULL if `bytes_len` is
/// 0.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
/// INVALID_CLIENT, NOT_CONNECTED, MESSAGE_TOO_LONG, INBOX_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_bytes(
    host: *mut stateroom_host,
    room: stateroom_room,
    client: u32,
    bytes: *const c_void,
    bytes_len: usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let bytes = MessagePayload::Bytes(caller.bytes("bytes", bytes, bytes_len)?);
        enqueue(caller, host, room, Event::Message(ClientId(client), bytes))
    })
}

/// Writes the id of a room.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_get_id(
    host: *const stateroom_host,
    room: stateroom_room,
    id: *mut stateroom_buffer,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_room(caller, host, room, |room| {
            caller.write_text("id", id, &room.id())
        })
    })
}

/// Writes the figures of a room. The caller has set `stats->size`.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_get_stats(
    host: *const stateroom_host,
    room: stateroom_room,
    stats: *mut stateroom_room_stats,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_room(caller, host, room, |room| {
            caller.write_versioned("stats", stats, room.into())
        })
    })
}

/// Writes the latest fault of a room, which it may have survived: its kind to `*fault`, NONE if
/// there was none, and what happened to `text`. Either may be NULL.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_get_fault(
    host: *const stateroom_host,
    room: stateroom_room,
    fault: *mut any_stateroom_fault,
    text: *mut stateroom_buffer,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.optional_out("fault", fault, stateroom_fault::None as i32)?;
        with_room(caller, host, room, |room| {
            let fault = room.last_fault();
            out.set(fault.map_or(stateroom_fault::None, Into::into) as i32);
            match fault {
                _ if text.is_null() => Ok(()),
                Some(fault) => caller.write_text("text", text, fault),
                None => caller.write_text("text", text, &""),
            }
        })
    })
}

/// Lists the connected clients of a room in the order of their ids: writes the first `capacity`
/// ones to `clients`, and to `*count` how many there are. `clients` may be NULL if `capacity` is
/// 0.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_get_clients(
    host: *const stateroom_host,
    room: stateroom_room,
    clients: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let count = caller.out("count", count, 0)?;
        let mut list = caller.list("clients", clients, capacity)?;
        with_room(caller, host, room, |room| {
            list.fill(room.clients().iter().map(|client| client.0));
            count.set(room.clients().len());
            Ok(())
        })
    })
}

/// Returns memory that a room's guest has but does not use to the operating system, for rooms
/// that stay: it reads all of that memory once. `released`, which may be NULL, receives how many
/// bytes that are; 0 where the operating system has no such call (it is Linux that has).
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_trim(
    host: *mut stateroom_host,
    room: stateroom_room,
    released: *mut usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.optional_out("released", released, 0)?;
        with_host(caller, host, |state| {
            let key = state.key(room)?;
            #[cfg(feature = "trim")]
            {
                out.set(state.host.trim(key)?);
                Ok(())
            }
            #[cfg(not(feature = "trim"))]
            {
                let _ = (key, out);
                Err(Failure::Unsupported("trim"))
            }
        })
    })
}

fn enqueue(
    caller: &Caller,
    host: *const stateroom_host,
    room: stateroom_room,
    event: Event<'_>,
) -> Result<(), Failure> {
    with_host(caller, host, |state| {
        let key = state.key(room)?;
        Ok(state.host.enqueue(key, event)?)
    })
}

fn with_room(
    caller: &Caller,
    host: *const stateroom_host,
    room: stateroom_room,
    f: impl FnOnce(&Room) -> Result<(), Failure>,
) -> Result<(), Failure> {
    with_host(caller, host, |state: &mut HostState| {
        let key = state.key(room)?;
        f(state.host.room(key).ok_or(Failure::UnknownRoom)?)
    })
}

fn room_options(options: &stateroom_room_options) -> Result<RoomOptions, Failure> {
    let mut result = RoomOptions::new();
    if options.has_seed != 0 {
        result = result.seed(options.seed);
    }
    if options.has_unix_time != 0 {
        result = result.unix_time_at_zero(Duration::from_nanos(options.unix_time));
    }
    if let Some(policy) = options.fault_policy.policy()? {
        result = result.on_fault(policy);
    }
    Ok(result)
}

impl Default for stateroom_room_options {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            has_seed: 0,
            has_unix_time: 0,
            seed: 0,
            unix_time: 0,
            fault_policy: stateroom_fault_policy::default(),
        }
    }
}

// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_room_options {}
