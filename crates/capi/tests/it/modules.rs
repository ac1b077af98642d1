//! Loading modules.

use crate::support::{Module, ROOM, Status, call, zeroed_with_size};
use stateroom_wasmi::*;
use std::{fs, path::Path, ptr::null_mut};

fn load_bytes(
    bytes: &[u8],
    options: *const stateroom_load_options,
) -> Result<Module, (Status, String)> {
    let mut module = std::ptr::dangling_mut();
    let result = call(|error| unsafe {
        let (data, len) = (bytes.as_ptr().cast(), bytes.len());
        stateroom_module_load(data, len, options, &raw mut module, error)
    });
    match result {
        Ok(()) => Ok(Module(module)),
        Err(error) => {
            assert!(module.is_null());
            Err((error.status, error.message))
        }
    }
}

fn info(module: &Module) -> stateroom_module_info {
    let mut info = zeroed_with_size();
    call(|error| unsafe { stateroom_module_get_info(module.0, &raw mut info, error) }).unwrap();
    info
}

fn bundled(name: &str) -> Vec<u8> {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rooms/wasm");
    fs::read(rooms.join(name)).unwrap()
}

#[test]
fn modules_of_both_abis_are_loaded() {
    for (name, abi) in [
        ("echo-rust-0.2.wasm", stateroom_abi::V0_2),
        ("echo-rust-0.4.wasm", stateroom_abi::V0_4),
        ("echo-c.wasm", stateroom_abi::V0_2),
    ] {
        let module = load_bytes(&bundled(name), std::ptr::null()).map_err(|(_, text)| text);
        assert_eq!(info(&module.unwrap()).abi, abi as i32, "{name}");
    }
}

#[test]
fn all_problems_of_a_module_are_listed() {
    let wat = r#"(module
        (import "env" "send_massage" (func (param i32)))
        (memory (export "memory") 1)
        (func (export "jam_malloc") (param i64) (result i32) (i32.const 0)))"#;
    let (status, message) = load_bytes(&wat::parse_str(wat).unwrap(), std::ptr::null())
        .map(drop)
        .unwrap_err();
    assert_eq!(status, Status::NotARoom);
    for problem in [
        "send_massage",
        "jam_malloc",
        "jam_free",
        "initialize",
        "timer",
    ] {
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn modules_are_refused_with_a_reason() {
    let room = wat::parse_str(ROOM).unwrap();
    let options = |change: &dyn Fn(&mut stateroom_load_options, &mut stateroom_limits)| {
        let mut limits = stateroom_limits::default();
        let mut options = stateroom_load_options::default();
        change(&mut options, &mut limits);
        options.limits = Box::leak(Box::new(limits));
        options
    };
    let default = options(&|_, _| {});
    let short = options(&|_, limits| limits.max_module_bytes = 10);
    let contradictory = options(&|_, limits| limits.max_inbox_events = 1);
    let rollback = options(&|options, _| options.snapshots = 1);
    let simd = r#"(module (memory (export "memory") 1)
        (func (result v128) (v128.const i64x2 0 0)))"#;
    let table = ROOM.replace(
        r#"(func (export "timer")"#,
        r#"(table $t 8 funcref) (func (export "timer") (table.set $t (i32.const 0) (ref.null func))"#,
    );
    for (bytes, options, expected) in [
        (b"".to_vec(), default, Status::InvalidModule),
        (b"\0asm".to_vec(), default, Status::InvalidModule),
        (b"no module".to_vec(), default, Status::InvalidModule),
        (b"\0asm\x01\0\0\0".to_vec(), default, Status::NotARoom),
        (room.clone(), short, Status::ModuleTooLarge),
        (room.clone(), contradictory, Status::InvalidLimits),
        (
            wat::parse_str(simd).unwrap(),
            default,
            Status::InvalidModule,
        ),
        (
            wat::parse_str(table).unwrap(),
            rollback,
            Status::HiddenState,
        ),
    ] {
        let (status, message) = load_bytes(&bytes, &raw const options)
            .map(drop)
            .unwrap_err();
        assert_eq!(status, expected, "{message}");
    }
}

#[test]
fn options_change_how_a_module_is_loaded() {
    let room = wat::parse_str(ROOM).unwrap();
    for compilation in [
        stateroom_compilation::Lazy,
        stateroom_compilation::Eager,
        stateroom_compilation::OnDemand,
    ] {
        let options = stateroom_load_options {
            compilation: compilation as i32,
            ..Default::default()
        };
        assert!(
            load_bytes(&room, &raw const options).is_ok(),
            "{compilation:?}"
        );
    }
    for (payload_buffer, keeps) in [
        (stateroom_payload_buffer::Auto, 0),
        (stateroom_payload_buffer::Keep, 1),
        (stateroom_payload_buffer::PerEvent, 0),
    ] {
        let options = stateroom_load_options {
            payload_buffer: payload_buffer as i32,
            simd: 1,
            ..Default::default()
        };
        let module = load_bytes(&room, &raw const options).map_err(|(_, text)| text);
        assert_eq!(info(&module.unwrap()).keeps_payload_buffer, keeps);
    }
    for (compilation, payload_buffer) in [(3, 0), (-1, 0), (0, 3), (0, -1)] {
        let options = stateroom_load_options {
            compilation,
            payload_buffer,
            ..Default::default()
        };
        let (status, _) = load_bytes(&room, &raw const options).map(drop).unwrap_err();
        assert_eq!(status, Status::InvalidArgument);
    }
}

#[test]
fn limits_are_those_that_the_module_was_loaded_with() {
    let module = Module::with_limits(ROOM, |limits| {
        limits.max_clients = 3;
        limits.max_fuel_per_event = STATEROOM_UNLIMITED;
    });
    let mut limits: stateroom_limits = zeroed_with_size();
    call(|error| unsafe { stateroom_module_get_limits(module.0, &raw mut limits, error) }).unwrap();
    assert_eq!(limits.max_clients, 3);
    assert_eq!(limits.max_fuel_per_event, STATEROOM_UNLIMITED);
    assert_eq!(limits.max_module_bytes, 16 << 20);
}

#[test]
fn there_are_two_sets_of_limits() {
    let mut limits: stateroom_limits = zeroed_with_size();
    call(|error| unsafe { stateroom_limits_default(&raw mut limits, error) }).unwrap();
    assert_eq!(
        (limits.max_memory_bytes, limits.fuel_per_slice),
        (64 << 20, 1_000_000)
    );
    call(|error| unsafe { stateroom_limits_small(&raw mut limits, error) }).unwrap();
    assert_eq!(
        (limits.max_memory_bytes, limits.fuel_per_slice),
        (64 << 10, 10_000)
    );
    assert_eq!(limits.size, size_of::<stateroom_limits>());
}

#[test]
fn the_heap_is_estimated() {
    let room = wat::parse_str(ROOM).unwrap();
    let estimate = |bytes: &[u8], limits: *const stateroom_limits| {
        let mut estimate: stateroom_heap_estimate = zeroed_with_size();
        call(|error| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            stateroom_module_estimate_heap(data, len, limits, &raw mut estimate, error)
        })
        .unwrap();
        estimate
    };
    let mut small: stateroom_limits = zeroed_with_size();
    call(|error| unsafe { stateroom_limits_small(&raw mut small, error) }).unwrap();
    let of_room = estimate(&room, &raw const small);
    assert_eq!(of_room.memory, 65536);
    assert!(of_room.room > of_room.memory && of_room.load > of_room.module);
    assert!(of_room.with_one_room >= of_room.module + of_room.room);
    assert!(
        estimate(&room, std::ptr::null()).room > of_room.room,
        "a larger stack"
    );
    assert_eq!(estimate(b"no module", std::ptr::null()).memory, 0);
}

#[test]
fn freeing_null_is_a_no_op() {
    let mut module = null_mut();
    call(|error| unsafe { stateroom_module_free(&raw mut module, error) }).unwrap();
    let mut host = null_mut();
    call(|error| unsafe { stateroom_host_free(&raw mut host, error) }).unwrap();
}

#[test]
fn versions_are_those_of_the_package() {
    assert_eq!(stateroom_interface_version(), STATEROOM_INTERFACE_VERSION);
    let version = unsafe { std::ffi::CStr::from_ptr(stateroom_library_version()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}
