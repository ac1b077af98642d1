//! For programs that run under a debugger or in QEMU: what they print, how they end, and what a
//! panic says, by semihosting.
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

/// Ends the program; QEMU ends with 0 or 1.
pub fn exit(result: fmt::Result) -> ! {
    process::exit(i32::from(result.is_err()))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    process::exit(2)
}
