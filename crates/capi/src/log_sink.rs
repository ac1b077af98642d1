//! Log lines on their way to the callback of their host.
//!
//! The `log` facade has one logger for the whole process. This one gives each line to the host whose
//! function is running: on this thread, or without `std`, at all.

use crate::{
    failure::{Failure, unknown_value},
    host::stateroom_host_options,
    log_line::{stateroom_log_level, stateroom_log_line},
};
use alloc::string::ToString;
use core::ffi::c_void;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Where the lines of a host go.
#[derive(Clone, Copy)]
pub(crate) struct LogSink {
    log: Option<unsafe extern "C-unwind" fn(user: *mut c_void, line: *const stateroom_log_line)>,
    user: *mut c_void,
    max_level: i32,
}

// SAFETY: as for `Callbacks`: the pointer is the program's, given back to its function.
unsafe impl Send for LogSink {}

impl LogSink {
    pub(crate) fn new(options: &stateroom_host_options) -> Result<Self, Failure> {
        let max_level = match options.max_log_level {
            0 => stateroom_log_level::Info as i32,
            level @ 1..=5 => level,
            level => return Err(unknown_value("max_log_level", level)),
        };
        if options.log.is_some() {
            install();
        }
        Ok(Self {
            log: options.log,
            user: options.user,
            max_level,
        })
    }

    /// Lets lines go here until the scope ends.
    pub(crate) fn enter(&self) -> Scope {
        Scope(current::replace(Some(*self)))
    }

    fn takes(&self, level: Level) -> bool {
        self.log.is_some() && level as i32 <= self.max_level
    }

    fn write(&self, record: &Record<'_>) {
        let Some(log) = self.log else {
            return;
        };
        let text = record.args().to_string();
        let line = stateroom_log_line {
            level: record.level() as i32,
            text: text.as_ptr().cast(),
            text_length: text.len(),
            target: record.target().as_ptr().cast(),
            target_length: record.target().len(),
        };
        // SAFETY: the program's promise for its callbacks; the texts live until it returns.
        unsafe { log(self.user, &raw const line) }
    }
}

/// Restores where the lines went before.
pub(crate) struct Scope(Option<LogSink>);

impl Drop for Scope {
    fn drop(&mut self) {
        current::replace(self.0);
    }
}

/// Installs the logger. If the program is in Rust and has one of its own, lines go there.
fn install() {
    static LOGGER: Dispatch = Dispatch;
    if log::set_logger(&LOGGER).is_ok() {
        // Each host has a level of its own.
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Gives each line to the sink of the host that runs.
struct Dispatch;

impl Log for Dispatch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        current::get().is_some_and(|sink| sink.takes(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(sink) = current::get().filter(|sink| sink.takes(record.level())) {
            sink.write(record);
        }
    }

    fn flush(&self) {}
}

/// The sink of the host that runs on this thread.
#[cfg(feature = "std")]
mod current {
    use super::LogSink;
    use core::cell::Cell;

    std::thread_local! {
        static SINK: Cell<Option<LogSink>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<LogSink> {
        SINK.get()
    }

    pub(super) fn replace(sink: Option<LogSink>) -> Option<LogSink> {
        SINK.replace(sink)
    }
}

/// The sink of the host that runs.
#[cfg(not(feature = "std"))]
mod current {
    use super::LogSink;
    use core::cell::Cell;

    struct OneTask(Cell<Option<LogSink>>);

    // SAFETY: without `std`, the header says that one task at a time may use the library.
    unsafe impl Sync for OneTask {}

    static SINK: OneTask = OneTask(Cell::new(None));

    pub(super) fn get() -> Option<LogSink> {
        SINK.0.get()
    }

    pub(super) fn replace(sink: Option<LogSink>) -> Option<LogSink> {
        SINK.0.replace(sink)
    }
}
