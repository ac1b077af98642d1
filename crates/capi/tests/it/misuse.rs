//! Mistakes of programs: each is a status with a message, and changes nothing.

use crate::support::{Host, Module, ROOM, Status, buffer, call, zeroed_with_size};
use stateroom_wasmi::*;
use std::ptr::{null, null_mut};

/// A function that is called as it should be, but for one argument.
type Mistake<'a> = (
    &'a str,
    Box<dyn FnOnce(*mut stateroom_buffer) -> Status + 'a>,
);

/// Each mistake has this status, and its message contains this text.
#[track_caller]
fn all_are(expected: Status, text: &str, mistakes: Vec<Mistake<'_>>) {
    for (what, mistake) in mistakes {
        let error = call(mistake).expect_err(what);
        assert_eq!(error.status, expected, "{what}: {}", error.message);
        assert!(error.message.contains(text), "{what}: {}", error.message);
    }
}

macro_rules! mistakes {
    ($($name:ident($($argument:expr),* $(,)?)),* $(,)?) => {
        vec![$((
            stringify!($name($($argument),*)),
            Box::new(|error| unsafe { $name($($argument,)* error) }),
        )),*]
    };
}

#[test]
fn null_pointers() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let (h, m, id) = (host.handle, module.0, c"id".as_ptr());
    let wasm = b"\0asm".as_ptr().cast();
    let (no_host, no_module) = (null_mut(), null_mut());
    let (mut count, mut key, mut at) = (0, 0, 0);
    let (count, key, at) = (&raw mut count, &raw mut key, &raw mut at);
    let (mut new_host, mut new_module) = (null_mut(), null_mut());
    let (new_host, new_module) = (&raw mut new_host, &raw mut new_module);
    let mut stats: stateroom_room_stats = zeroed_with_size();
    let mut host_stats: stateroom_host_stats = zeroed_with_size();
    let mut info: stateroom_module_info = zeroed_with_size();
    let mut limits: stateroom_limits = zeroed_with_size();
    let mut estimate: stateroom_heap_estimate = zeroed_with_size();
    let mut memory = [0; 8];
    let mut text = buffer(&mut memory);
    let options = stateroom_host_options::default();
    all_are(
        Status::InvalidArgument,
        "is NULL",
        mistakes![
            stateroom_allocator_set(null()),
            stateroom_limits_default(null_mut()),
            stateroom_limits_small(null_mut()),
            stateroom_module_load(null(), 4, null(), new_module),
            stateroom_module_load(wasm, 4, null(), null_mut()),
            stateroom_module_free(null_mut()),
            stateroom_module_get_info(no_module, &raw mut info),
            stateroom_module_get_info(m, null_mut()),
            stateroom_module_get_limits(no_module, &raw mut limits),
            stateroom_module_get_limits(m, null_mut()),
            stateroom_module_estimate_heap(null(), 4, null(), &raw mut estimate),
            stateroom_module_estimate_heap(wasm, 4, null(), null_mut()),
            stateroom_host_new(null(), new_host),
            stateroom_host_new(&raw const options, null_mut()),
            // Without `send`.
            stateroom_host_new(&raw const options, new_host),
            stateroom_host_free(null_mut()),
            stateroom_host_poll(no_host, 0, 0, STATEROOM_NEVER, at),
            stateroom_host_get_poll_time(no_host, at),
            stateroom_host_get_poll_time(h, null_mut()),
            stateroom_host_find_room(no_host, id, 2, key),
            stateroom_host_find_room(h, null(), 2, key),
            stateroom_host_find_room(h, id, 2, null_mut()),
            stateroom_host_get_rooms(no_host, key, 1, count),
            stateroom_host_get_rooms(h, null_mut(), 1, count),
            stateroom_host_get_rooms(h, key, 1, null_mut()),
            stateroom_host_get_stats(no_host, &raw mut host_stats),
            stateroom_host_get_stats(h, null_mut()),
            stateroom_room_open(no_host, 0, id, 2, m, null(), key),
            stateroom_room_open(h, 0, null(), 2, m, null(), key),
            stateroom_room_open(h, 0, id, 2, no_module, null(), key),
            stateroom_room_open(h, 0, id, 2, m, null(), null_mut()),
            stateroom_room_close(no_host, room),
            stateroom_room_discard(no_host, room),
            stateroom_room_connect(no_host, room, 2),
            stateroom_room_disconnect(no_host, room, 1),
            stateroom_room_text(no_host, room, 1, id, 2),
            stateroom_room_text(h, room, 1, null(), 2),
            stateroom_room_bytes(no_host, room, 1, wasm, 2),
            stateroom_room_bytes(h, room, 1, null(), 2),
            stateroom_room_get_id(no_host, room, &raw mut text),
            stateroom_room_get_id(h, room, null_mut()),
            stateroom_room_get_stats(no_host, room, &raw mut stats),
            stateroom_room_get_stats(h, room, null_mut()),
            stateroom_room_get_fault(no_host, room, null_mut(), null_mut()),
            stateroom_room_get_clients(no_host, room, null_mut(), 0, count),
            stateroom_room_get_clients(h, room, null_mut(), 1, count),
            stateroom_room_get_clients(h, room, null_mut(), 0, null_mut()),
            stateroom_room_trim(no_host, room, null_mut()),
        ],
    );
    assert_eq!(host.stats().rooms, 1, "nothing was opened or closed");
    assert_eq!(host.room_stats(room).unwrap().waiting_events, 0);
    assert_eq!(unsafe { stateroom_message_is_for(null(), 1) }, 0);
}

#[test]
fn a_text_buffer_without_memory() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let mut text = stateroom_buffer {
        data: null_mut(),
        capacity: 8,
        length: 0,
    };
    let text = &raw mut text;
    all_are(
        Status::InvalidArgument,
        "is NULL",
        mistakes![
            stateroom_room_get_id(host.handle, room, text),
            stateroom_room_get_fault(host.handle, room, null_mut(), text),
        ],
    );
}

#[test]
fn misaligned_pointers() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let (h, m) = (host.handle, module.0);
    let mut memory = [0_u64; 64];
    let even = memory.as_mut_ptr();
    let odd = even.wrapping_byte_add(1);
    let id = c"id".as_ptr();
    all_are(
        Status::InvalidArgument,
        "is not aligned",
        mistakes![
            stateroom_limits_default(odd.cast()),
            stateroom_module_load(id.cast(), 2, odd.cast(), even.cast()),
            stateroom_module_load(id.cast(), 2, null(), odd.cast()),
            stateroom_module_free(odd.cast()),
            stateroom_module_get_info(m.wrapping_byte_add(1), even.cast()),
            stateroom_host_new(odd.cast(), even.cast()),
            stateroom_host_free(odd.cast()),
            stateroom_host_poll(h, 0, 0, STATEROOM_NEVER, odd),
            stateroom_host_get_rooms(h, odd, 1, even.cast()),
            stateroom_room_open(h, 0, id, 2, m, odd.cast(), even.cast()),
            stateroom_room_close(h.wrapping_byte_add(1), room),
            stateroom_room_get_id(h, room, odd.cast()),
        ],
    );
}

#[test]
fn handles_of_another_type() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let (as_host, as_module) = (module.0.cast(), host.handle.cast());
    let (mut host_to_free, mut module_to_free) = (as_host, as_module);
    let mut key = 0;
    let mut info: stateroom_module_info = zeroed_with_size();
    all_are(
        Status::WrongHandle,
        "is a handle of another type",
        mistakes![
            stateroom_host_poll(as_host, 0, 0, STATEROOM_NEVER, null_mut()),
            stateroom_room_connect(as_host, room, 2),
            stateroom_host_free(&raw mut host_to_free),
            stateroom_module_free(&raw mut module_to_free),
            stateroom_module_get_info(as_module, &raw mut info),
            stateroom_room_open(
                host.handle,
                0,
                c"id".as_ptr(),
                2,
                as_module,
                null(),
                &raw mut key
            ),
        ],
    );
    assert_eq!(host_to_free, as_host, "it is not freed");
}

#[test]
fn keys_of_no_room() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let h = host.handle;
    all_are(
        Status::UnknownRoom,
        "there is no such room",
        mistakes![
            stateroom_room_connect(h, STATEROOM_NO_ROOM, 2),
            stateroom_room_close(h, STATEROOM_NO_ROOM),
            stateroom_room_connect(h, room + 1, 2),
            stateroom_room_text(h, room + 1, 1, c"".as_ptr(), 0),
            stateroom_room_discard(h, room + 1),
            stateroom_room_trim(h, room + 1, null_mut()),
            stateroom_room_get_fault(h, room + 1, null_mut(), null_mut()),
        ],
    );
    all_are(
        Status::WrongHandle,
        "of another host",
        mistakes![
            stateroom_room_close(h, 1),
            stateroom_room_close(h, u64::MAX)
        ],
    );
}

#[test]
fn texts_that_are_not_utf8() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let (h, m) = (host.handle, module.0);
    let mut key = 0;
    let key = &raw mut key;
    // A byte that never occurs, a character that is cut off, and half of a surrogate pair.
    for bytes in [&b"a\xff"[..], b"a\xc3", b"\xed\xa0\x80"] {
        let (text, len) = (bytes.as_ptr().cast(), bytes.len());
        all_are(
            Status::NotUtf8,
            "is not UTF-8",
            mistakes![
                stateroom_room_text(h, room, 1, text, len),
                stateroom_room_open(h, 0, text, len, m, null(), key),
                stateroom_host_find_room(h, text, len, key),
            ],
        );
    }
    assert_eq!(host.room_stats(room).unwrap().messages_in, 0);
}

#[test]
fn lengths_that_no_memory_has() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let (h, text) = (host.handle, c"text".as_ptr());
    let (mut module, mut count, mut key) = (null_mut(), 0, 0);
    all_are(
        Status::InvalidArgument,
        "longer than any memory",
        mistakes![
            stateroom_room_text(h, room, 1, text, usize::MAX),
            stateroom_room_bytes(h, room, 1, text.cast(), usize::MAX),
            stateroom_module_load(text.cast(), usize::MAX, null(), &raw mut module),
            stateroom_host_get_rooms(h, &raw mut key, usize::MAX, &raw mut count),
        ],
    );
}

#[test]
fn lengths_of_zero() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let (h, m) = (host.handle, module.0);
    let mut room = 0;
    call(|e| unsafe { stateroom_room_open(h, 0, null(), 0, m, null(), &raw mut room, e) }).unwrap();
    host.connect(room, 1).unwrap();
    call(|e| unsafe { stateroom_room_text(h, room, 1, null(), 0, e) }).unwrap();
    call(|e| unsafe { stateroom_room_bytes(h, room, 1, null(), 0, e) }).unwrap();
    host.poll(0);
    assert_eq!(host.calls().len(), 3);
    let mut module = null_mut();
    all_are(
        Status::InvalidModule,
        "not valid WebAssembly",
        mistakes![stateroom_module_load(null(), 0, null(), &raw mut module)],
    );
}

#[test]
fn an_allocator_that_comes_too_late() {
    unsafe extern "C" fn allocate(
        _: *mut std::ffi::c_void,
        _: usize,
        _: usize,
    ) -> *mut std::ffi::c_void {
        null_mut()
    }
    unsafe extern "C" fn free(
        _: *mut std::ffi::c_void,
        _: *mut std::ffi::c_void,
        _: usize,
        _: usize,
    ) {
    }
    let allocator = stateroom_allocator {
        allocate: Some(allocate),
        deallocate: Some(free),
        ..Default::default()
    };
    all_are(
        Status::TooLate,
        "allocated already",
        mistakes![stateroom_allocator_set(&raw const allocator)],
    );
}
