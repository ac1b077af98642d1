//! What CI runs on each board.

use crate::{
    low_memory,
    measure::{self, Lab},
    replay,
    rooms::{self, Bundled},
};
use core::fmt;
use stateroom_wasmi_host::Clock;

/// Runs everything, and replays the rooms that there is memory for, those made with the SDKs only if
/// there is flash for them. An error is a
/// failure, and so is a panic.
pub fn run<C: Clock>(lab: &mut Lab<'_, C>, sdk: &[Bundled]) -> fmt::Result {
    writeln!(lab.out, "figures")?;
    measure::application(lab)?;
    measure::rooms(lab)?;
    writeln!(lab.out, "too small for a room")?;
    low_memory::too_small_for_a_room(lab)?;
    writeln!(lab.out, "recursion without memory")?;
    low_memory::recursion_without_memory(lab)?;
    for bundled in rooms::SMALL {
        replay::play(bundled, &replay::small_limits(), lab.heap.free(), lab.out)?;
    }
    for bundled in sdk {
        replay::play(*bundled, &replay::sdk_limits(), lab.heap.free(), lab.out)?;
    }
    writeln!(lab.out, "end of replay")
}
