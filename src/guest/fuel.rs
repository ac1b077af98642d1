//! Fuel accounting.

use super::host_state::HostState;
use crate::{error::FaultCause, limits::Limits};
use wasmi::Store;

/// Grants the fuel of an event slice by slice, and accounts for it.
///
/// The fuel that an event uses does not depend on how it was sliced: what imports use beyond a slice
/// is kept as a debt and counted here, and what is left of a slice is not counted.
pub(super) struct FuelMeter {
    /// Fuel per event; none if metering is off.
    per_event: Option<u64>,
    /// What is left for the running event.
    left: u64,
    /// What was granted for the running slice.
    granted: u64,
    /// What the next instruction of a paused guest needs; a large copy may need more than a slice.
    required: u64,
    /// The sum over all events.
    pub(super) used: u64,
}

impl FuelMeter {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            per_event: limits.max_fuel_per_event,
            left: 0,
            granted: 0,
            required: 0,
            used: 0,
        }
    }

    pub(super) fn begin_event(&mut self) {
        self.left = self.per_event.unwrap_or(0);
        self.required = 0;
    }

    /// Sets the store's fuel for a slice, within what is left for the event.
    pub(super) fn grant(&mut self, store: &mut Store<HostState>, slice: u64) {
        if self.per_event.is_some() {
            self.granted = slice.max(self.required).min(self.left);
            store.data_mut().fuel_beyond_slice = self.left - self.granted;
            store
                .set_fuel(self.granted)
                .expect("the engine was made with metering on");
        }
    }

    /// Counts what the slice used.
    pub(super) fn account(&mut self, store: &mut Store<HostState>) -> Result<(), FaultCause> {
        if self.per_event.is_none() {
            return Ok(());
        }
        let unused = store
            .get_fuel()
            .expect("the engine was made with metering on");
        let debt = core::mem::take(&mut store.data_mut().fuel_debt);
        let used = (self.granted - unused).saturating_add(debt);
        self.used = self.used.saturating_add(used);
        self.left = self
            .left
            .checked_sub(used)
            .ok_or_else(|| self.exhausted())?;
        Ok(())
    }

    /// Records what a paused guest needs to go on; a fault if more than is left for the event.
    pub(super) fn require(&mut self, fuel: u64) -> Result<(), FaultCause> {
        if fuel > self.left {
            return Err(self.exhausted());
        }
        self.required = fuel;
        Ok(())
    }

    pub(super) fn exhausted(&self) -> FaultCause {
        FaultCause::OutOfFuel {
            limit: self.per_event.unwrap_or(u64::MAX),
        }
    }
}
