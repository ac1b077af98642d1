//! How messages are shown: as a script writes them, so that what a test shows can be copied into one.

use crate::printed::Printed;
use similar::TextDiff;
use stateroom_wasmi_host::{Escaped, Instant, MessagePayload};
use std::{fmt, time::Duration};

/// A payload in the notation of scripts: `"text"`, `'text with "quotes"'` or `0x00ff`.
pub(crate) struct Literal<'a>(pub(crate) MessagePayload<'a>);

impl Literal<'_> {
    /// The beginning of a long one, for people to read.
    pub(crate) fn shortened(self) -> String {
        const SHOWN: usize = 400;
        let payload = self.0;
        if payload.len() <= SHOWN {
            return self.to_string();
        }
        let literal = match payload {
            MessagePayload::Text(text) => {
                let head: String = text.chars().take(SHOWN / 4).collect();
                Literal(MessagePayload::Text(&head)).to_string()
            }
            MessagePayload::Bytes(bytes) => Literal(bytes[..SHOWN / 4].into()).to_string(),
        };
        format!("{literal}… ({} bytes)", payload.len())
    }
}

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MessagePayload::Text(text) => write_text(text, f),
            MessagePayload::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// A time in the notation of scripts, such as `1.5 s`.
pub(crate) struct Time(pub(crate) Instant);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (per_unit, digits, unit) = match nanos {
            ..1_000_000_000 => (1_000_000, 6, "ms"),
            _ => (1_000_000_000, 9, "s"),
        };
        let (whole, rest) = (nanos / per_unit, nanos % per_unit);
        if rest == 0 {
            return write!(f, "{whole} {unit}");
        }
        let fraction = format!("{rest:0digits$}");
        write!(f, "{whole}.{} {unit}", fraction.trim_end_matches('0'))
    }
}

/// Text in double quotes; in single ones if that saves escapes, as in JSON.
fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let needs_escapes = text.contains(['"', '\\']);
    let can_be_raw = !text.contains('\'') && Escaped::new(text).to_string() == text;
    if needs_escapes && can_be_raw {
        write!(f, "'{text}'")
    } else {
        write!(f, "{:?}", Escaped::new(text))
    }
}

/// What was expected and what was received instead, one under the other.
pub(crate) fn write_difference(
    out: &mut impl fmt::Write,
    expected: MessagePayload<'_>,
    received: MessagePayload<'_>,
) -> fmt::Result {
    if let (MessagePayload::Text(expected), MessagePayload::Text(received)) = (expected, received)
        && [expected, received].iter().any(|text| text.contains('\n'))
    {
        writeln!(out, "- expected\n+ received")?;
        return write_line_diff(out, expected, received);
    }
    let (expected, received) = (Literal(expected).to_string(), Literal(received).to_string());
    let same = expected
        .chars()
        .zip(received.chars())
        .take_while(|(a, b)| a == b)
        .count();
    /// Characters that are shown before and after the first difference.
    const BEFORE: usize = 60;
    const AFTER: usize = 140;
    let from = same.saturating_sub(BEFORE);
    let dots = if from > 0 { "…" } else { "" };
    for (heading, text) in [("expected", &expected), ("received", &received)] {
        let shown = text.chars().skip(from).take(BEFORE + AFTER);
        let end = if text.chars().count() > from + BEFORE + AFTER {
            "…"
        } else {
            ""
        };
        writeln!(out, "{heading} {dots}{}{end}", shown.collect::<String>())?;
    }
    let column = "expected ".len() + dots.chars().count() + same - from;
    write!(out, "{:column$}^ the first difference", "")
}

/// A unified diff of two texts, without context beyond three lines, and of bounded length.
pub(crate) fn write_line_diff(out: &mut impl fmt::Write, old: &str, new: &str) -> fmt::Result {
    /// What a pathological diff may take; then it is a coarser one.
    const TIMEOUT: Duration = Duration::from_secs(1);
    const LINES: usize = 200;
    const LINE_CHARS: usize = 400;
    let diff = TextDiff::configure().timeout(TIMEOUT).diff_lines(old, new);
    let mut lines_left = LINES;
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        write!(out, "{}", hunk.header())?;
        for change in hunk.iter_changes() {
            if lines_left == 0 {
                return write!(out, "\n… (the diff is longer)");
            }
            lines_left -= 1;
            let line = change.value().trim_end_matches(['\n', '\r']);
            let line = Escaped::new(line).at_most(LINE_CHARS);
            write!(out, "\n{}{line}", change.tag())?;
        }
        out.write_char('\n')?;
    }
    Ok(())
}

/// The last lines that a room printed, if there are any.
pub(crate) fn write_printed(out: &mut impl fmt::Write, printed: &Printed) -> fmt::Result {
    const SHOWN: usize = 40;
    let lines = printed.lines();
    if lines.len() == 0 {
        return Ok(());
    }
    write!(out, "\nthe room printed:")?;
    let hidden = lines.len().saturating_sub(SHOWN);
    if hidden > 0 {
        write!(out, "\n  … ({hidden} lines before)")?;
    }
    lines
        .skip(hidden)
        .try_for_each(|line| write!(out, "\n  {line}"))
}
