//! What is counted before a connection has come to a worker.

use hashbrown::HashMap;
use hyper::StatusCode;
use std::sync::{Mutex, PoisonError};

/// Counts responses, also those to connections that are rejected before their request is read.
#[derive(Debug, Default)]
pub(crate) struct HttpCounts(Mutex<HashMap<u16, u64>>);

impl HttpCounts {
    pub(crate) fn count(&self, status: StatusCode) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(status.as_u16()).or_default() += 1;
    }

    /// Ordered by status.
    pub(super) fn list(&self) -> Vec<(u16, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = counts.iter().map(|(status, n)| (*status, *n)).collect();
        list.sort_unstable();
        list
    }
}
