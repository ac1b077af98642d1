//! Stores with a large offset, or to another memory than the first, whose address and value are the
//! same local: wasmi 2.0.0 panics when it translates them as they are.

use crate::support::{ENV, connect, guest_0_2, module, next_message, room, send};

/// The length of the text and three, in local 3 and where the interpreter has its results.
const LENGTH: &str = "(local.tee 3 (i32.add (local.get 2) (i32.const 3)))";

/// A guest that echoes a text, after `store` has stored a number at its own address and `offset`, and
/// `load` has found it there.
fn guest(store: &str, load: &str) -> String {
    let message = format!(
        "(local i32)
        {store}
        (if (i32.ne ({load} (local.get 3)) (local.get 3)) (then (unreachable)))
        (call $send_message (local.get 0) (local.get 1) (local.get 2))"
    );
    guest_0_2(ENV, &[("message", &message)], "(memory 1)").replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 2)",
    )
}

#[test]
fn a_number_is_stored_at_its_own_address() {
    const FAR: &str = "offset=70000";
    let set = format!("{LENGTH} local.set 3 local.get 3 local.get 3");
    let stores = [
        format!("{LENGTH} local.get 3 i32.store {FAR}"),
        format!("{set} i32.store {FAR}"),
        format!("{set} i32.store8 {FAR}"),
        format!("{set} local.tee 3 i32.store16 {FAR}"),
        format!("{LENGTH} nop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} i32.const 5 drop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} local.get 0 drop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} local.get 3 i64.extend_i32_u i64.store {FAR}"),
        format!("{LENGTH} local.get 3 i64.extend_i32_u i64.store8 {FAR}"),
        format!(
            "{LENGTH} {} local.get 3 i32.store {FAR}",
            "(local.set 0 (local.get 0))".repeat(100)
        ),
        format!("{LENGTH} i32.const 0 i32.const 0 i32.store local.get 3 i32.store {FAR}"),
        // Between them, what leaves the register for integers as it is.
        format!("{LENGTH} i32.const 1 i32.const 2 i32.add drop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} f32.const 1 i32.trunc_f32_s drop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} i32.const 0 f32.load f32.sqrt drop local.get 3 i32.store {FAR}"),
        format!("{LENGTH} i32.const 0 br_if 0 local.get 3 i32.store {FAR}"),
        format!(
            "{LENGTH} i32.const 0 i32.const 0 i32.const 0 memory.fill local.get 3 i32.store {FAR}"
        ),
        format!("{LENGTH} local.get 3 local.get 3 i32.const 1 select i32.store {FAR}"),
        // Near ones, and those of two locals, are as they were.
        format!("{LENGTH} local.get 3 i32.store offset=65535 {set} i32.store {FAR}"),
    ];
    for store in stores {
        let module = module(&guest(&store, "i32.load8_u offset=70000"));
        let mut room = room(&module);
        connect(&mut room, 1);
        send(&mut room, "hello");
        assert!(
            next_message(&mut room).is_some(),
            "{store}: {:?}",
            room.fault()
        );
    }
}

#[test]
fn so_it_is_in_another_memory() {
    let store = format!("{LENGTH} local.get 3 i32.store 1");
    let module = module(&guest(&store, "i32.load8_u 1"));
    let mut room = room(&module);
    connect(&mut room, 1);
    send(&mut room, "hello");
    assert!(next_message(&mut room).is_some(), "{:?}", room.fault());
}
