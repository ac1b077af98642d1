//! The end of a panic without `std`: a function of the program's.

use crate::ffi::write_with_nul;
use core::{ffi::c_char, mem::MaybeUninit, panic::PanicInfo};

unsafe extern "C" {
    /// See the header.
    fn stateroom_panic(message: *const c_char, length: usize);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut message = [const { MaybeUninit::uninit() }; 256];
    let capacity = message.len() - 1;
    let length = write_with_nul(&mut message, info).min(capacity);
    // SAFETY: the program defines the function, which reads the message, and must not return.
    unsafe { stateroom_panic(message.as_ptr().cast(), length) };
    loop {
        core::hint::spin_loop();
    }
}

/// What tables for unwinding refer to. There are some even where panics abort, since a callback must
/// not unwind into this library; without `std` nobody reads them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
