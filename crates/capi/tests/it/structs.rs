//! Structs that grow: programs and libraries of different versions.

use crate::support::{Host, Module, ROOM, Status, call, status};
use stateroom_wasmi::*;
use std::mem::offset_of;

/// What a later version of the interface may have.
#[repr(C)]
#[derive(Clone, Copy)]
struct Later<T> {
    known: T,
    unknown: [usize; 2],
}

fn load(options: *const stateroom_load_options) -> crate::support::Result {
    let wasm = wat::parse_str(ROOM).unwrap();
    let mut module = std::ptr::null_mut();
    call(|error| unsafe {
        let (data, len) = (wasm.as_ptr().cast(), wasm.len());
        stateroom_module_load(data, len, options, &raw mut module, error)
    })?;
    drop(Module(module));
    Ok(())
}

#[test]
fn a_later_struct_that_sets_nothing_unknown_is_read() {
    let mut options = Later {
        known: stateroom_load_options::default(),
        unknown: [0; 2],
    };
    options.known.size = size_of_val(&options);
    load((&raw const options).cast()).unwrap();
    options.unknown[1] = 1;
    let error = load((&raw const options).cast()).unwrap_err();
    assert_eq!(error.status, Status::InvalidArgument);
    assert!(error.message.contains("does not know"), "{}", error.message);
}

#[test]
fn what_a_later_struct_has_is_set_to_zero() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let mut stats = Later {
        known: host.room_stats(room).unwrap(),
        unknown: [7; 2],
    };
    stats.known.size = size_of_val(&stats);
    stats.known.clients = 99;
    call(|error| unsafe {
        stateroom_room_get_stats(host.handle, room, (&raw mut stats).cast(), error)
    })
    .unwrap();
    assert_eq!((stats.known.clients, stats.unknown), (1, [0; 2]));
    assert_eq!(stats.known.size, size_of_val(&stats));
}

#[test]
fn a_size_that_is_wrong_is_refused() {
    let whole = size_of::<stateroom_load_options>();
    for size in [0, 1, whole - 1, 4097, usize::MAX] {
        let options = stateroom_load_options {
            size,
            ..Default::default()
        };
        let error = load(&raw const options).unwrap_err();
        assert_eq!(error.status, Status::InvalidArgument);
        assert!(error.message.contains("sizeof"), "{}", error.message);
    }
    let host = Host::try_with(|options| options.size = 8);
    assert_eq!(host.map(drop).unwrap_err().status, Status::InvalidArgument);
    let host = Host::new();
    let mut stats = host.stats();
    stats.size = 0;
    let result =
        call(|error| unsafe { stateroom_host_get_stats(host.handle, &raw mut stats, error) });
    assert_eq!(status(result), Status::InvalidArgument);
}

#[test]
fn size_comes_first() {
    assert_eq!(offset_of!(stateroom_allocator, size), 0);
    assert_eq!(offset_of!(stateroom_heap_estimate, size), 0);
    assert_eq!(offset_of!(stateroom_host_options, size), 0);
    assert_eq!(offset_of!(stateroom_host_stats, size), 0);
    assert_eq!(offset_of!(stateroom_limits, size), 0);
    assert_eq!(offset_of!(stateroom_load_options, size), 0);
    assert_eq!(offset_of!(stateroom_module_info, size), 0);
    assert_eq!(offset_of!(stateroom_room_options, size), 0);
    assert_eq!(offset_of!(stateroom_room_stats, size), 0);
}
