//! Memory that is given back: resident no more, and still what it was.

use crate::support::{connect, guest_0_2, module, outputs, room, send};
use stateroom_wasmi_host::Instant;

/// A guest of 32 pages that says how many of its bytes are not zero: some of them are from the
/// start, and a message sets its first byte, wherever it says.
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
fn a_room_that_was_trimmed_reads_what_it_wrote() {
    let mut room = room(&module(&counting_bytes()));
    connect(&mut room, 1);
    // What the guest is sent lies in its memory, too: an address has bytes that are not zero.
    let address = 0x0010_0000_u32;
    let count = |room: &mut stateroom_wasmi_host::Room| {
        send(room, &address.to_le_bytes());
        outputs(room, Instant::ZERO).pop().expect("it answers").1
    };
    let before = count(&mut room);
    assert_eq!(
        before, "0x06000000",
        "abc, z, the byte that was set, and one of the address"
    );
    let given_back = room.trim();
    if cfg!(target_os = "linux") {
        // All but the pages of the four places that are written to, and the ragged ends.
        assert!(
            given_back > (2 << 20) - 10 * 65536,
            "{given_back} bytes were given back"
        );
    }
    assert_eq!(count(&mut room), before);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_given_back_is_not_resident() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("the second number") * 4096
    };
    let module = module(&counting_bytes());
    // So many that what other tests do meanwhile does not matter.
    let mut rooms: Vec<_> = (0..100).map(|_| room(&module)).collect();
    let before = resident();
    let given_back: usize = rooms.iter_mut().map(stateroom_wasmi_host::Room::trim).sum();
    let after = resident();
    assert!(given_back > 150 << 20, "{given_back} bytes were given back");
    assert!(
        before.saturating_sub(after) > 100 << 20,
        "{before} bytes before, {after} after"
    );
}
