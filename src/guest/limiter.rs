//! Bounds the memories and tables of a guest.

use super::wasmi_bugs::MAX_TABLE_GROWTH;
use crate::{limits::Limits, structure::MAX_TABLES};
use wasmi::ResourceLimiter;
use wasmi_core::LimiterError;

pub(super) struct Limiter {
    max_memory_bytes: usize,
    max_table_elements: usize,
    /// Elements of all tables together.
    table_elements: usize,
    /// Set after instantiation, when only the guest's own instructions can grow anything.
    pub(super) is_instantiated: bool,
    /// Whether a growth of memory was ever refused, to explain a trap that follows.
    pub(super) memory_refused: bool,
}

impl Limiter {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            max_memory_bytes: limits.max_memory_bytes,
            max_table_elements: limits.max_table_elements,
            table_elements: 0,
            is_instantiated: false,
            memory_refused: false,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let allowed = desired <= self.max_memory_bytes;
        self.memory_refused |= !allowed;
        Ok(allowed && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let delta = desired.saturating_sub(current);
        let total = self.table_elements.saturating_add(delta);
        let allowed = total <= self.max_table_elements
            && maximum.is_none_or(|maximum| desired <= maximum)
            && (!self.is_instantiated || delta <= MAX_TABLE_GROWTH);
        if allowed {
            self.table_elements = total;
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        1
    }
}
