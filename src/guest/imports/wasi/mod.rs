//! WASI for rooms: printing, clocks, random numbers, sleep and exit. There are no files, no arguments
//! and no environment.
//!
//! Pointers outside of the memory return `EFAULT`.

mod clock;
mod poll;
mod rng;

use self::{clock::GuestClock, poll::poll_oneoff, rng::Random};
use super::context::{CALL, charge, fault, memory, spend};
#[cfg(feature = "snapshot")]
use crate::guest::checkpoint::WasiPosition;
use crate::{
    abi::wasi::{ClockId, WasiVersion},
    error::FaultCause,
    guest::host_state::HostState,
    time::Instant,
};
use core::time::Duration;
use wasmi::{Caller, Error, Func, FuncType, Store, Val};

/// The host's state of a guest that only these functions act on.
pub(in crate::guest) struct WasiState {
    clock: GuestClock,
    /// The guest's only source of randomness.
    random: Random,
}

impl WasiState {
    pub(in crate::guest) const fn new(seed: u64, unix_time_at_zero: Duration) -> Self {
        Self {
            clock: GuestClock::new(unix_time_at_zero),
            random: Random::new(seed),
        }
    }

    pub(in crate::guest) fn begin_event(&mut self, now: Instant) {
        self.clock.begin_event(now);
    }

    /// How far its clock and its random numbers have come.
    #[cfg(feature = "snapshot")]
    pub(in crate::guest) fn position(&self, _now: Instant) -> WasiPosition {
        WasiPosition {
            clock: self.clock.now(),
            random_words: self.random.words_taken(),
        }
    }

    /// Makes the clock and the random numbers go on from a position.
    #[cfg(feature = "snapshot")]
    pub(in crate::guest) fn restore(&mut self, seed: u64, position: WasiPosition) {
        self.clock.set(position.clock);
        self.random = Random::at(seed, position.random_words);
    }
}

/// The function of WASI with this name, of the type that the ABI check has accepted.
pub(super) fn function(
    store: &mut Store<HostState>,
    version: WasiVersion,
    name: &str,
    ty: &FuncType,
) -> Func {
    match name {
        "args_sizes_get" | "environ_sizes_get" => Func::wrap(store, sizes_get),
        "args_get" | "environ_get" => Func::wrap(store, get_none),
        "clock_res_get" => Func::wrap(store, clock_res_get),
        "clock_time_get" => Func::wrap(store, clock_time_get),
        "fd_fdstat_get" => Func::wrap(store, fd_fdstat_get),
        "fd_filestat_get" => Func::wrap(
            store,
            move |caller: Caller<'_, HostState>, fd: u32, stat: u32| {
                fd_filestat_get(caller, version, fd, stat)
            },
        ),
        "fd_read" => Func::wrap(store, fd_read),
        "fd_write" => Func::wrap(store, fd_write),
        "poll_oneoff" => Func::wrap(
            store,
            move |caller: Caller<'_, HostState>,
                  subscriptions: u32,
                  events: u32,
                  count: u32,
                  written: u32| {
                poll_oneoff(caller, version, subscriptions, events, count, written)
            },
        ),
        "proc_exit" => Func::wrap(store, proc_exit),
        "proc_raise" => Func::wrap(store, proc_raise),
        "random_get" => Func::wrap(store, random_get),
        "sched_yield" => Func::wrap(store, sched_yield),
        _ => without_effect(store, name, ty),
    }
}

pub(super) type Errno = u32;
pub(super) const SUCCESS: Errno = 0;
pub(super) const EBADF: Errno = 8;
pub(super) const EFAULT: Errno = 21;
pub(super) const EINVAL: Errno = 28;
const ENOTSUP: Errno = 58;
const ESPIPE: Errno = 70;

/// What a function without an effect returns for standard input, and for the other two streams. For
/// all other file descriptors, which do not exist, it returns `EBADF`.
fn stream_errnos(function: &str) -> (Errno, Errno) {
    match function {
        // The streams stay open.
        "fd_close" | "fd_datasync" | "fd_sync" => (SUCCESS, SUCCESS),
        // They never block, and all that is written is appended.
        "fd_fdstat_set_flags" | "fd_fdstat_set_rights" => (SUCCESS, SUCCESS),
        "fd_seek" | "fd_tell" => (ESPIPE, ESPIPE),
        "fd_pread" => (ESPIPE, EBADF),
        "fd_pwrite" => (EBADF, ESPIPE),
        "fd_allocate" | "fd_renumber" => (ENOTSUP, ENOTSUP),
        // Functions on regular files, directories and sockets.
        _ => (EBADF, EBADF),
    }
}

/// A function that only returns an error number, which depends on its first parameter, a file
/// descriptor.
fn without_effect(store: &mut Store<HostState>, name: &str, ty: &FuncType) -> Func {
    let (input, output) = stream_errnos(name);
    let function = move |mut caller: Caller<'_, HostState>, params: &[Val], results: &mut [Val]| {
        charge(&mut caller, CALL);
        let errno = match params {
            [Val::I32(0), ..] => input,
            [Val::I32(1 | 2), ..] => output,
            _ => EBADF,
        };
        results[0] = Val::I32(errno.cast_signed());
        Ok(())
    };
    Func::new(store, ty.clone(), function)
}

/// The number of arguments or variables, and their total length.
fn sizes_get(mut caller: Caller<'_, HostState>, count: u32, bytes: u32) -> Errno {
    charge(&mut caller, CALL);
    let (memory, _) = memory(&mut caller);
    errno(write(memory, count, &[0; 4]).and_then(|()| write(memory, bytes, &[0; 4])))
}

/// No arguments or variables.
fn get_none(mut caller: Caller<'_, HostState>, _: u32, _: u32) -> Errno {
    charge(&mut caller, CALL);
    SUCCESS
}

fn clock_res_get(mut caller: Caller<'_, HostState>, clock: u32, resolution: u32) -> Errno {
    charge(&mut caller, CALL);
    let (memory, _) = memory(&mut caller);
    match ClockId::decode(clock) {
        Some(_) => errno(write(memory, resolution, &1_u64.to_le_bytes())),
        None => EINVAL,
    }
}

/// The time does not advance while the guest runs, except by what it sleeps.
fn clock_time_get(
    mut caller: Caller<'_, HostState>,
    clock: u32,
    _precision: u64,
    time: u32,
) -> Errno {
    charge(&mut caller, CALL);
    let (memory, state) = memory(&mut caller);
    match ClockId::decode(clock) {
        Some(clock) => errno(write(
            memory,
            time,
            &state.wasi.clock.show(clock).to_le_bytes(),
        )),
        None => EINVAL,
    }
}

/// The file type of the streams. A C library writes line by line to such a device.
const CHARACTER_DEVICE: u8 = 2;

/// What the streams are, and which functions they have.
fn fd_fdstat_get(mut caller: Caller<'_, HostState>, fd: u32, stat: u32) -> Errno {
    const APPEND: u8 = 1 << 0;
    const SYNC: u64 = 1 << 0 | 1 << 4;
    const READ: u64 = 1 << 1;
    const SET_FLAGS: u64 = 1 << 3;
    const WRITE: u64 = 1 << 6;
    const FILESTAT_GET: u64 = 1 << 21;
    const POLL: u64 = 1 << 27;
    charge(&mut caller, CALL);
    let (flags, rights) = match fd {
        0 => (0, READ),
        1 | 2 => (APPEND, WRITE),
        _ => return EBADF,
    };
    let rights = rights | SYNC | SET_FLAGS | FILESTAT_GET | POLL;
    let mut bytes = [0; 24];
    bytes[0] = CHARACTER_DEVICE;
    bytes[2] = flags;
    bytes[8..16].copy_from_slice(&rights.to_le_bytes());
    let (memory, _) = memory(&mut caller);
    errno(write(memory, stat, &bytes))
}

/// All that is known of a stream is its type.
fn fd_filestat_get(
    mut caller: Caller<'_, HostState>,
    version: WasiVersion,
    fd: u32,
    stat: u32,
) -> Errno {
    charge(&mut caller, CALL);
    if fd > 2 {
        return EBADF;
    }
    let mut bytes = [0; 64];
    bytes[16] = CHARACTER_DEVICE;
    let (memory, _) = memory(&mut caller);
    errno(write(memory, stat, &bytes[..version.filestat_len()]))
}

/// Standard input is at its end.
fn fd_read(
    mut caller: Caller<'_, HostState>,
    fd: u32,
    _buffers: u32,
    _count: u32,
    bytes_read: u32,
) -> Errno {
    charge(&mut caller, CALL);
    if fd != 0 {
        return EBADF;
    }
    let (memory, _) = memory(&mut caller);
    errno(write(memory, bytes_read, &[0; 4]))
}

/// POSIX's `IOV_MAX`.
const MAX_BUFFERS: u32 = 1024;
/// The most that one call writes; the caller repeats it for the rest.
pub(super) const MAX_BYTES_PER_CALL: u32 = 64 << 10;

fn fd_write(
    mut caller: Caller<'_, HostState>,
    fd: u32,
    buffers: u32,
    count: u32,
    written: u32,
) -> Result<Errno, Error> {
    let is_output = (1..=2).contains(&fd);
    if !is_output || count > MAX_BUFFERS {
        charge(&mut caller, CALL);
        return Ok(if is_output { EINVAL } else { EBADF });
    }
    let (memory, state) = memory(&mut caller);
    // It may end a line that began on the other stream.
    let mut fuel = CALL + LOG_LINE;
    let total = print(memory, state, fd, buffers, count, &mut fuel);
    let result = errno(total.and_then(|total| write(memory, written, &total.to_le_bytes())));
    spend(&mut caller, fuel)?;
    Ok(result)
}

/// Prints buffers and adds what that costs; returns the number of bytes, and `None` if a buffer was
/// not within the memory.
fn print(
    memory: &[u8],
    state: &mut HostState,
    fd: u32,
    buffers: u32,
    count: u32,
    fuel: &mut u64,
) -> Option<u32> {
    let mut total = 0;
    for i in 0..count {
        let buffer = buffer_at(memory, buffers, i)?;
        let len = buffer.len().min((MAX_BYTES_PER_CALL - total) as usize);
        let printed = &buffer[..len];
        state.print(fd, printed);
        *fuel += CALL + printing(printed);
        // At most the difference above.
        total += len as u32;
    }
    Some(total)
}

/// Fuel for a line of the log, with what stands before its text and what writing it costs.
const LOG_LINE: u64 = 4096;
/// Fuel for each byte of a line's text; 256 of them at most are one line.
const LOG_BYTE: u64 = 16;

/// Fuel for printing, by what becomes of the bytes in the log at most. It is the same whether they
/// are logged, dropped or replayed, so that an event uses the same fuel in every host.
fn printing(bytes: &[u8]) -> u64 {
    /// The length of `\x1b`; no other escape is longer for each of its bytes.
    const MAX_ESCAPE: u64 = 4;
    let count = |is: fn(&u8) -> bool| bytes.iter().filter(|byte| is(byte)).count() as u64;
    let lines = count(|byte| *byte == b'\n');
    let readable = count(|byte| matches!(byte, b' '..=b'~'));
    let others = bytes.len() as u64 - readable - lines;
    lines * LOG_LINE + (readable + others * MAX_ESCAPE) * LOG_BYTE
}

/// The `i`th buffer of an array of pointers and lengths.
fn buffer_at(memory: &[u8], buffers: u32, i: u32) -> Option<&[u8]> {
    let at = (buffers as usize).checked_add(i as usize * 8)?;
    let entry: &[u8; 8] = memory.get(at..)?.first_chunk()?;
    let word =
        |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    memory.get(word(0) as usize..)?.get(..word(4) as usize)
}

fn proc_exit(code: i32) -> Result<(), Error> {
    Err(fault(FaultCause::Exit { code }))
}

/// Raising a signal ends the guest, as it ends a process that does not handle it, with the exit code
/// that a shell would show.
fn proc_raise(mut caller: Caller<'_, HostState>, signal: u32) -> Result<Errno, Error> {
    charge(&mut caller, CALL);
    match signal {
        0 => Ok(SUCCESS),
        1..=30 => Err(fault(FaultCause::Exit {
            code: 128 + signal.cast_signed(),
        })),
        _ => Ok(EINVAL),
    }
}

/// Random bytes, derived from the seed.
fn random_get(mut caller: Caller<'_, HostState>, ptr: u32, len: u32) -> Result<Errno, Error> {
    charge(&mut caller, CALL);
    if slice(memory(&mut caller).0, ptr, len as usize).is_none() {
        return Ok(EFAULT);
    }
    spend(&mut caller, u64::from(len))?;
    let (memory, state) = memory(&mut caller);
    state
        .wasi
        .random
        .fill(&mut memory[ptr as usize..][..len as usize]);
    Ok(SUCCESS)
}

fn sched_yield(mut caller: Caller<'_, HostState>) -> Errno {
    charge(&mut caller, CALL);
    SUCCESS
}

pub(super) fn slice(memory: &[u8], ptr: u32, len: usize) -> Option<&[u8]> {
    memory.get(ptr as usize..)?.get(..len)
}

pub(super) fn write(memory: &mut [u8], ptr: u32, bytes: &[u8]) -> Option<()> {
    memory
        .get_mut(ptr as usize..)?
        .get_mut(..bytes.len())?
        .copy_from_slice(bytes);
    Some(())
}

fn errno(result: Option<()>) -> Errno {
    match result {
        Some(()) => SUCCESS,
        None => EFAULT,
    }
}
