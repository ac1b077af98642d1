//! The self-test that CI runs on each board.

use crate::{
    low_memory,
    measure::{self, TestBench},
    replay,
    rooms::{self, Bundled},
};
use core::fmt;
use stateroom_wasmi_host::Clock;

/// Runs everything, and replays the rooms that fit into the heap; `sdk` are the rooms made with the
/// SDKs, if they fit into flash. An error or a panic is a failure.
pub fn run<C: Clock>(bench: &mut TestBench<'_, C>, sdk: &[Bundled]) -> fmt::Result {
    writeln!(bench.out, "figures")?;
    measure::application(bench)?;
    measure::rooms(bench)?;
    writeln!(bench.out, "smallest heap of a room")?;
    low_memory::smallest_heap_of_a_room(bench)?;
    writeln!(bench.out, "recursion in a full heap")?;
    low_memory::recursion_in_a_full_heap(bench)?;
    for replay in replay::REPLAYS {
        for bundled in rooms::SMALL {
            let limits = replay::small_limits();
            replay(bundled, &limits, bench.heap.free(), bench.out)?;
        }
        for bundled in sdk {
            let limits = replay::sdk_limits();
            replay(*bundled, &limits, bench.heap.free(), bench.out)?;
        }
    }
    writeln!(bench.out, "end of replay")
}
