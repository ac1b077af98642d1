//! What came of a script.

use super::ScriptError;
use crate::{
    display::{write_line_diff, write_printed},
    printed::Printed,
};
use stateroom_wasmi_host::Escaped;
use std::fmt;

/// What came of a script that was played. It displays why it failed: where, as a diff between the script
/// and what it would have to be, and what the room printed.
#[derive(Debug)]
pub struct Outcome {
    pub(super) name: String,
    pub(super) expected: String,
    /// None if it is as expected.
    pub(super) happened: Option<String>,
    /// The number of the first line that differs.
    pub(super) first_line: usize,
    pub(super) error: Option<ScriptError>,
    pub(super) printed: Printed,
}

impl Outcome {
    /// Whether the script was played to its end, and all was as it says.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.happened.is_none() && self.error.is_none()
    }

    /// What kept the script from being played to its end.
    #[must_use]
    pub const fn error(&self) -> Option<&ScriptError> {
        self.error.as_ref()
    }

    /// The script with what the room has sent in place of what was expected; all else, comments included,
    /// is as it was written. The same text if the room did what it says. Behind the line of an
    /// [`error`](Self::error) nothing is changed.
    #[must_use]
    pub fn script(&self) -> &str {
        self.happened.as_ref().unwrap_or(&self.expected)
    }

    /// What the room printed, unless the program has a logger of its own; the latest thousand lines.
    pub fn printed(&self) -> impl Iterator<Item = &str> {
        self.printed.lines()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Escaped::new(&self.name);
        if self.is_ok() {
            return write!(f, "{name}: the room does what the script says");
        }
        if let Some(happened) = &self.happened {
            let line = self.first_line;
            writeln!(f, "{name}:{line}: the room does something else")?;
            writeln!(f, "--- {name}, expected")?;
            writeln!(f, "+++ what happened")?;
            write_line_diff(f, &self.expected, happened)?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
        }
        write_printed(f, &self.printed)
    }
}
