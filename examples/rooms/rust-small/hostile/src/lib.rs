//! Hostile: misbehaves on request, to test how a host copes.
//!
//! | a text | what the room does |
//! |---|---|
//! | `panic` | panics |
//! | `loop` | never returns |
//! | `recurse` | recurses endlessly |
//! | `wild` | sends bytes outside its memory |
//! | `flood` | sends messages endlessly |
//! | `grow` | grows its memory until that is refused, then sends `refused` to the sender |
//! | anything else | echoes it to the sender |

#![no_std]

use core::hint::black_box;
use stateroom_small::{env, room, send_text, Room};

struct Hostile;

room!(Hostile);

impl Room for Hostile {
    const NEW: Self = Hostile;

    fn text(&mut self, client: i32, text: &str) {
        match text {
            "panic" => panic!(),
            "loop" => loop {
                black_box(());
            },
            "recurse" => {
                recurse(0);
            }
            // SAFETY: none; the host must check the pointer.
            "wild" => unsafe {
                env::send_message(client, core::ptr::without_provenance(0xffff_0000), 0x8000)
            },
            "flood" => loop {
                send_text(client, "more");
            },
            "grow" => {
                // A page has one byte here, so that this asks for another 64 KiB each time.
                while core::arch::wasm32::memory_grow::<0>(1 << 16) != usize::MAX {}
                send_text(client, "refused");
            }
            _ => send_text(client, text),
        }
    }
}

/// Not a tail call, so that it is not optimised to a loop.
#[expect(unconditional_recursion)]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) ^ depth
}
