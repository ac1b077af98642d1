//! Echo, for the smallest machines: no SDK, no standard library, no heap.
//!
//! | from a client | reply | to |
//! |---|---|---|
//! | a text, also an empty one | the same text | the sender |
//! | a binary message, also an empty one | the same bytes | the sender |
//!
//! A message may have up to 1024 bytes. For a longer one `jam_malloc` returns null, and the host
//! does not deliver it.
//!
//! This is also the whole ABI 0.2 in one file, without a macro.

#![no_std]

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

// The host's functions. `client` is the recipient: 0 is everybody, n is client n, and -n is
// everybody except client n.
#[link(wasm_import_module = "env")]
extern "C" {
    fn send_message(client: i32, ptr: *const u8, len: u32);
    fn send_binary(client: i32, ptr: *const u8, len: u32);
}

// The host reads these two before anything else. An exported static is a wasm global that holds
// the address of the value.
#[no_mangle]
pub static JAMSOCKET_API_VERSION: i32 = 1;
#[no_mangle]
pub static JAMSOCKET_API_PROTOCOL: i32 = 0;

const ARENA_BYTES: usize = 1024;

/// Where the host puts the bytes of a message before it calls us.
#[repr(align(8))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: a module without threads does not share the arena. The host writes to it
// between two calls only, and no Rust reference to its bytes is ever made.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));

/// Allocated bytes of the arena. They are released together, when the last block has been freed: a
/// host never holds more than a few, and never for long.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Allocated blocks.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

#[no_mangle]
extern "C" fn jam_malloc(size: u32) -> *mut u8 {
    let used = USED.load(Relaxed);
    let size = size as usize;
    if size == 0 || size > ARENA_BYTES - used {
        return null_mut();
    }
    // The next block begins at a multiple of eight, as a C programmer would expect of a malloc.
    USED.store((used + size).next_multiple_of(8).min(ARENA_BYTES), Relaxed);
    BLOCKS.store(BLOCKS.load(Relaxed) + 1, Relaxed);
    ARENA.0.get().cast::<u8>().wrapping_add(used)
}

#[no_mangle]
extern "C" fn jam_free(ptr: *mut u8, _size: u32) {
    if ptr.is_null() {
        return;
    }
    let blocks = BLOCKS.load(Relaxed).saturating_sub(1);
    BLOCKS.store(blocks, Relaxed);
    if blocks == 0 {
        USED.store(0, Relaxed);
    }
}

/// Says that the host may keep the block of a message for the next one, which saves it two calls:
/// nobody else uses a block until it is freed. It is never called.
#[no_mangle]
extern "C" fn stateroom_keep_payload_buffer() {}

/// Called once, with the room's id as UTF-8.
#[no_mangle]
extern "C" fn initialize(_room_ptr: *const u8, _room_len: u32) {}

#[no_mangle]
extern "C" fn connect(_client: i32) {}

#[no_mangle]
extern "C" fn disconnect(_client: i32) {}

#[no_mangle]
extern "C" fn timer() {}

#[no_mangle]
extern "C" fn message(client: i32, ptr: *const u8, len: u32) {
    // SAFETY: the host copies the bytes before it returns, and checks that they lie in our memory.
    unsafe { send_message(client, ptr, len) }
}

#[no_mangle]
extern "C" fn binary(client: i32, ptr: *const u8, len: u32) {
    // SAFETY: as in `message`.
    unsafe { send_binary(client, ptr, len) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
