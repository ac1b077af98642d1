//! In place of `wasi` without the feature of this name: the ABI check refuses modules that import
//! something of it, so that no guest sees a clock, draws a random number or prints.

#[cfg(feature = "snapshot")]
use crate::guest::checkpoint::WasiPosition;
use crate::{abi::wasi::WasiVersion, guest::host_state::HostState, time::Instant};
use core::time::Duration;
use wasmi::{Func, FuncType, Store};

pub(in crate::guest) struct WasiState;

impl WasiState {
    pub(in crate::guest) const fn new(_seed: u64, _unix_time_at_zero: Duration) -> Self {
        Self
    }

    pub(in crate::guest) const fn begin_event(&self, _now: Instant) {}

    #[cfg(feature = "snapshot")]
    pub(in crate::guest) const fn position(&self, now: Instant) -> WasiPosition {
        WasiPosition {
            clock: now,
            random_words: None,
        }
    }

    #[cfg(feature = "snapshot")]
    pub(in crate::guest) const fn restore(&self, _seed: u64, _position: WasiPosition) {}
}

pub(super) const fn function(
    _: &mut Store<HostState>,
    version: WasiVersion,
    _name: &str,
    _: &FuncType,
) -> Func {
    match version {}
}
