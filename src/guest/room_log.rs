//! What a room causes in the log: what its guests print, and lines about its faults and its outputs.
//! All of it is bounded, since a guest can cause it at will.

use super::stdio::{PrintLimits, Printer};
use crate::{escape::Escaped, limits::Limits, time::Instant};
use alloc::{boxed::Box, sync::Arc};
use core::{fmt, mem, time::Duration};
use log::Level;

/// What a room may log. It is with the room's guest, or with the room while it has none, so that a
/// guest which fails and is replaced has no new allowance. Allocated when there is something to log.
#[derive(Default)]
pub(crate) struct RoomLog(Option<Box<Entries>>);

/// Lines that are no guest's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LineKind {
    /// A fault that the room survives.
    Fault,
    /// An output that the transport has lost.
    LostOutput,
}

/// Allows a line; displays at its end how many like it were not logged.
pub(crate) struct LogPermit {
    suppressed: u64,
}

struct Entries {
    room: Arc<str>,
    printer: Printer,
    faults: LineLimiter,
    lost_outputs: LineLimiter,
}

/// A token bucket for lines, as the generic cell rate algorithm. What one line says, those that follow
/// it soon say, too.
#[derive(Default)]
struct LineLimiter {
    /// When the bucket is full again.
    full_at: Instant,
    /// When there was a line, logged or not.
    last_at: Instant,
    /// Lines that were not logged since the last one.
    suppressed: u64,
}

/// Time in which one line is refilled.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Lines that may come at once after a pause.
const LINE_BURST: u32 = 10;

impl RoomLog {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Whether a line may be logged now; one that may not is counted.
    #[cold]
    pub(crate) fn permit(
        &mut self,
        kind: LineKind,
        room: &Arc<str>,
        limits: &Limits,
        now: Instant,
    ) -> Option<LogPermit> {
        if !log::log_enabled!(Level::Warn) {
            return None;
        }
        self.entries(room, limits.into(), now)
            .limiter(kind)
            .permit(now)
    }

    pub(super) fn printer(
        &mut self,
        room: &Arc<str>,
        limits: PrintLimits,
        now: Instant,
    ) -> &mut Printer {
        &mut self.entries(room, limits, now).printer
    }

    /// Logs what a guest has printed, and what was not logged, if that is due.
    #[inline]
    pub(super) fn end_event(&mut self, now: Instant) {
        if let Some(entries) = &mut self.0
            && entries.has_rest()
        {
            entries.end_event(now);
        }
    }

    /// Logs what is left, since the room has ended.
    pub(crate) fn end(&mut self) {
        if let Some(entries) = &mut self.0 {
            entries.end();
        }
    }

    fn entries(&mut self, room: &Arc<str>, limits: PrintLimits, now: Instant) -> &mut Entries {
        self.0.get_or_insert_with(|| {
            Box::new(Entries {
                room: room.clone(),
                printer: Printer::new(limits, now),
                faults: LineLimiter::default(),
                lost_outputs: LineLimiter::default(),
            })
        })
    }
}

impl Entries {
    const fn limiter(&mut self, kind: LineKind) -> &mut LineLimiter {
        match kind {
            LineKind::Fault => &mut self.faults,
            LineKind::LostOutput => &mut self.lost_outputs,
        }
    }

    #[inline]
    fn has_rest(&self) -> bool {
        self.printer.has_rest() || self.faults.suppressed > 0 || self.lost_outputs.suppressed > 0
    }

    #[cold]
    fn end_event(&mut self, now: Instant) {
        self.printer.end_event(&self.room, now);
        for kind in [LineKind::Fault, LineKind::LostOutput] {
            let suppressed = self.limiter(kind).take_due(now);
            self.note(kind, suppressed);
        }
    }

    #[cold]
    fn end(&mut self) {
        self.printer.end(&self.room);
        for kind in [LineKind::Fault, LineKind::LostOutput] {
            let suppressed = mem::take(&mut self.limiter(kind).suppressed);
            self.note(kind, suppressed);
        }
    }

    /// Logs how many lines were not, if there were any.
    fn note(&self, kind: LineKind, suppressed: u64) {
        if suppressed > 0 {
            let what = match kind {
                LineKind::Fault => "faults",
                LineKind::LostOutput => "lost outputs",
            };
            log::warn!(
                "room {:?}: {suppressed} more {what} were not logged",
                Escaped::new(&self.room)
            );
        }
    }
}

/// A room may be dropped in the middle of an event.
impl Drop for Entries {
    fn drop(&mut self) {
        self.end();
    }
}

impl LineLimiter {
    fn permit(&mut self, now: Instant) -> Option<LogPermit> {
        self.last_at = now;
        if !self.try_consume(now) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        let suppressed = mem::take(&mut self.suppressed);
        Some(LogPermit { suppressed })
    }

    /// How many lines were not logged, if it is not the next line that will say so. This takes nothing
    /// from the bucket, so that a room which still fails now and then has lines that say why.
    fn take_due(&mut self, now: Instant) -> u64 {
        if now < self.last_at + LINE_INTERVAL {
            return 0;
        }
        mem::take(&mut self.suppressed)
    }

    fn try_consume(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + LINE_INTERVAL;
        let has_line = full_at <= now + LINE_INTERVAL * LINE_BURST;
        if has_line {
            self.full_at = full_at;
        }
        has_line
    }
}

impl fmt::Display for LogPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suppressed {
            0 => Ok(()),
            more => write!(f, " (and {more} more like it)"),
        }
    }
}
