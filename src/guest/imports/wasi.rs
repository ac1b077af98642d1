//! WASI preview 1 for rooms: printing, clocks, random numbers and exit. There are no files, no
//! arguments and no environment.
//!
//! Pointers outside of the memory return `EFAULT`, as they do in the JIT host.

use super::{
    super::host_state::HostState,
    context::{CALL, charge, fault, memory},
};
use crate::{
    abi::{Signature, WASI},
    error::FaultCause,
};
use wasmi::{Caller, Error, Linker, Val, errors::LinkerError};

/// Defines one function of WASI by its name.
pub(super) fn define(
    linker: &mut Linker<HostState>,
    name: &str,
    signature: &Signature,
) -> Result<(), LinkerError> {
    match name {
        "args_sizes_get" | "environ_sizes_get" => linker.func_wrap(WASI, name, sizes_get),
        "args_get" | "environ_get" => linker.func_wrap(WASI, name, |_: u32, _: u32| SUCCESS),
        "clock_res_get" => linker.func_wrap(WASI, name, clock_res_get),
        "clock_time_get" => linker.func_wrap(WASI, name, clock_time_get),
        "fd_close" => linker.func_wrap(WASI, name, |fd: u32| if fd < 3 { SUCCESS } else { EBADF }),
        "fd_fdstat_get" => linker.func_wrap(WASI, name, fd_fdstat_get),
        "fd_seek" => linker.func_wrap(
            WASI,
            name,
            |fd: u32, _: i64, _: u32, _: u32| {
                if fd < 3 { ESPIPE } else { EBADF }
            },
        ),
        "fd_write" => linker.func_wrap(WASI, name, fd_write),
        "proc_exit" => linker.func_wrap(WASI, name, |code: i32| -> Result<(), Error> {
            Err(fault(FaultCause::Exit { code }))
        }),
        "random_get" => linker.func_wrap(WASI, name, random_get),
        "sched_yield" => linker.func_wrap(WASI, name, || SUCCESS),
        _ => define_unsupported(linker, name, signature),
    }?;
    Ok(())
}

type Errno = u32;
const SUCCESS: Errno = 0;
const EBADF: Errno = 8;
const EFAULT: Errno = 21;
const EINVAL: Errno = 28;
const ENOSYS: Errno = 52;
const ESPIPE: Errno = 70;

/// Functions on files return `EBADF`, all others `ENOSYS`.
fn define_unsupported<'a>(
    linker: &'a mut Linker<HostState>,
    name: &str,
    signature: &Signature,
) -> Result<&'a mut Linker<HostState>, LinkerError> {
    let on_files = ["fd_", "path_", "sock_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let errno = if on_files { EBADF } else { ENOSYS };
    let function = move |_: Caller<'_, HostState>, _: &[Val], results: &mut [Val]| {
        results[0] = Val::I32(errno.cast_signed());
        Ok(())
    };
    linker.func_new(
        WASI,
        name,
        crate::guest::engine::func_type(signature),
        function,
    )
}

/// The number of arguments or variables, and their total length.
fn sizes_get(mut caller: Caller<'_, HostState>, count: u32, bytes: u32) -> Errno {
    let (memory, _) = memory(&mut caller);
    errno(write(memory, count, &[0; 4]).and_then(|()| write(memory, bytes, &[0; 4])))
}

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

fn clock_res_get(mut caller: Caller<'_, HostState>, clock: u32, resolution: u32) -> Errno {
    let (memory, _) = memory(&mut caller);
    match clock {
        REALTIME | MONOTONIC => errno(write(memory, resolution, &1_u64.to_le_bytes())),
        _ => EINVAL,
    }
}

/// The time of the running event; it does not advance while the guest runs.
fn clock_time_get(
    mut caller: Caller<'_, HostState>,
    clock: u32,
    _precision: u64,
    time: u32,
) -> Errno {
    let (memory, state) = memory(&mut caller);
    let nanos = match clock {
        REALTIME => state.clock.realtime(),
        MONOTONIC => state.clock.monotonic(),
        _ => return EINVAL,
    };
    errno(write(memory, time, &nanos.to_le_bytes()))
}

/// The standard streams are character devices; two of them are writable.
fn fd_fdstat_get(mut caller: Caller<'_, HostState>, fd: u32, stat: u32) -> Errno {
    const CHARACTER_DEVICE: u8 = 2;
    const RIGHT_TO_WRITE: u8 = 1 << 6;
    if fd > 2 {
        return EBADF;
    }
    let mut bytes = [0; 24];
    bytes[0] = CHARACTER_DEVICE;
    bytes[8] = if fd == 0 { 0 } else { RIGHT_TO_WRITE };
    let (memory, _) = memory(&mut caller);
    errno(write(memory, stat, &bytes))
}

/// POSIX's `IOV_MAX`.
const MAX_BUFFERS: u32 = 1024;
/// The most that one call writes; the caller repeats it for the rest.
const MAX_BYTES_PER_CALL: u32 = 64 << 10;

fn fd_write(
    mut caller: Caller<'_, HostState>,
    fd: u32,
    buffers: u32,
    count: u32,
    written: u32,
) -> Errno {
    if !(1..=2).contains(&fd) {
        return EBADF;
    }
    if count > MAX_BUFFERS {
        return EINVAL;
    }
    let (memory, state) = memory(&mut caller);
    // It may end a line that began on the other stream.
    let mut fuel = CALL + LOG_LINE;
    let total = print(memory, state, fd, buffers, count, &mut fuel);
    let result = errno(total.and_then(|total| write(memory, written, &total.to_le_bytes())));
    charge(&mut caller, fuel);
    result
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

/// Random bytes, derived from the seed. More than 64 KiB are refused, to bound one call.
fn random_get(mut caller: Caller<'_, HostState>, ptr: u32, len: u32) -> Errno {
    if len > MAX_BYTES_PER_CALL {
        return EINVAL;
    }
    charge(&mut caller, CALL + u64::from(len));
    let (memory, state) = memory(&mut caller);
    let Some(bytes) = memory
        .get_mut(ptr as usize..)
        .and_then(|rest| rest.get_mut(..len as usize))
    else {
        return EFAULT;
    };
    state.random.fill(bytes);
    SUCCESS
}

fn write(memory: &mut [u8], ptr: u32, bytes: &[u8]) -> Option<()> {
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
