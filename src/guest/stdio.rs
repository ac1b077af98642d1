//! A guest's standard output and standard error, line by line to the log.

use alloc::boxed::Box;

/// The lines that a guest has not ended yet.
#[derive(Default)]
pub(super) struct LineBuffer {
    /// Standard output and standard error; allocated when something is printed.
    lines: Option<Box<[Line; 2]>>,
}

/// A longer line is logged in pieces.
type Line = heapless::Vec<u8, 256>;

impl LineBuffer {
    pub(super) fn write(&mut self, fd: u32, mut bytes: &[u8]) {
        if !cfg!(feature = "log") {
            return;
        }
        let lines = self.lines.get_or_insert_default();
        let line = &mut lines[if fd == 1 { 0 } else { 1 }];
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            if byte != b'\n' {
                // Never full here: full lines are logged and cleared below.
                let _ = line.push(byte);
            }
            if byte == b'\n' || line.is_full() {
                log_line(fd, line);
                line.clear();
            }
        }
    }
}

/// Escapes control characters, so that a guest cannot control an operator's terminal.
#[cfg_attr(
    not(feature = "log"),
    expect(unused_variables, reason = "there is nowhere to log to")
)]
fn log_line(fd: u32, line: &[u8]) {
    #[cfg(feature = "log")]
    {
        let level = if fd == 1 {
            log::Level::Info
        } else {
            log::Level::Warn
        };
        log::log!(target: "guest", level, "{}", line.escape_ascii());
    }
}
