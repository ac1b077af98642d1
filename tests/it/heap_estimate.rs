//! The estimate of a module's heap, from its bytes alone.

use stateroom_wasmi_host::{Limits, Module};

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the module is valid text")
}

#[test]
fn initial_memory_counts_up_to_the_limit() {
    let limits = Limits::small();
    let room = |text| Module::heap_estimate(&wasm(text), &limits).room;
    let none = room("(module)");
    assert_eq!(room("(module (memory 1))"), none + 65_536);
    assert_eq!(room("(module (memory 3000 (pagesize 1)))"), none + 3000);
    let two = "(module (memory 1500 (pagesize 1)) (memory 1500 (pagesize 1)))";
    assert_eq!(room(two), none + 3000);
    assert_eq!(
        room("(module (memory 100))"),
        none + limits.max_memory_bytes
    );

    let estimate = Module::heap_estimate(&wasm("(module (memory 3000 (pagesize 1)))"), &limits);
    assert_eq!(estimate.memory, 3000);
    let without = estimate.without_memory();
    assert_eq!((without.room, without.memory), (none, 0));
    assert_eq!(
        (without.load, without.module),
        (estimate.load, estimate.module)
    );
}

#[test]
fn the_module_estimate_grows_with_code_but_not_custom_sections() {
    let limits = Limits::small();
    let small = wasm("(module (func nop))");
    let estimate = Module::heap_estimate(&small, &limits);
    let large = wasm(&format!("(module (func {}))", "nop ".repeat(1000)));
    assert!(Module::heap_estimate(&large, &limits).module >= estimate.module + 1000);

    let mut with_names = small.clone();
    // A custom section of 100 bytes: a name of length 0, and 99 bytes of content.
    with_names.extend([0, 100]);
    with_names.extend([0; 100]);
    let with_names = Module::heap_estimate(&with_names, &limits);
    assert!(
        with_names.module <= estimate.module + 32,
        "{with_names:?} and {estimate:?}"
    );
}

#[test]
fn invalid_modules_have_an_estimate() {
    let limits = Limits::small();
    let module = wasm("(module (memory 1) (func nop))");
    for len in 0..module.len() {
        let estimate = Module::heap_estimate(&module[..len], &limits);
        assert!(estimate.load > estimate.module && estimate.room > limits.max_stack_bytes);
        assert!(estimate.with_one_room() >= estimate.load.max(estimate.module + estimate.room));
    }
    // A memory of 2^64 - 1 pages with an invalid page size.
    let huge = b"\0asm\x01\0\0\0\x05\x0d\x01\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x3f";
    assert!(Module::heap_estimate(huge, &limits).room > limits.max_memory_bytes);
}
