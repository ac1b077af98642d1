//! A guest's standard output and standard error, line by line to the log.

use super::room_log::RoomLog;
use crate::{escape::Escaped, limits::Limits, time::Instant};
use alloc::sync::Arc;
use core::{
    fmt::{self, Write},
    mem,
    time::Duration,
};
use log::Level;

/// Where a guest prints to.
pub(crate) struct Stdio {
    /// The room's id, which stands before each line.
    room: Arc<str>,
    limits: PrintLimits,
    pub(super) log: RoomLog,
}

#[derive(Clone, Copy)]
pub(super) struct PrintLimits {
    bytes_per_event: usize,
    bytes_per_second: usize,
}

/// Bytes that each line counts, for what stands before its text.
const LINE_BYTES: usize = 64;

/// Time between two notes that something was dropped.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket, and the line that is not ended yet. A line of the other stream ends it: so there
/// is one for both, and what is printed first is logged first.
pub(super) struct Printer {
    limits: PrintLimits,
    level: Level,
    /// A longer line is logged in pieces.
    line: heapless::Vec<u8, 256>,
    /// Bytes that may be logged before time passes.
    allowance: usize,
    refilled_at: Instant,
    /// Bytes that were dropped since the last note.
    dropped: usize,
    noted_at: Option<Instant>,
}

impl From<&Limits> for PrintLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            bytes_per_event: limits.max_log_bytes_per_event,
            bytes_per_second: limits.max_log_bytes_per_second,
        }
    }
}

impl Stdio {
    pub(crate) fn new(room: &Arc<str>, limits: &Limits) -> Self {
        Self {
            room: room.clone(),
            limits: limits.into(),
            log: RoomLog::new(),
        }
    }

    /// Prints to a stream, 1 or 2. Whole lines are logged, as far as the limits allow.
    pub(super) fn write(&mut self, now: Instant, fd: u32, bytes: &[u8]) {
        let level = if fd == 1 { Level::Info } else { Level::Warn };
        if !log::log_enabled!(target: TARGET, level) {
            return;
        }
        let Self { room, limits, log } = self;
        log.printer(room, *limits, now)
            .write(room, now, level, bytes);
    }
}

/// The target of the lines of guests in the log.
const TARGET: &str = "guest";

impl Printer {
    pub(super) fn new(limits: PrintLimits, now: Instant) -> Self {
        Self {
            limits,
            level: Level::Info,
            line: heapless::Vec::new(),
            allowance: limits.bytes_per_event,
            refilled_at: now,
            dropped: 0,
            noted_at: None,
        }
    }

    fn write(&mut self, room: &str, now: Instant, level: Level, bytes: &[u8]) {
        if self.level != level {
            self.end_line(room);
            self.level = level;
        }
        self.refill(now);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', text)) => {
                    self.append(room, text);
                    self.log_line(room, self.line.len());
                }
                _ => self.append(room, piece),
            }
        }
    }

    /// Whether [`end_event`](Self::end_event) may have something to log.
    #[inline]
    pub(super) fn has_rest(&self) -> bool {
        !self.line.is_empty() || self.dropped > 0
    }

    /// Logs the line that is not ended yet, and how much was dropped if the last note is long ago.
    /// Called when an event has ended, well or not: what follows may be long in coming, and a panic's
    /// message may have no end.
    pub(super) fn end_event(&mut self, room: &str, now: Instant) {
        self.end_line(room);
        if self.dropped > 0 && self.noted_at.is_none_or(|at| now >= at + NOTE_INTERVAL) {
            self.noted_at = Some(now);
            self.note(room);
        }
    }

    /// Logs what there is, since nothing follows.
    pub(super) fn end(&mut self, room: &str) {
        self.end_line(room);
        self.note(room);
    }

    /// Adds what may be logged since the last refill: whole bytes, whose time counts no more.
    fn refill(&mut self, now: Instant) {
        const SECOND: u64 = 1_000_000;
        let PrintLimits {
            bytes_per_event,
            bytes_per_second,
        } = self.limits;
        let rate = bytes_per_second as u64;
        let from = self.refilled_at.as_micros();
        let elapsed = now.as_micros().saturating_sub(from);
        let bytes = elapsed.saturating_mul(rate) / SECOND;
        if bytes > 0 {
            self.refilled_at = Instant::from_micros(from + (bytes * SECOND).div_ceil(rate));
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let allowance = self.allowance.saturating_add(bytes);
            self.allowance = allowance.min(bytes_per_event);
        }
    }

    /// Appends to the line; logs the pieces of one that is too long.
    fn append(&mut self, room: &str, mut text: &[u8]) {
        while !text.is_empty() {
            if self.line.is_full() {
                self.log_line(room, whole_chars(&self.line));
            }
            let space = self.line.capacity() - self.line.len();
            let (head, tail) = text.split_at(text.len().min(space));
            // It fits, as it was cut so.
            let _ = self.line.extend_from_slice(head);
            text = tail;
        }
    }

    /// Logs the line if there is one.
    fn end_line(&mut self, room: &str) {
        if !self.line.is_empty() {
            self.log_line(room, self.line.len());
        }
    }

    /// Logs the first `len` bytes of the line, or drops them if they exceed what is allowed; the rest
    /// stays.
    fn log_line(&mut self, room: &str, len: usize) {
        let (line, rest) = self.line.split_at(len);
        let text = Escaped::new(Lossy(line));
        let cost = LINE_BYTES + displayed_len(&text);
        if let Some(allowance) = self.allowance.checked_sub(cost) {
            self.allowance = allowance;
            log::log!(target: TARGET, self.level, "room {:?}: {text}", Escaped::new(room));
        } else {
            self.dropped = self.dropped.saturating_add(len);
        }
        // No more than there was.
        self.line = heapless::Vec::from_slice(rest).unwrap_or_default();
    }

    /// Logs how much was dropped, if anything was.
    #[cold]
    fn note(&mut self, room: &str) {
        if self.dropped == 0 {
            return;
        }
        log::warn!(
            target: TARGET,
            "room {:?}: {} bytes that it printed were dropped; its limits are {} bytes an event and {} \
             a second",
            Escaped::new(room),
            mem::take(&mut self.dropped),
            self.limits.bytes_per_event,
            self.limits.bytes_per_second
        );
    }
}

/// Bytes as text; those that are not UTF-8 as `\xff`.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            let mut invalid = chunk.invalid().iter();
            invalid.try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

/// The length without a character that is cut off at the end.
fn whole_chars(bytes: &[u8]) -> usize {
    const MAX_CHAR_BYTES: usize = 4;
    let tail = bytes.iter().rev().take(MAX_CHAR_BYTES);
    // The first byte of the last character, and how far it is from the end.
    let first = (1..).zip(tail).find(|(_, byte)| **byte & 0xc0 != 0x80);
    match first {
        Some((len, 0xc0..=0xdf)) if len < 2 => bytes.len() - len,
        Some((len, 0xe0..=0xef)) if len < 3 => bytes.len() - len,
        Some((len, 0xf0..)) if len < 4 => bytes.len() - len,
        _ => bytes.len(),
    }
}

/// How long something is when it is displayed, in bytes.
fn displayed_len(text: &impl fmt::Display) -> usize {
    struct Length(usize);
    impl fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut length = Length(0);
    // Cannot fail.
    let _ = write!(length, "{text}");
    length.0
}
