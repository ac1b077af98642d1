//! A logger that keeps the lines of each thread, that is, of each test.

use std::{cell::RefCell, sync::Once};

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub target: String,
    pub level: log::Level,
    pub text: String,
}

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what is logged from now on.
pub fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Logger).expect("there is no other logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// The lines since the last call.
pub fn take() -> Vec<Line> {
    LINES.take()
}

/// Whether a line was logged since the last call of [`take`].
pub fn is_empty() -> bool {
    LINES.with_borrow(Vec::is_empty)
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = Line {
            target: record.target().to_owned(),
            level: record.level(),
            text: record.args().to_string(),
        };
        // A room that a test leaves behind may log when the thread ends.
        let _ = LINES.try_with(|lines| lines.borrow_mut().push(line));
    }

    fn flush(&self) {}
}
