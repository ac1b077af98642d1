//! What a host calls, and its transport, which does so.

use crate::{
    fault::stateroom_fault,
    host::stateroom_host_options,
    number::{any_stateroom_fault, any_stateroom_recipient},
    stats::stateroom_room_stats,
    version::stateroom_room,
};
use alloc::{string::ToString, vec::Vec};
use core::{
    ffi::{c_char, c_void},
    ptr::null,
};
use stateroom_wasmi_host::{
    ClientId, ClosedRoom, MessagePayload, MessageRecipient, OutputMessage, RoomKey, SendError,
    Transport,
};

/// Who receives a message.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_recipient {
    /// Every client of the room.
    Broadcast = 0,
    /// The client `client`, if there is one.
    Client = 1,
    /// Every client of the room except `client`.
    EveryoneExcept = 2,
}

/// What the callbacks `send`, `connected` and `disconnected` return.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_send_result {
    /// Done.
    Sent = 0,
    /// There is no space now: the output is kept, with all of the room's that follow, and tried
    /// again by the next poll.
    WouldBlock = 1,
    /// The output is lost, which is logged. Any other number means the same.
    Failed = 2,
}

/// A message that a room sends. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_message {
    /// The key of the room.
    pub room: stateroom_room,
    /// Who receives it.
    pub recipient: any_stateroom_recipient,
    /// See `recipient`; 0 for a broadcast. As the guest named it: it may have left, or never
    /// been.
    pub client: u32,
    /// Not 0: the payload is text, in UTF-8. 0: it is bytes.
    pub is_text: i32,
    /// The payload; never NULL.
    pub data: *const c_void,
    /// Its length in bytes.
    pub length: usize,
}

/// A room that has ended, and whose key and id name no room any more. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_closed_room {
    /// Its key.
    pub room: stateroom_room,
    /// Its id, in UTF-8 without a NUL.
    pub id: *const c_char,
    /// Length of the id in bytes.
    pub id_length: usize,
    /// Why its guest failed; NONE if stateroom_room_close closed it.
    pub fault: any_stateroom_fault,
    /// The fault as a text, in UTF-8 without a NUL; NULL if there is none.
    pub fault_text: *const c_char,
    /// Length of that text in bytes.
    pub fault_text_length: usize,
    /// The clients that were connected.
    pub clients: *const u32,
    /// How many.
    pub client_count: usize,
    /// Its final figures.
    pub stats: *const stateroom_room_stats,
}

/// Returns 1 if a message is for a client of its room that is connected, else 0; also for NULL.
///
/// From the callback `send`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_message_is_for(
    message: *const stateroom_message,
    client: u32,
) -> i32 {
    // SAFETY: the message is NULL or one that the library made, as the header says.
    let Some(message) = (unsafe { message.as_ref() }) else {
        return 0;
    };
    let is_for = match message.recipient {
        r if r == stateroom_recipient::Broadcast as i32 => true,
        r if r == stateroom_recipient::Client as i32 => message.client == client,
        _ => message.client != client,
    };
    is_for.into()
}

/// The callbacks of a host, as its transport.
pub(crate) struct Callbacks {
    functions: stateroom_host_options,
    /// What the keys of the host's rooms begin with.
    keys: Keys,
}

// SAFETY: the pointers in it are given to the program's callbacks and not used otherwise; the header
// says that these are called by the thread that calls the host.
unsafe impl Send for Callbacks {}

/// Translates keys of rooms into those that the program sees, which also say of which host a room
/// is.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    /// From 1, so that no key is [`STATEROOM_NO_ROOM`](crate::STATEROOM_NO_ROOM).
    pub(crate) host: u32,
}

impl Keys {
    /// Bits of a room's number: enough for a million rooms a second during half a year.
    const ROOM_BITS: u32 = 44;
    /// Hosts that can be told apart.
    pub(crate) const MAX_HOSTS: u32 = (1 << (u64::BITS - Self::ROOM_BITS)) - 1;

    pub(crate) const fn to_program(self, key: RoomKey) -> stateroom_room {
        (self.host as u64) << Self::ROOM_BITS | key.to_bits()
    }

    /// None if the key is of another host.
    pub(crate) const fn to_host(self, key: stateroom_room) -> Option<RoomKey> {
        if key >> Self::ROOM_BITS == self.host as u64 {
            Some(RoomKey::from_bits(key & ((1 << Self::ROOM_BITS) - 1)))
        } else {
            None
        }
    }
}

impl Callbacks {
    pub(crate) const fn new(functions: stateroom_host_options, keys: Keys) -> Self {
        Self { functions, keys }
    }

    pub(crate) const fn keys(&self) -> Keys {
        self.keys
    }

    /// Tells the program that a room has ended.
    pub(crate) fn closed(&mut self, room: &ClosedRoom) {
        let Some(closed) = self.functions.closed else {
            return;
        };
        let text = room.fault.as_ref().map(ToString::to_string);
        let clients: Vec<u32> = room.clients.iter().map(|client| client.0).collect();
        let stats = stateroom_room_stats::closed(&room.stats);
        let fault = room
            .fault
            .as_ref()
            .map_or(stateroom_fault::None, Into::into);
        let room = stateroom_closed_room {
            room: self.keys.to_program(room.key),
            id: room.id.as_ptr().cast(),
            id_length: room.id.len(),
            fault: fault as i32,
            fault_text: text.as_ref().map_or(null(), |text| text.as_ptr().cast()),
            fault_text_length: text.as_ref().map_or(0, |text| text.len()),
            clients: clients.as_ptr(),
            client_count: clients.len(),
            stats: &raw const stats,
        };
        // SAFETY: the program's promise for its callbacks; what `room` points to lives until it returns.
        unsafe { closed(self.functions.user, &raw const room) }
    }
}

/// A callback has lost an output.
type Lost = &'static str;

impl Transport for Callbacks {
    type Error = Lost;

    fn send(&mut self, room: RoomKey, message: OutputMessage<'_>) -> Result<(), SendError<Lost>> {
        let Some(send) = self.functions.send else {
            return Ok(());
        };
        let (recipient, client) = match message.recipient {
            MessageRecipient::Broadcast => (stateroom_recipient::Broadcast, 0),
            MessageRecipient::Client(client) => (stateroom_recipient::Client, client.0),
            MessageRecipient::EveryoneExcept(client) => {
                (stateroom_recipient::EveryoneExcept, client.0)
            }
        };
        let bytes = message.payload.as_bytes();
        let message = stateroom_message {
            room: self.keys.to_program(room),
            recipient: recipient as i32,
            client,
            is_text: matches!(message.payload, MessagePayload::Text(_)).into(),
            data: bytes.as_ptr().cast(),
            length: bytes.len(),
        };
        // SAFETY: the program's promise for its callbacks; the payload is borrowed until it returns.
        sent(unsafe { send(self.functions.user, &raw const message) })
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) -> Result<(), SendError<Lost>> {
        match self.functions.connected {
            // SAFETY: the program's promise for its callbacks.
            Some(connected) => sent(unsafe {
                connected(self.functions.user, self.keys.to_program(room), client.0)
            }),
            None => Ok(()),
        }
    }

    fn disconnected(&mut self, room: RoomKey, client: ClientId) -> Result<(), SendError<Lost>> {
        match self.functions.disconnected {
            // SAFETY: the program's promise for its callbacks.
            Some(disconnected) => sent(unsafe {
                disconnected(self.functions.user, self.keys.to_program(room), client.0)
            }),
            None => Ok(()),
        }
    }

    fn take_cost(&mut self) -> u64 {
        match self.functions.take_cost {
            // SAFETY: the program's promise for its callbacks.
            Some(take_cost) => unsafe { take_cost(self.functions.user) },
            None => 0,
        }
    }
}

fn sent(result: i32) -> Result<(), SendError<Lost>> {
    match result {
        r if r == stateroom_send_result::Sent as i32 => Ok(()),
        r if r == stateroom_send_result::WouldBlock as i32 => Err(SendError::WouldBlock),
        _ => Err(SendError::Failed("the callback could not send it")),
    }
}
