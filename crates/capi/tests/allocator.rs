//! An allocator of the program's. It has a program of its own, without a standard library that
//! allocates before `main`.

#![no_main]

use stateroom_wasmi::*;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    ffi::{c_char, c_int, c_void},
    ptr::{null, null_mut},
    sync::atomic::{AtomicIsize, Ordering},
};

/// What was allocated and not freed: in bytes, and in number; and how often the allocator was called.
#[derive(Default)]
struct Live {
    bytes: AtomicIsize,
    count: AtomicIsize,
    calls: AtomicIsize,
}

impl Live {
    fn add(&self, bytes: usize, sign: isize) {
        let bytes = isize::try_from(bytes).unwrap();
        self.bytes.fetch_add(sign * bytes, Ordering::Relaxed);
        self.count.fetch_add(sign, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> (isize, isize) {
        let get = |figure: &AtomicIsize| figure.load(Ordering::Relaxed);
        (get(&self.bytes), get(&self.count))
    }
}

unsafe extern "C" fn allocate(live: *mut c_void, size: usize, align: usize) -> *mut c_void {
    unsafe { &*live.cast::<Live>() }.add(size, 1);
    unsafe { System.alloc(Layout::from_size_align(size, align).unwrap()) }.cast()
}

unsafe extern "C" fn deallocate(live: *mut c_void, memory: *mut c_void, size: usize, align: usize) {
    unsafe { &*live.cast::<Live>() }.add(size, -1);
    unsafe { System.dealloc(memory.cast(), Layout::from_size_align(size, align).unwrap()) }
}

unsafe extern "C-unwind" fn send(_: *mut c_void, _: *const stateroom_message) -> i32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    let live = Live::default();
    let mut allocator = stateroom_allocator {
        user: (&raw const live).cast_mut().cast(),
        allocate: Some(allocate),
        ..Default::default()
    };
    let set =
        |allocator: &stateroom_allocator| unsafe { stateroom_allocator_set(allocator, null_mut()) };
    assert_eq!(set(&allocator), stateroom_status::InvalidArgument);
    allocator.deallocate = Some(deallocate);
    assert_eq!(set(&allocator), stateroom_status::Ok);
    assert_eq!(set(&allocator), stateroom_status::TooLate);
    assert_eq!(live.get(), (0, 0));

    // What the standard library allocates is also counted, and stays the same.
    let wasm = include_bytes!("../../../examples/rooms/wasm/echo-rust-0.4.wasm");
    run(wasm);
    let before = live.get();
    run(wasm);
    assert_eq!(live.get(), before, "everything is freed");
    assert!(live.calls.load(Ordering::Relaxed) > 100);
    println!("the allocator is used for everything");
    0
}

/// Runs a room.
fn run(wasm: &[u8]) {
    let options = stateroom_host_options {
        send: Some(send),
        ..Default::default()
    };
    let (mut host, mut module, mut room) = (null_mut(), null_mut(), 0);
    let error = null_mut();
    unsafe {
        let (data, len) = (wasm.as_ptr().cast(), wasm.len());
        assert_eq!(
            stateroom_module_load(data, len, null(), &raw mut module, error),
            OK
        );
        assert_eq!(
            stateroom_host_new(&raw const options, &raw mut host, error),
            OK
        );
        let id = c"room".as_ptr();
        assert_eq!(
            stateroom_room_open(host, 0, id, 4, module, null(), &raw mut room, error),
            OK
        );
        assert_eq!(stateroom_room_connect(host, room, 1, error), OK);
        for _ in 0..100 {
            assert_eq!(stateroom_room_text(host, room, 1, id, 4, error), OK);
        }
        let mut poll_at = 0;
        let no_limit = STATEROOM_UNLIMITED;
        assert_eq!(
            stateroom_host_poll(host, 0, no_limit, STATEROOM_NEVER, &raw mut poll_at, error),
            OK
        );
        assert_eq!(stateroom_host_free(&raw mut host, error), OK);
        assert_eq!(stateroom_module_free(&raw mut module, error), OK);
    }
}

const OK: stateroom_status = stateroom_status::Ok;
