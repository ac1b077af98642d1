//! How much fuel a guest may use, and has used.

use super::host_state::State;
use crate::{error::FaultCause, limits::Limits};
use wasmi::Store;

/// Hands out the fuel of an event slice by slice, and accounts for it.
///
/// An event's use does not depend on how it was sliced: what imports use beyond a slice is kept as
/// a debt and counted here, and what a slice leaves is not counted.
pub(super) struct FuelMeter {
    /// Fuel per event; none if metering is off.
    per_event: Option<u64>,
    /// What the running event may still use.
    left: u64,
    /// What the store was given for the running slice.
    granted: u64,
    /// What the next instruction of a paused guest needs at least; a large copy may need more than
    /// a slice.
    required: u64,
    /// All that was ever used.
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

    /// Fuels the store for a slice, within what the event may use.
    pub(super) fn grant(&mut self, store: &mut Store<State>, slice: u64) {
        if self.per_event.is_some() {
            self.granted = slice.max(self.required).min(self.left);
            store
                .set_fuel(self.granted)
                .expect("the engine was made with metering on");
        }
    }

    /// Accounts for what the slice used.
    pub(super) fn settle(&mut self, store: &mut Store<State>) -> Result<(), FaultCause> {
        if self.per_event.is_none() {
            return Ok(());
        }
        let rest = store
            .get_fuel()
            .expect("the engine was made with metering on");
        let debt = core::mem::take(&mut store.data_mut().fuel_debt);
        let used = (self.granted - rest).saturating_add(debt);
        self.used = self.used.saturating_add(used);
        self.left = self
            .left
            .checked_sub(used)
            .ok_or_else(|| self.exhausted())?;
        Ok(())
    }

    /// Notes what a paused guest needs to go on, which must be within what the event may use.
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
