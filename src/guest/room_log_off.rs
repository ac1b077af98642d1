//! In place of `room_log.rs` without the feature `log`: nothing is logged.

use crate::{limits::Limits, time::Instant};
use alloc::sync::Arc;

#[derive(Default)]
pub(crate) struct RoomLog;

#[derive(Clone, Copy, Debug)]
pub(crate) enum LineKind {
    Fault,
    LostOutput,
}

/// There is none.
pub(crate) enum LogPermit {}

impl RoomLog {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) const fn permit(
        &self,
        _kind: LineKind,
        _room: &Arc<str>,
        _limits: &Limits,
        _now: Instant,
    ) -> Option<LogPermit> {
        None
    }

    pub(super) const fn end_event(&self, _now: Instant) {}

    pub(crate) const fn end(&self) {}
}
