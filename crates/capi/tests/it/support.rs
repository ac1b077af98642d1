//! A program that uses the interface, in Rust: the functions with fewer arguments, and callbacks that
//! record.

use stateroom_wasmi::*;
use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, c_void},
    ptr::null_mut,
    slice,
};

pub(crate) type Status = stateroom_status;

/// See there for what it does.
pub(crate) const ROOM: &str = include_str!("room.wat");

/// A function's status, and the message that it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) status: Status,
    pub(crate) message: String,
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// Calls a function with a buffer for its error, and checks that what it writes fits its status.
pub(crate) fn call(f: impl FnOnce(*mut stateroom_buffer) -> Status) -> Result {
    let mut text = [0x7f; 8192];
    let mut error = buffer(&mut text);
    let status = f(&raw mut error);
    let message = CStr::from_bytes_until_nul(&text).unwrap();
    assert_eq!(message.count_bytes(), error.length);
    let message = message.to_str().unwrap().to_owned();
    assert_eq!(
        status == Status::Ok,
        message.is_empty(),
        "{status:?}: {message}"
    );
    match status {
        Status::Ok => Ok(()),
        status => Err(Error { status, message }),
    }
}

pub(crate) fn buffer(text: &mut [u8]) -> stateroom_buffer {
    stateroom_buffer {
        data: text.as_mut_ptr().cast(),
        capacity: text.len(),
        length: usize::MAX,
    }
}

/// The status of a function that must fail.
#[track_caller]
pub(crate) fn status<T: std::fmt::Debug>(result: Result<T>) -> Status {
    result.unwrap_err().status
}

/// A module of the program's.
pub(crate) struct Module(pub(crate) *mut stateroom_module);

impl Module {
    pub(crate) fn new(wat: &str) -> Self {
        Self::load(wat.as_bytes(), &stateroom_load_options::default()).unwrap()
    }

    pub(crate) fn with_limits(wat: &str, change: impl FnOnce(&mut stateroom_limits)) -> Self {
        let mut limits = stateroom_limits::default();
        change(&mut limits);
        let options = stateroom_load_options {
            limits: &raw const limits,
            ..Default::default()
        };
        Self::load(wat.as_bytes(), &options).unwrap()
    }

    /// Loads a module, in the text or the binary format.
    pub(crate) fn load(module: &[u8], options: &stateroom_load_options) -> Result<Self> {
        let wasm = wat::parse_bytes(module).unwrap();
        let mut loaded = null_mut();
        call(|error| unsafe {
            stateroom_module_load(
                wasm.as_ptr().cast(),
                wasm.len(),
                options,
                &raw mut loaded,
                error,
            )
        })?;
        Ok(Self(loaded))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        call(|error| unsafe { stateroom_module_free(&raw mut self.0, error) }).unwrap();
        assert!(self.0.is_null());
    }
}

/// What callbacks recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Sent(stateroom_room, Recipient, Payload),
    Connected(stateroom_room, u32),
    Disconnected(stateroom_room, u32),
    Closed {
        room: stateroom_room,
        id: String,
        fault: i32,
        text: Option<String>,
        clients: Vec<u32>,
        faults: u64,
    },
    Log(i32, String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipient {
    Broadcast,
    Client(u32),
    EveryoneExcept(u32),
}

/// What callbacks do.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// What those that send return.
    pub(crate) result: Cell<i32>,
    /// What `take_cost` returns.
    pub(crate) cost: Cell<u64>,
    /// What `clock` returns.
    pub(crate) time: Cell<u64>,
    /// Called by each callback.
    pub(crate) on_call: RefCell<Option<Box<dyn Fn()>>>,
    calls: RefCell<Vec<Call>>,
}

/// A host whose callbacks record.
pub(crate) struct Host {
    pub(crate) handle: *mut stateroom_host,
    pub(crate) behaviour: Box<Behaviour>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut stateroom_host_options)) -> Self {
        Self::try_with(change).unwrap()
    }

    pub(crate) fn try_with(change: impl FnOnce(&mut stateroom_host_options)) -> Result<Self> {
        let behaviour = Box::<Behaviour>::default();
        let mut options = stateroom_host_options {
            user: (&raw const *behaviour).cast_mut().cast(),
            send: Some(send),
            connected: Some(connected),
            disconnected: Some(disconnected),
            closed: Some(closed),
            ..Default::default()
        };
        change(&mut options);
        let mut handle = null_mut();
        call(|error| unsafe { stateroom_host_new(&raw const options, &raw mut handle, error) })?;
        Ok(Self { handle, behaviour })
    }

    /// What was recorded since this was called last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.behaviour.calls.take()
    }

    /// The texts that were sent since then.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.calls()
            .into_iter()
            .filter_map(|call| match call {
                Call::Sent(_, _, Payload::Text(text)) => Some(text),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn open(&self, id: &str, module: &Module) -> Result<stateroom_room> {
        self.open_with(0, id, module, &stateroom_room_options::default())
    }

    pub(crate) fn open_with(
        &self,
        now: u64,
        id: &str,
        module: &Module,
        options: &stateroom_room_options,
    ) -> Result<stateroom_room> {
        let mut room = u64::MAX;
        let result = call(|error| unsafe {
            let id = (id.as_ptr().cast(), id.len());
            stateroom_room_open(
                self.handle,
                now,
                id.0,
                id.1,
                module.0,
                options,
                &raw mut room,
                error,
            )
        });
        assert_eq!(result.is_err(), room == STATEROOM_NO_ROOM);
        result.map(|()| room)
    }

    /// Opens a room with a client, and forgets what that called.
    pub(crate) fn open_with_client(&self, module: &Module) -> stateroom_room {
        let room = self.open("room", module).unwrap();
        self.connect(room, 1).unwrap();
        self.poll(0);
        self.calls();
        room
    }

    pub(crate) fn connect(&self, room: stateroom_room, client: u32) -> Result {
        call(|error| unsafe { stateroom_room_connect(self.handle, room, client, error) })
    }

    pub(crate) fn disconnect(&self, room: stateroom_room, client: u32) -> Result {
        call(|error| unsafe { stateroom_room_disconnect(self.handle, room, client, error) })
    }

    pub(crate) fn text(&self, room: stateroom_room, client: u32, text: &str) -> Result {
        call(|error| unsafe {
            let (data, len) = (text.as_ptr().cast(), text.len());
            stateroom_room_text(self.handle, room, client, data, len, error)
        })
    }

    pub(crate) fn bytes(&self, room: stateroom_room, client: u32, bytes: &[u8]) -> Result {
        call(|error| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            stateroom_room_bytes(self.handle, room, client, data, len, error)
        })
    }

    pub(crate) fn close(&self, room: stateroom_room) -> Result {
        call(|error| unsafe { stateroom_room_close(self.handle, room, error) })
    }

    pub(crate) fn discard(&self, room: stateroom_room) -> Result {
        call(|error| unsafe { stateroom_room_discard(self.handle, room, error) })
    }

    /// Polls without limits; returns when to poll next.
    pub(crate) fn poll(&self, now: u64) -> u64 {
        self.try_poll(now, STATEROOM_UNLIMITED, STATEROOM_NEVER)
            .unwrap()
    }

    pub(crate) fn try_poll(&self, now: u64, fuel: u64, deadline: u64) -> Result<u64> {
        let mut poll_at = 1;
        let handle = self.handle;
        call(|error| unsafe {
            stateroom_host_poll(handle, now, fuel, deadline, &raw mut poll_at, error)
        })?;
        Ok(poll_at)
    }

    pub(crate) fn find(&self, id: &str) -> Result<stateroom_room> {
        let mut room = u64::MAX;
        call(|error| unsafe {
            let (data, len) = (id.as_ptr().cast(), id.len());
            stateroom_host_find_room(self.handle, data, len, &raw mut room, error)
        })?;
        Ok(room)
    }

    pub(crate) fn room_stats(&self, room: stateroom_room) -> Result<stateroom_room_stats> {
        let mut stats = zeroed_with_size();
        call(|error| unsafe {
            stateroom_room_get_stats(self.handle, room, &raw mut stats, error)
        })?;
        Ok(stats)
    }

    pub(crate) fn stats(&self) -> stateroom_host_stats {
        let mut stats = zeroed_with_size();
        call(|error| unsafe { stateroom_host_get_stats(self.handle, &raw mut stats, error) })
            .unwrap();
        stats
    }

    /// The kind and the text of the room's latest fault.
    pub(crate) fn fault(&self, room: stateroom_room) -> Result<(i32, String)> {
        let (mut fault, mut text) = (-1, [0x7f; 1024]);
        let mut buffer = buffer(&mut text);
        call(|error| unsafe {
            stateroom_room_get_fault(self.handle, room, &raw mut fault, &raw mut buffer, error)
        })?;
        let text = CStr::from_bytes_until_nul(&text).unwrap();
        Ok((fault, text.to_str().unwrap().to_owned()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        call(|error| unsafe { stateroom_host_free(&raw mut self.handle, error) }).unwrap();
        assert!(self.handle.is_null());
    }
}

/// A struct of zeros with its size, as a C program makes it.
pub(crate) fn zeroed_with_size<T: Copy>() -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

/// A room's options with a fault policy.
pub(crate) fn on_fault(on_fault: stateroom_on_fault) -> stateroom_room_options {
    stateroom_room_options {
        fault_policy: stateroom_fault_policy {
            on_fault: on_fault as i32,
            ..Default::default()
        },
        ..Default::default()
    }
}

fn record(user: *mut c_void, call: Call) -> &'static Behaviour {
    let behaviour = unsafe { &*user.cast::<Behaviour>() };
    behaviour.calls.borrow_mut().push(call);
    if let Some(on_call) = &*behaviour.on_call.borrow() {
        on_call();
    }
    behaviour
}

unsafe extern "C-unwind" fn send(user: *mut c_void, message: *const stateroom_message) -> i32 {
    let message = unsafe { &*message };
    let bytes = unsafe { slice::from_raw_parts(message.data.cast::<u8>(), message.length) };
    let payload = match message.is_text {
        0 => Payload::Bytes(bytes.to_vec()),
        _ => Payload::Text(String::from_utf8(bytes.to_vec()).unwrap()),
    };
    let recipient = match message.recipient {
        0 => Recipient::Broadcast,
        1 => Recipient::Client(message.client),
        2 => Recipient::EveryoneExcept(message.client),
        other => panic!("{other} is no recipient"),
    };
    for client in 1..4 {
        let expected = match recipient {
            Recipient::Broadcast => true,
            Recipient::Client(one) => one == client,
            Recipient::EveryoneExcept(one) => one != client,
        };
        let is_for = unsafe { stateroom_message_is_for(message, client) };
        assert_eq!(is_for, i32::from(expected));
    }
    let behaviour = unsafe { &*user.cast::<Behaviour>() };
    if behaviour.result.get() == 0 {
        record(user, Call::Sent(message.room, recipient, payload));
    }
    behaviour.result.get()
}

unsafe extern "C-unwind" fn connected(user: *mut c_void, room: u64, client: u32) -> i32 {
    record(user, Call::Connected(room, client));
    0
}

unsafe extern "C-unwind" fn disconnected(user: *mut c_void, room: u64, client: u32) -> i32 {
    record(user, Call::Disconnected(room, client));
    0
}

unsafe extern "C-unwind" fn closed(user: *mut c_void, room: *const stateroom_closed_room) {
    let room = unsafe { &*room };
    let text = |data: *const std::ffi::c_char, len| {
        let bytes = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let has_text = !room.fault_text.is_null();
    let clients = unsafe { slice::from_raw_parts(room.clients, room.client_count) };
    let stats = unsafe { &*room.stats };
    assert_eq!(stats.size, size_of::<stateroom_room_stats>());
    assert_eq!(stats.state, stateroom_room_state::Closed as i32);
    let call = Call::Closed {
        room: room.room,
        id: text(room.id, room.id_length),
        fault: room.fault,
        text: has_text.then(|| text(room.fault_text, room.fault_text_length)),
        clients: clients.to_vec(),
        faults: stats.faults,
    };
    record(user, call);
}

pub(crate) unsafe extern "C-unwind" fn log(user: *mut c_void, line: *const stateroom_log_line) {
    let line = unsafe { &*line };
    let text = |data: *const std::ffi::c_char, len| {
        let bytes = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let call = Call::Log(
        line.level,
        text(line.target, line.target_length),
        text(line.text, line.text_length),
    );
    record(user, call);
}

pub(crate) unsafe extern "C-unwind" fn take_cost(user: *mut c_void) -> u64 {
    unsafe { &*user.cast::<Behaviour>() }.cost.get()
}

/// Time passes by a microsecond with each look.
pub(crate) unsafe extern "C-unwind" fn clock(user: *mut c_void) -> u64 {
    let time = &unsafe { &*user.cast::<Behaviour>() }.time;
    time.set(time.get() + 1000);
    time.get()
}
