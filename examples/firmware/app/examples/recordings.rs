//! Records the bundled rooms on this machine, or replays those that a board has recorded, in the
//! current folder. Whichever machine has recorded them, all must print the same.

use app::{
    heap::Free,
    recordings::{Files, run},
    rooms,
};
use std::{fmt, fs};

fn main() {
    let files = Files {
        read: |name| fs::read(name).ok(),
        write: |name, bytes| fs::write(name, bytes).map_err(|_| fmt::Error),
    };
    let mut transcript = String::new();
    let ended = run(&rooms::SDK, Free::UNLIMITED, &files, &mut transcript);
    print!("{transcript}");
    ended.expect("what is replayed is what was recorded");
}
