//! Trimming returns memory to the operating system and keeps its content.

use crate::support::{connect, guest_0_2, module, outputs, room, send};
use stateroom_wasmi_host::Instant;

/// A guest of 32 pages that sends the number of its bytes that are not zero: some are from data
/// segments, and a message sets the byte at the address that it holds.
fn counting_bytes() -> String {
    let binary = "(local $at i32) (local $found i32)
        (i32.store8 (i32.load (local.get 1)) (i32.const 1))
        (loop $next
            (local.set $found (i32.add (local.get $found) (i32.ne (i32.load8_u (local.get $at)) (i32.const 0))))
            (br_if $next (i32.lt_u
                (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 0x200000))))
        (i32.store (i32.const 0) (local.get $found))
        (call $send (i32.const 0) (i32.const 0) (i32.const 4))
        (i32.store (i32.const 0) (i32.const 0))";
    let text = guest_0_2(
        r#"(import "env" "send_binary" (func $send (param i32 i32 i32)))"#,
        &[("binary", binary)],
        r#"(data (i32.const 100000) "abc") (data (i32.const 2097151) "z")"#,
    );
    text.replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 32)",
    )
}

#[test]
fn a_trimmed_room_keeps_its_memory() {
    let mut room = room(&module(&counting_bytes()));
    connect(&mut room, 1);
    // The message itself lies in the guest's memory: its address has a byte that is not zero.
    let address = 0x0010_0000_u32;
    let count = |room: &mut stateroom_wasmi_host::Room| {
        send(room, &address.to_le_bytes());
        outputs(room, Instant::ZERO)
            .pop()
            .expect("the guest replies")
            .1
    };
    let before = count(&mut room);
    assert_eq!(
        before, "0x06000000",
        "abc, z, the byte that was set, and one of the address"
    );
    let trimmed = room.trim();
    if cfg!(target_os = "linux") {
        // All but the pages of the four addresses that are written to, and the unaligned ends.
        assert!(
            trimmed > (2 << 20) - 10 * 65536,
            "{trimmed} bytes were trimmed"
        );
    }
    assert_eq!(count(&mut room), before);
}

#[cfg(target_os = "linux")]
#[test]
fn trimmed_memory_is_not_resident() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("the second number") * 4096
    };
    let module = module(&counting_bytes());
    // Many rooms, so that concurrent tests do not matter.
    let mut rooms: Vec<_> = (0..100).map(|_| room(&module)).collect();
    let before = resident();
    let trimmed: usize = rooms.iter_mut().map(stateroom_wasmi_host::Room::trim).sum();
    let after = resident();
    assert!(trimmed > 150 << 20, "{trimmed} bytes were trimmed");
    assert!(
        before.saturating_sub(after) > 100 << 20,
        "{before} bytes before, {after} after"
    );
}
