//! What CI runs on each board.

use crate::{
    measure::{self, Lab},
    replay,
    rooms::Bundled,
    trouble,
};
use core::fmt;
use stateroom_wasmi_host::Clock;

/// Runs everything, and replays those of these rooms that there is memory for. An error is a
/// failure, and so is a panic.
pub fn run<C: Clock>(lab: &mut Lab<'_, C>, rooms: &[&[Bundled]]) -> fmt::Result {
    writeln!(lab.out, "figures")?;
    measure::application(lab)?;
    measure::rooms(lab)?;
    writeln!(lab.out, "too small for a room")?;
    trouble::too_small_for_a_room(lab)?;
    writeln!(lab.out, "recursion without memory")?;
    trouble::recursion_without_memory(lab)?;
    for bundled in rooms.iter().copied().flatten() {
        replay::play(*bundled, lab.heap.free(), lab.out)?;
    }
    writeln!(lab.out, "end of replay")
}
