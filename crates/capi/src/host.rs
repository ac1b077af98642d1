//! Hosts.

use crate::{
    buffer::stateroom_buffer,
    callbacks::{Callbacks, Keys, stateroom_closed_room, stateroom_message},
    clock::EngineClock,
    failure::Failure,
    fault::stateroom_fault_policy,
    ffi::{Caller, Exclusive, Handle, HandleType, Versioned},
    log_line::stateroom_log_line,
    log_sink::LogSink,
    number::{any_stateroom_log_level, any_stateroom_send_result},
    stats::stateroom_host_stats,
    status::stateroom_status,
    version::{STATEROOM_NEVER, STATEROOM_NO_ROOM, stateroom_room},
};
use alloc::vec::Vec;
use core::{
    ffi::{c_char, c_void},
    ptr::null_mut,
    sync::atomic::{AtomicU32, Ordering},
};
use stateroom_wasmi_host::{Budget, Clock, Host, HostLimits, Instant, RoomKey};

/// A host: runs rooms.
pub struct stateroom_host {
    _opaque: [u8; 0],
}

/// Options of a host. Set `size` and `send`, and leave everything else 0 for the defaults.
///
/// The callbacks are called by the thread that calls the host, during stateroom_host_poll (`log`:
/// during any function of the host), and given `user`. They must return: no C++ exception and no
/// longjmp may leave them. They may use other hosts; a call of the same host is refused with
/// IN_USE. So put off what must be done to it until the poll has returned. What they are passed
/// is theirs until they return.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_host_options {
    /// sizeof (stateroom_host_options).
    pub size: usize,
    /// Given to each callback.
    pub user: *mut c_void,
    /// Sends a message. It must not block. Required.
    pub send: Option<
        unsafe extern "C-unwind" fn(
            user: *mut c_void,
            message: *const stateroom_message,
        ) -> any_stateroom_send_result,
    >,
    /// The room handles the connect of a client: messages from here on may be for it, and those
    /// before were not. Called again when a room restarts.
    pub connected: Option<
        unsafe extern "C-unwind" fn(
            user: *mut c_void,
            room: stateroom_room,
            client: u32,
        ) -> any_stateroom_send_result,
    >,
    /// The room handles the disconnect of a client: messages from here on are not for it.
    pub disconnected: Option<
        unsafe extern "C-unwind" fn(
            user: *mut c_void,
            room: stateroom_room,
            client: u32,
        ) -> any_stateroom_send_result,
    >,
    /// A room has ended, by a fault or by stateroom_room_close, and its outputs were sent.
    pub closed:
        Option<unsafe extern "C-unwind" fn(user: *mut c_void, room: *const stateroom_closed_room)>,
    /// A line for the log: what guests print, faults that rooms survive, outputs that were lost.
    pub log:
        Option<unsafe extern "C-unwind" fn(user: *mut c_void, line: *const stateroom_log_line)>,
    /// What the callbacks have cost since it was called last, in units of fuel that take as long
    /// (one is about a nanosecond), such as copies for each recipient of a broadcast. Counted as
    /// the room's.
    pub take_cost: Option<unsafe extern "C-unwind" fn(user: *mut c_void) -> u64>,
    /// The time now, on the clock of stateroom_host_poll's `now`, for its `deadline`. Without it
    /// the library measures with the operating system's clock.
    pub clock: Option<unsafe extern "C-unwind" fn(user: *mut c_void) -> u64>,
    /// The wall time at the time 0, in nanoseconds since 1970, for guests that ask for it.
    pub unix_time_at_zero: u64,
    /// The seeds of the rooms' random generators are derived from it.
    pub seed: u64,
    /// What follows when a guest fails.
    pub fault_policy: stateroom_fault_policy,
    /// How many rooms may be open. 0: 10,000.
    pub max_rooms: usize,
    /// The least important lines that `log` gets. 0: INFO.
    pub max_log_level: any_stateroom_log_level,
}

/// Makes a host without rooms. `options` are copied.
///
/// The caller owns `*host` and frees it with stateroom_host_free; on failure it is NULL.
///
/// Any thread. Hosts are independent of each other.
///
/// Errors: INVALID_ARGUMENT, UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_new(
    options: *const stateroom_host_options,
    host: *mut *mut stateroom_host,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("host", host, null_mut())?;
        let options = caller.read_versioned("options", options)?;
        out.set(Handle::create(Exclusive::new(HostState::new(options)?)));
        Ok(())
    })
}

/// Frees a host with its rooms, and sets `*host` to NULL; a no-op if it is NULL. Rooms end
/// without a callback but `log`.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE; then nothing is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_free(
    host: *mut *mut stateroom_host,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let host = caller.take_handle::<SharedHost>("host", host, SharedHost::retire)?;
        if let Some(host) = host {
            let state = host.into_inner();
            let _scope = state.log.enter();
            drop(state);
        }
        Ok(())
    })
}

/// Does what there is to do: sends the outputs that were refused, fires the timers that are due,
/// gives each room that has work a slice in turn, and reports the rooms that have ended.
///
/// `now` is the program's time in nanoseconds, from any origin; time that runs backwards stands
/// still. The poll ends when rooms have used `fuel` (STATEROOM_UNLIMITED: no limit) or when the
/// time is `deadline` (STATEROOM_NEVER: none); the last slice, and what callbacks take for the
/// outputs of its room, may exceed either.
///
/// `poll_at`, which may be NULL, receives when to poll next: a time that is not after `now` if
/// work is left, STATEROOM_NEVER if there is none. Poll also after events were put in, and when a
/// callback that returned WOULD_BLOCK could send again.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED; UNSUPPORTED if there is a deadline,
/// and neither the callback `clock` nor a clock of the operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_poll(
    host: *mut stateroom_host,
    now: u64,
    fuel: u64,
    deadline: u64,
    poll_at: *mut u64,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.optional_out("poll_at", poll_at, STATEROOM_NEVER)?;
        with_host(caller, host, |state| {
            state.poll(now, fuel, deadline).map(|at| out.set(at))
        })
    })
}

/// Writes when to poll next, as stateroom_host_poll does.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_get_poll_time(
    host: *const stateroom_host,
    poll_at: *mut u64,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("poll_at", poll_at, STATEROOM_NEVER)?;
        with_host(caller, host, |state| {
            out.set(match state.host.has_closed() {
                true => 0,
                false => nanos(state.host.poll_timeout()),
            });
            Ok(())
        })
    })
}

/// Finds the room of an id. `*room` is STATEROOM_NO_ROOM if there is none.
///
/// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_find_room(
    host: *const stateroom_host,
    id: *const c_char,
    id_len: usize,
    room: *mut stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("room", room, STATEROOM_NO_ROOM)?;
        let id = caller.text("id", id, id_len)?;
        with_host(caller, host, |state| {
            let key = state.host.find(id).ok_or(Failure::UnknownRoom)?;
            out.set(state.keys().to_program(key));
            Ok(())
        })
    })
}

/// Lists the rooms of a host, in the order in which they were opened: writes the keys of the
/// first `capacity` ones to `rooms`, and to `*count` how many there are. `rooms` may be NULL if
/// `capacity` is 0.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_get_rooms(
    host: *const stateroom_host,
    rooms: *mut stateroom_room,
    capacity: usize,
    count: *mut usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let count = caller.out("count", count, 0)?;
        let mut list = caller.list("rooms", rooms, capacity)?;
        with_host(caller, host, |state| {
            let mut keys: Vec<RoomKey> = state.host.rooms().map(|(key, _)| key).collect();
            keys.sort_unstable();
            let program_keys = state.keys();
            list.fill(keys.iter().map(|key| program_keys.to_program(*key)));
            count.set(keys.len());
            Ok(())
        })
    })
}

/// Writes the figures of a host. The caller has set `stats->size`.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_host_get_stats(
    host: *const stateroom_host,
    stats: *mut stateroom_host_stats,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_host(caller, host, |state| {
            let host = &state.host;
            let rooms = host.rooms().map(|(_, room)| room);
            let value = stateroom_host_stats::new(host.is_blocked(), rooms);
            caller.write_versioned("stats", stats, value)
        })
    })
}

/// What a handle of a host points to.
pub(crate) struct HostState {
    pub(crate) host: Host<EngineClock, Callbacks>,
    log: LogSink,
    can_measure: bool,
}

pub(crate) type SharedHost = Exclusive<HostState>;

/// Calls with the host of a handle, which is in use meanwhile.
pub(crate) fn with_host(
    caller: &Caller,
    host: *const stateroom_host,
    f: impl FnOnce(&mut HostState) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let host: &SharedHost = caller.handle("host", host)?;
    host.with(|state| {
        let _scope = state.log.enter();
        f(state)
    })
}

impl HostState {
    fn new(options: stateroom_host_options) -> Result<Self, Failure> {
        if options.send.is_none() {
            return Err(Failure::Null("send"));
        }
        let log = LogSink::new(&options)?;
        let fault_policy = options.fault_policy.policy()?.unwrap_or_default();
        let mut limits = HostLimits::new();
        if options.max_rooms != 0 {
            limits = limits.max_rooms(options.max_rooms);
        }
        let clock = EngineClock::new(&options);
        let callbacks = Callbacks::new(options, next_keys());
        Ok(Self {
            host: Host::with_limits(clock, callbacks, limits)
                .with_seed(options.seed)
                .with_fault_policy(fault_policy),
            log,
            can_measure: cfg!(feature = "std") || options.clock.is_some(),
        })
    }

    pub(crate) fn keys(&self) -> Keys {
        self.host.transport().keys()
    }

    /// The room of a key of the program's.
    pub(crate) fn key(&self, room: stateroom_room) -> Result<RoomKey, Failure> {
        if room == STATEROOM_NO_ROOM {
            return Err(Failure::UnknownRoom);
        }
        self.keys().to_host(room).ok_or(Failure::OtherHost)
    }

    fn poll(&mut self, now: u64, fuel: u64, deadline: u64) -> Result<u64, Failure> {
        if deadline != STATEROOM_NEVER && !self.can_measure {
            return Err(Failure::Unsupported(
                "a deadline without the callback `clock`",
            ));
        }
        self.host.clock().start(now);
        let budget = Budget::fuel(fuel).and_until(Instant::from_nanos(deadline));
        let poll_at = self.host.poll(budget);
        // A closed room takes time, too: for its memory, and for the callback.
        for _ in 0..=fuel / CLOSED_ROOM_COST {
            let Some(room) = self.host.poll_closed() else {
                return Ok(nanos(poll_at));
            };
            self.host.transport_mut().closed(&room);
            if deadline < STATEROOM_NEVER && self.host.clock().now().as_nanos() >= deadline {
                break;
            }
        }
        match self.host.has_closed() {
            true => Ok(now),
            false => Ok(nanos(poll_at)),
        }
    }
}

/// Fuel that the time is worth which a closed room takes.
const CLOSED_ROOM_COST: u64 = 4096;

fn nanos(time: Option<Instant>) -> u64 {
    time.map_or(STATEROOM_NEVER, Instant::as_nanos)
}

/// A number for each host of the process, so that a key of one is not taken for another's.
/// Nothing else depends on it. After a million hosts they begin anew.
fn next_keys() -> Keys {
    static HOSTS: AtomicU32 = AtomicU32::new(0);
    let host = 1 + HOSTS.fetch_add(1, Ordering::Relaxed) % Keys::MAX_HOSTS;
    Keys { host }
}

impl HandleType for SharedHost {
    type Opaque = stateroom_host;
    const KIND: u32 = u32::from_be_bytes(*b"host");
}

impl Default for stateroom_host_options {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            user: null_mut(),
            send: None,
            connected: None,
            disconnected: None,
            closed: None,
            log: None,
            take_cost: None,
            clock: None,
            unix_time_at_zero: 0,
            seed: 0,
            fault_policy: stateroom_fault_policy::default(),
            max_rooms: 0,
            max_log_level: 0,
        }
    }
}

// SAFETY: it begins with its size, and consists of integers, pointers and optional pointers to
// functions, for which the header says what they must be.
unsafe impl Versioned for stateroom_host_options {}
