//! Hostile: does what a room must not do, when a client asks for it. For seeing how a host takes it.
//!
//! | a text | what the room does |
//! |---|---|
//! | `panic` | panics |
//! | `loop` | never returns |
//! | `recurse` | calls itself without end |
//! | `wild` | sends bytes that lie outside of its memory |
//! | `flood` | sends messages without end |
//! | `grow` | asks for memory until it is refused, then says `refused` to the sender |
//! | anything else | says it back to the sender, as a well-behaved room would |

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
            // SAFETY: it is not; the host has to see to that.
            "wild" => unsafe { env::send_message(client, core::ptr::without_provenance(0xffff_0000), 0x8000) },
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

/// Not a loop, since there is something left to do after each call.
#[expect(unconditional_recursion)]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) ^ depth
}
