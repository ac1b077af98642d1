//! Semihosting, for programs that run under a debugger or in QEMU: output, exit status, files,
//! panic messages.
#![no_std]

extern crate alloc;

use alloc::{ffi::CString, vec::Vec};
use core::{fmt, panic::PanicInfo};
use semihosting::{
    fs::{self, File},
    io::Read,
    print, println, process,
};

/// The debugger's terminal.
pub struct Terminal;

impl fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print!("{text}");
        Ok(())
    }
}

/// Exits; QEMU's exit status is 0 or 1.
pub fn exit(result: fmt::Result) -> ! {
    process::exit(i32::from(result.is_err()))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(2)
}

/// The contents of a file in the folder that the debugger or QEMU works in; none if there is none.
pub fn read_file(name: &str) -> Option<Vec<u8>> {
    let mut file = File::open(CString::new(name).ok()?).ok()?;
    let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).ok()?;
    bytes.resize(length, 0);
    let mut read = 0;
    while read < length {
        match file.read(&mut bytes[read..]) {
            Ok(more) if more > 0 => read += more,
            _ => return None,
        }
    }
    Some(bytes)
}

/// Writes a file in that folder.
pub fn write_file(name: &str, bytes: &[u8]) -> fmt::Result {
    let name = CString::new(name).map_err(|_| fmt::Error)?;
    fs::write(name, bytes).map_err(|_| fmt::Error)
}
