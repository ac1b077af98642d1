//! Replays the script of events to all bundled rooms on this machine; the boards' self-tests must
//! print the same.

use app::{heap::Free, replay, rooms};
use stateroom_wasmi_host::Limits;
use std::fmt::Write;

fn main() {
    let mut transcript = String::new();
    for replay in replay::REPLAYS {
        let mut replay = |bundled, limits: &Limits| {
            replay(bundled, limits, Free::UNLIMITED, &mut transcript)
                .expect("it loads, and a string takes it all");
        };
        for bundled in rooms::SMALL {
            replay(bundled, &replay::small_limits());
        }
        for bundled in rooms::SDK {
            replay(bundled, &replay::sdk_limits());
        }
    }
    writeln!(transcript, "end of replay").expect("a string takes it all");
    print!("{transcript}");
}
