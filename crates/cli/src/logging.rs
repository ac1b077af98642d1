//! The log, on standard error, which nothing waits for.
//!
//! Whatever reads standard error may pause: a pager, a terminal, a supervisor that hangs. A worker that
//! waited for it would stop all of its rooms. So lines go into a bounded queue, which a thread of its
//! own writes. What does not fit is lost; a line says how many lines were.

use anstream::{AutoStream, ColorChoice};
use env_logger::{Env, Target};
use stateroom_wasmi_host::Escaped;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env, fmt,
    io::{self, Write},
    mem, panic,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes of lines that wait to be written; as many more may be in the middle of it. So the log takes at
/// most 1 MiB, about as much as one room, and has space for some thousand lines while its reader pauses.
const MAX_QUEUED_BYTES: usize = 512 << 10;

/// How long the end of the process waits for what is queued.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// The log. When it is dropped, what is queued is written, as far as that takes no longer than
/// [`EXIT_TIMEOUT`].
pub(crate) struct Logging(Arc<LogQueue>);

/// How lines are written.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// A JSON object in each line, with time, level, target and message
    Json,
}

/// A line in JSON.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    time: String,
    level: &'a str,
    target: &'a str,
    message: String,
}

impl<'a> JsonLine<'a> {
    /// A line of now.
    fn new(level: log::Level, target: &'a str, message: impl fmt::Display) -> Self {
        Self {
            time: format!("{:.3}", jiff::Timestamp::now()),
            level: level.as_str(),
            target,
            message: Escaped::new(message).to_string(),
        }
    }
}

impl fmt::Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The target of lines of the log itself, and of the end of the process.
const TARGET: &str = env!("CARGO_CRATE_NAME");

/// Logs to standard error, as `RUST_LOG` and `RUST_LOG_STYLE` say. Each line is escaped, also those of
/// dependencies, which may quote what a client sent.
///
/// # Errors
///
/// If there is no thread for it.
pub(crate) fn start() -> io::Result<Logging> {
    let queue = Arc::new(LogQueue::default());
    let colors = color_choice();
    start_writer(queue.clone(), colors)?;
    log_panics(queue.clone());
    let json = queue.json.clone();
    env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .target(Target::Pipe(Box::new(QueueWriter(queue.clone()))))
        .write_style(colors.into())
        .format(move |out, record| {
            if json.load(Ordering::Relaxed) {
                let line = JsonLine::new(record.level(), record.target(), record.args());
                return writeln!(out, "{line}");
            }
            let (time, level) = (out.timestamp(), record.level());
            let style = out.default_level_style(level);
            let text = Escaped::new(record.args());
            writeln!(out, "[{time} {style}{level:<5}{style:#}] {text}")
        })
        .init();
    Ok(Logging(queue))
}

impl Logging {
    /// Sets how lines are written from now on.
    #[cfg(feature = "serve")]
    pub(crate) fn set_format(&self, format: LogFormat) {
        let is_json = format == LogFormat::Json;
        self.0.json.store(is_json, Ordering::Relaxed);
    }

    /// How many lines were lost.
    #[cfg(feature = "serve")]
    pub(crate) fn lines_lost(&self) -> Arc<AtomicU64> {
        self.0.lines_lost.clone()
    }

    /// Prints what ends the process, even if the queue is full.
    pub(crate) fn print_error(&self, error: impl fmt::Display) {
        let line = match self.0.is_json() {
            true => format!("{}\n", JsonLine::new(log::Level::Error, TARGET, error)),
            false => format!("error: {error}\n"),
        };
        self.0.lock().append(line.as_bytes());
        self.0.has_lines.notify_one();
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let state = self.0.lock();
        let is_busy = |state: &mut QueueState| state.is_writing || !state.is_empty();
        // Fails if another thread panicked: then there is nothing to wait for, either.
        let _ = self
            .0
            .is_written
            .wait_timeout_while(state, EXIT_TIMEOUT, is_busy);
    }
}

/// Whether standard error shows colours; what `RUST_LOG_STYLE` says counts first.
fn color_choice() -> ColorChoice {
    match env::var(env_logger::DEFAULT_WRITE_STYLE_ENV).as_deref() {
        Ok("always") => ColorChoice::Always,
        Ok("never") => ColorChoice::Never,
        _ => AutoStream::choice(&io::stderr()),
    }
}

fn start_writer(queue: Arc<LogQueue>, colors: ColorChoice) -> io::Result<()> {
    let mut out = match colors {
        // There are none to strip.
        ColorChoice::Never => AutoStream::always_ansi(io::stderr()),
        colors => AutoStream::new(io::stderr(), colors),
    };
    let write = move || loop {
        let unwritten = queue.next_batch().write(&mut out);
        queue.on_written(&unwritten);
    };
    thread::Builder::new().name("log".into()).spawn(write)?;
    Ok(())
}

/// The standard library's own report waits for standard error, too.
fn log_panics(queue: Arc<LogQueue>) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let is_json = queue.is_json();
        let push = |text: &str| {
            let line = match is_json {
                true => format!("{}\n", JsonLine::new(log::Level::Error, TARGET, text)),
                false => format!("{}\n", Escaped::new(text)),
            };
            queue.push(line.as_bytes());
        };
        push(&format!("thread `{name}` {panic}"));
        // Disabled unless `RUST_BACKTRACE` is set.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(push);
        }
    }));
}

/// Lines on their way to standard error.
#[derive(Default)]
struct LogQueue {
    state: Mutex<QueueState>,
    has_lines: Condvar,
    is_written: Condvar,
    /// In all.
    lines_lost: Arc<AtomicU64>,
    /// Whether lines are JSON.
    json: Arc<AtomicBool>,
}

#[derive(Default)]
struct QueueState {
    lines: Vec<u8>,
    /// Lines that were lost before these: standard error did not take them.
    lost_before: u64,
    /// Lines that were lost after these: they did not fit.
    lost_after: u64,
    is_writing: bool,
}

/// What is written at once, in this order.
struct Batch {
    lost_before: u64,
    lines: Vec<u8>,
    lost_after: u64,
    is_json: bool,
}

impl LogQueue {
    fn is_json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line if it fits.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        // No line overtakes one that is lost, whose number is written after all that wait.
        if state.lost_after > 0 || state.lines.len() + line.len() > MAX_QUEUED_BYTES {
            state.lost_after += 1;
            self.lines_lost.fetch_add(1, Ordering::Relaxed);
        } else {
            state.append(line);
        }
        drop(state);
        self.has_lines.notify_one();
    }

    /// Waits for something to write, and takes all of it.
    fn next_batch(&self) -> Batch {
        let state = self
            .has_lines
            .wait_while(self.lock(), |state| state.is_empty());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        Batch {
            lost_before: mem::take(&mut state.lost_before),
            lines: mem::take(&mut state.lines),
            lost_after: mem::take(&mut state.lost_after),
            is_json: self.is_json(),
        }
    }

    fn on_written(&self, unwritten: &Unwritten) {
        let lines = unwritten.lines;
        self.lines_lost.fetch_add(lines, Ordering::Relaxed);
        let mut state = self.lock();
        state.is_writing = false;
        state.lost_before += unwritten.untold();
        drop(state);
        self.is_written.notify_all();
    }
}

impl QueueState {
    /// Whether there is nothing to write. What was lost before is written with the next line: standard
    /// error may be closed for good.
    const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost_after == 0
    }

    fn append(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
    }
}

/// What of a batch was not written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unwritten {
    /// Lines of the batch.
    lines: u64,
    /// Lines that were lost before or after those, which was not written either.
    lost: u64,
}

impl Unwritten {
    /// Lines of which is yet to be told that they are lost.
    const fn untold(&self) -> u64 {
        self.lines + self.lost
    }
}

impl Batch {
    fn write(&self, out: &mut impl Write) -> Unwritten {
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if !write_lost(out, self.lost_before, self.is_json) {
            return Unwritten {
                lines: lines(&self.lines),
                lost: self.lost_before + self.lost_after,
            };
        }
        let rest = write_all(out, &self.lines);
        let lost = match rest.is_empty() && write_lost(out, self.lost_after, self.is_json) {
            true => 0,
            false => self.lost_after,
        };
        let lines = lines(rest);
        Unwritten { lines, lost }
    }
}

/// Writes how many lines were lost, if there are any; returns whether that was written.
fn write_lost(out: &mut impl Write, lost: u64, is_json: bool) -> bool {
    if lost == 0 {
        return true;
    }
    let text = format!("{lost} lines of the log were lost: standard error did not take them");
    let line = match is_json {
        true => format!("{}\n", JsonLine::new(log::Level::Warn, TARGET, text)),
        false => format!("{text}\n"),
    };
    write_all(out, line.as_bytes()).is_empty()
}

/// Writes as much as possible, and returns the rest.
fn write_all<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    /// Between two attempts to write to a pipe or a terminal that another process has made non-blocking.
    const RETRY_INTERVAL: Duration = Duration::from_millis(10);
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => break,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(RETRY_INTERVAL);
            }
            Err(_) => break,
        }
    }
    bytes
}

/// Takes one line at each call, as the logger writes them.
struct QueueWriter(Arc<LogQueue>);

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a number of bytes, some at each call; then fails.
    struct Full {
        taken: Vec<u8>,
        space: usize,
        error: io::ErrorKind,
    }

    impl Full {
        fn new(space: usize, error: io::ErrorKind) -> Self {
            let taken = Vec::new();
            Self {
                taken,
                space,
                error,
            }
        }
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.space).min(3);
            if len == 0 {
                // There is space for the next attempt.
                self.space = usize::MAX;
                return Err(self.error.into());
            }
            self.space -= len;
            self.taken.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(lost_before: u64, lines: &str, lost_after: u64) -> Batch {
        let lines = lines.into();
        Batch {
            lost_before,
            lines,
            lost_after,
            is_json: false,
        }
    }

    /// The level and the message of each line.
    fn read_json(lines: &[u8]) -> Vec<(String, String)> {
        let lines = String::from_utf8_lossy(lines);
        let read = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(
                line["time"]
                    .as_str()
                    .is_some_and(|time| time.ends_with('Z'))
            );
            assert_eq!(line["target"], TARGET);
            let text = |key| line[key].as_str().expect("a text").to_owned();
            (text("level"), text("message"))
        };
        lines.lines().map(read).collect()
    }

    #[test]
    fn panics_lost_lines_and_the_last_error_are_json_too() {
        let queue = Arc::new(LogQueue::default());
        queue.json.store(true, Ordering::Relaxed);
        log_panics(queue.clone());
        let panicking = thread::Builder::new().name("worker".into());
        let panicking = panicking.spawn(|| panic!("one\ntwo"));
        assert!(panicking.expect("it starts").join().is_err());
        drop(panic::take_hook());
        let panic = &read_json(&queue.next_batch().lines)[0];
        assert_eq!(panic.0, "ERROR");
        assert!(
            panic.1.starts_with("thread `worker` panicked at "),
            "{panic:?}"
        );
        assert!(panic.1.ends_with("one\\ntwo"), "{panic:?}");

        let logging = Logging(queue);
        logging.print_error("no \u{1b}[2Jmodule");
        let mut batch = logging.0.next_batch();
        let mut out = Vec::new();
        batch.lost_before = 3;
        batch.write(&mut out);
        let lost = "3 lines of the log were lost: standard error did not take them";
        let expected = [("WARN", lost), ("ERROR", "no \\x1b[2Jmodule")];
        let expected = expected.map(|(level, text)| (level.into(), text.into()));
        assert_eq!(read_json(&out), expected);
        logging.0.on_written(&Unwritten::default());
    }

    #[test]
    fn lines_that_standard_error_does_not_take_are_counted() {
        const LOST: &str = "7 lines of the log were lost: standard error did not take them\n";
        let lines = "one\ntwo\nthree\n";
        for (space, lost) in [
            (0, 7 + 3 + 5),
            (LOST.len() - 1, 7 + 3 + 5),
            (LOST.len(), 3 + 5),
            (LOST.len() + 3, 3 + 5),
            (LOST.len() + 4, 2 + 5),
            (LOST.len() + lines.len(), 5),
            (LOST.len() + lines.len() + 10, 5),
        ] {
            // Such as a file on a disk that is full.
            let mut out = Full::new(space, io::ErrorKind::StorageFull);
            assert_eq!(batch(7, lines, 5).write(&mut out).untold(), lost, "{space}");
        }
        let mut out = Vec::new();
        assert_eq!(batch(7, lines, 0).write(&mut out), Unwritten::default());
        assert_eq!(String::from_utf8(out).unwrap(), format!("{LOST}{lines}"));
    }

    #[test]
    fn lines_that_were_not_written_are_told_with_the_next_line_and_not_before() {
        let queue = LogQueue::default();
        queue.push(b"one\n");
        drop(queue.next_batch());
        queue.on_written(&Unwritten { lines: 1, lost: 0 });
        // Or else the writer would try again and again.
        assert!(queue.lock().is_empty());
        queue.push(b"two\n");
        let batch = queue.next_batch();
        let told = (batch.lost_before, &*batch.lines, batch.lost_after);
        assert_eq!(told, (1, &b"two\n"[..], 0));
    }

    #[test]
    fn nothing_is_lost_to_a_pipe_that_does_not_block() {
        for error in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
            let mut out = Full::new(5, error);
            let unwritten = batch(0, "one\ntwo\nthree\n", 0).write(&mut out);
            assert_eq!(unwritten, Unwritten::default());
            assert_eq!(out.taken, b"one\ntwo\nthree\n");
        }
    }

    #[test]
    fn a_line_after_one_that_is_lost_does_not_overtake_it() {
        let queue = LogQueue::default();
        queue.push(&[b'x'; MAX_QUEUED_BYTES - 1]);
        queue.push(b"long\n");
        queue.push(b"\n");
        let batch = queue.next_batch();
        assert_eq!(batch.lines.len(), MAX_QUEUED_BYTES - 1);
        assert_eq!((batch.lost_before, batch.lost_after), (0, 2));
        queue.push(b"next\n");
        assert_eq!(queue.next_batch().lines, b"next\n");
    }
}
