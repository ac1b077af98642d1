//! The script of events on this machine, for all bundled rooms: what the boards' self-tests print
//! must be the same.

use app::{heap::Free, replay, rooms};
use std::fmt::Write;

fn main() {
    let mut transcript = String::new();
    for bundled in rooms::SMALL.into_iter().chain(rooms::SDK) {
        replay::play(bundled, Free::UNLIMITED, &mut transcript).expect("a string takes it all");
    }
    writeln!(transcript, "end of replay").expect("a string takes it all");
    print!("{transcript}");
}
