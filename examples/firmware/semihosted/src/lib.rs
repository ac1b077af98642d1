//! Semihosting, for programs that run under a debugger or in QEMU: output, exit status, panic
//! messages.
#![no_std]

use core::{fmt, panic::PanicInfo};
use semihosting::{print, println, process};

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
