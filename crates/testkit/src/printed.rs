//! What rooms print, which the core logs.

use log::{LevelFilter, Log, Metadata, Record};
use std::{cell::RefCell, collections::VecDeque, sync::Once};

/// Lines of a room that are kept, the latest ones.
const MAX_LINES: usize = 1000;

/// The lines that a room printed.
#[derive(Debug, Default)]
pub(crate) struct Printed(VecDeque<String>);

thread_local! {
    /// What a room that runs on this thread has printed since it was called.
    static LINES: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

impl Printed {
    /// Installs the logger, unless there is one already. Returns nothing printed.
    pub(crate) fn start() -> Self {
        static START: Once = Once::new();
        START.call_once(|| {
            if log::set_logger(&Logger).is_ok() {
                // A guest's two streams have these levels.
                log::set_max_level(LevelFilter::Info);
            }
        });
        let mut printed = Self::default();
        printed.skip();
        printed
    }

    /// Drops what another room of this thread has printed.
    pub(crate) fn skip(&mut self) {
        LINES.take();
    }

    /// Adds what was printed on this thread since the last call of this or of [`skip`](Self::skip).
    pub(crate) fn collect(&mut self) {
        self.0.extend(LINES.take());
        let excess = self.0.len().saturating_sub(MAX_LINES);
        self.0.drain(..excess);
    }

    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.0.iter().map(String::as_str)
    }
}

/// Keeps what guests print, and drops all else.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "guest"
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = record.args().to_string();
        // A room that a test leaves behind may log when its thread ends.
        let _ = LINES.try_with(|lines| {
            let mut lines = lines.borrow_mut();
            if lines.len() == MAX_LINES {
                lines.pop_front();
            }
            lines.push_back(without_room(&line).to_owned());
        });
    }

    fn flush(&self) {}
}

/// The line without `room "id": ` before it. An id may contain anything, escaped as in a Rust literal.
fn without_room(line: &str) -> &str {
    let Some(id) = line.strip_prefix("room \"") else {
        return line;
    };
    let mut is_escaped = false;
    let end = id.char_indices().find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    let text = end.and_then(|(at, _)| id[at..].strip_prefix("\": "));
    text.unwrap_or(line)
}
