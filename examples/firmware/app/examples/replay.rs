//! The script of events on this machine, for all bundled rooms: what the boards' self-tests print
//! must be the same.

use app::{heap::Free, replay, rooms};
use stateroom_wasmi_host::Limits;
use std::fmt::Write;

fn main() {
    let mut transcript = String::new();
    let mut play = |bundled, limits: &Limits| {
        replay::play(bundled, limits, Free::UNLIMITED, &mut transcript)
            .expect("it loads, and a string takes it all");
    };
    for bundled in rooms::SMALL {
        play(bundled, &replay::small_limits());
    }
    for bundled in rooms::SDK {
        play(bundled, &replay::sdk_limits());
    }
    writeln!(transcript, "end of replay").expect("a string takes it all");
    print!("{transcript}");
}
