//! What a room for a microcontroller needs: the ABI 0.2 around a trait, one fixed buffer for
//! messages, and a text of fixed capacity. No heap: all the memory of a room is its statics and its
//! stack, so that the linker knows how much that is.

#![no_std]

mod text;

pub use text::Text;

/// Maximum length of a message to a room, in bytes. The host does not deliver longer ones, for
/// which `jam_malloc` returns null.
pub const MESSAGE_BYTES: usize = 512;

/// A room. Events without a method of its own are ignored.
pub trait Room {
    /// The initial state. A constant, so that it is part of the module's data.
    const NEW: Self;

    fn connect(&mut self, client: i32) {
        let _ = client;
    }

    fn disconnect(&mut self, client: i32) {
        let _ = client;
    }

    fn text(&mut self, client: i32, text: &str) {
        let _ = (client, text);
    }

    fn binary(&mut self, client: i32, bytes: &[u8]) {
        let _ = (client, bytes);
    }

    fn timer(&mut self) {}
}

/// As a recipient: everybody. Client n is `n`, and everybody but client n is `-n`.
pub const EVERYBODY: i32 = 0;

/// Sends a text.
pub fn send_text(to: i32, text: &str) {
    // SAFETY: the host copies the bytes before it returns.
    unsafe { env::send_message(to, text.as_ptr(), text.len() as u32) }
}

/// Sends bytes.
pub fn send_bytes(to: i32, bytes: &[u8]) {
    // SAFETY: as above.
    unsafe { env::send_binary(to, bytes.as_ptr(), bytes.len() as u32) }
}

/// Requests one call of [`Room::timer`] after this many milliseconds; zero cancels it.
pub fn set_timer(milliseconds: u32) {
    // SAFETY: no memory is involved.
    unsafe { env::set_timer(milliseconds) }
}

/// The functions of the host.
pub mod env {
    #[link(wasm_import_module = "env")]
    extern "C" {
        pub fn send_message(to: i32, ptr: *const u8, len: u32);
        pub fn send_binary(to: i32, ptr: *const u8, len: u32);
        pub fn set_timer(milliseconds: u32);
    }
}

/// Makes a module of a type that is a [`Room`].
#[macro_export]
macro_rules! room {
    ($room:ty) => {
        use core::cell::UnsafeCell;

        struct Shared<T>(UnsafeCell<T>);

        // SAFETY: a module without threads does not share it.
        unsafe impl<T> Sync for Shared<T> {}

        static ROOM: Shared<$room> = Shared(UnsafeCell::new(<$room as $crate::Room>::NEW));
        static MESSAGE: Shared<[u8; $crate::MESSAGE_BYTES]> =
            Shared(UnsafeCell::new([0; $crate::MESSAGE_BYTES]));

        fn the_room() -> &'static mut $room {
            // SAFETY: the host never calls a room that is in the middle of a call, and each call
            // asks for the room once.
            unsafe { &mut *ROOM.0.get() }
        }

        // The host reads these two before anything else. An exported static is a wasm global that
        // holds the address of the value.
        #[no_mangle]
        pub static JAMSOCKET_API_VERSION: i32 = 1;
        #[no_mangle]
        pub static JAMSOCKET_API_PROTOCOL: i32 = 0;

        /// Where the host puts the bytes of a message: always the same place, since it is done
        /// with one message before it has another.
        #[no_mangle]
        extern "C" fn jam_malloc(size: u32) -> *mut u8 {
            match size as usize {
                0 => core::ptr::null_mut(),
                size if size > $crate::MESSAGE_BYTES => core::ptr::null_mut(),
                _ => MESSAGE.0.get().cast(),
            }
        }

        #[no_mangle]
        extern "C" fn jam_free(_ptr: *mut u8, _size: u32) {}

        /// Says that the host may keep this place between messages, without asking for it each
        /// time. It is never called.
        #[no_mangle]
        extern "C" fn stateroom_keep_payload_buffer() {}

        #[no_mangle]
        extern "C" fn initialize(_room_ptr: *const u8, _room_len: u32) {}

        #[no_mangle]
        extern "C" fn connect(client: i32) {
            $crate::Room::connect(the_room(), client)
        }

        #[no_mangle]
        extern "C" fn disconnect(client: i32) {
            $crate::Room::disconnect(the_room(), client)
        }

        #[no_mangle]
        extern "C" fn timer() {
            $crate::Room::timer(the_room())
        }

        #[no_mangle]
        extern "C" fn message(client: i32, ptr: *const u8, len: u32) {
            // SAFETY: the host wrote a text of this length there, and has checked that it is one.
            let text = unsafe { core::str::from_utf8_unchecked(bytes(ptr, len)) };
            $crate::Room::text(the_room(), client, text)
        }

        #[no_mangle]
        extern "C" fn binary(client: i32, ptr: *const u8, len: u32) {
            // SAFETY: the host wrote this many bytes there.
            $crate::Room::binary(the_room(), client, unsafe { bytes(ptr, len) })
        }

        /// An empty message may come with any pointer.
        unsafe fn bytes(ptr: *const u8, len: u32) -> &'static [u8] {
            match len {
                0 => &[],
                // SAFETY: the caller's.
                _ => unsafe { core::slice::from_raw_parts(ptr, len as usize) },
            }
        }

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            core::arch::wasm32::unreachable()
        }
    };
}
