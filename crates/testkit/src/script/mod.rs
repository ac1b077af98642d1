//! Scripts: what clients do and what they are to receive, as text.

mod compare;
mod line;
mod outcome;
mod parse;
mod rewrite;
mod run;

pub use self::outcome::Outcome;

use self::line::{Line, Settings};
use crate::options::TestOptions;
use stateroom_wasmi_host::Escaped;
use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of a script, and of one that was rewritten.
const MAX_BYTES: usize = 1 << 20;

/// A script: what clients do at which time, and what each of them is to receive for it.
///
/// ```
/// use stateroom_wasmi_testkit::{Script, TestOptions};
///
/// let script = Script::parse("echo.test", "
/// connect 1
/// 1 > \"hello\"
///   1 < \"hallo\"
/// ")?;
/// let wasm = include_bytes!("../../../../examples/rooms/wasm/echo-c.wasm");
/// let outcome = script.run(wasm, &TestOptions::new());
/// assert!(!outcome.is_ok());
/// assert_eq!(outcome.script(), "
/// connect 1
/// 1 > \"hello\"
///   1 < \"hello\"
/// ");
/// # Ok::<(), stateroom_wasmi_testkit::ScriptError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Script {
    name: String,
    text: String,
    lines: Vec<Line>,
    settings: Settings,
}

impl Script {
    /// Parses a script. Its name, usually the path of its file, is for messages.
    ///
    /// # Errors
    ///
    /// If a line is none of a script, or the script is longer than 1 MiB.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        parse::parse(text)
            .map(|(lines, settings)| Self {
                name: name.to_owned(),
                text: text.to_owned(),
                lines,
                settings,
            })
            .map_err(|error| error.of(name))
    }

    /// Reads a script from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or as [`Script::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ScriptError> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        match read(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(ScriptError::new(0, format!("cannot read it: {error}")).of(&name)),
        }
    }

    /// Opens a room of a module (the contents of a `.wasm` file) and plays the script with it. What the
    /// script sets itself (room, seed, fault policy, fuel) takes precedence over the options.
    #[must_use]
    pub fn run(&self, wasm: &[u8], options: &TestOptions) -> Outcome {
        run::run(self, wasm, None, options)
    }

    /// As [`run`](Self::run), but at a line `upgrade` the room goes on with the module `next` instead of the
    /// same.
    #[must_use]
    pub fn run_upgrade(&self, wasm: &[u8], next: &[u8], options: &TestOptions) -> Outcome {
        run::run(self, wasm, Some(next), options)
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Plays the script of a file with a room of a module, under the default options: for `cargo test`, which
/// runs in the folder of the package.
///
/// ```no_run
/// # let wasm = [];
/// stateroom_wasmi_testkit::assert_script("tests/chat.test", &wasm);
/// ```
///
/// # Panics
///
/// If the script is not valid, or the room does something else than it says. The message is the difference.
#[track_caller]
pub fn assert_script(path: impl AsRef<Path>, wasm: &[u8]) {
    let script = Script::read(path).unwrap_or_else(|error| panic!("{error}"));
    let outcome = script.run(wasm, &TestOptions::new());
    assert!(outcome.is_ok(), "{outcome}");
}

/// What is wrong with a script, or keeps it from being played to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    name: String,
    line: usize,
    message: String,
}

impl ScriptError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            line,
            message: message.into(),
        }
    }

    fn of(self, name: &str) -> Self {
        let name = name.to_owned();
        Self { name, ..self }
    }

    /// The line, counted from 1; none if it is about the script or its module as a whole.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self.line {
            0 => None,
            line => Some(line),
        }
    }
}

impl fmt::Display for ScriptError {
    /// `name:line: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped::new(&self.name))?;
        if let Some(line) = self.line() {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Error for ScriptError {}

/// Reads a file, but not one without an end.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        // A text that was cut within a character is too long, which is found next.
        let error = error.utf8_error();
        let before = error.valid_up_to();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not UTF-8 after {before} bytes"),
        )
    })
}
