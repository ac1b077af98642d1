//! Bounds the memories and tables of a guest.

use super::wasmi_bugs::MAX_TABLE_GROWTH;
use crate::{
    limits::Limits,
    structure::{MAX_MEMORIES, MAX_TABLES},
};
use wasmi::ResourceLimiter;
use wasmi_core::{LimiterError, MemoryError};

pub(super) struct Limiter {
    max_memory_bytes: usize,
    max_table_elements: usize,
    /// Bytes of all memories together.
    pub(super) memory_bytes: usize,
    /// Bytes by which a memory was last allowed to grow.
    memory_growth: usize,
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
            memory_bytes: 0,
            memory_growth: 0,
            table_elements: 0,
            is_instantiated: false,
            memory_refused: false,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let growth = desired.saturating_sub(current);
        let total = self.memory_bytes.saturating_add(growth);
        let is_within_limit = total <= self.max_memory_bytes;
        self.memory_refused |= !is_within_limit;
        let allowed = is_within_limit && maximum.is_none_or(|maximum| desired <= maximum);
        if allowed {
            self.memory_bytes = total;
            self.memory_growth = growth;
        }
        Ok(allowed)
    }

    /// What was allowed lacked fuel, or memory of the host.
    fn memory_grow_failed(&mut self, _error: &MemoryError) -> Result<(), LimiterError> {
        self.memory_bytes -= self.memory_growth;
        self.memory_growth = 0;
        Ok(())
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
        MAX_MEMORIES
    }
}
