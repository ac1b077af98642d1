//! Text from outside, on its way to a terminal or a log.

use core::fmt::{self, Write};

/// Displays text of a guest, a client, a file or a peer so that it cannot control a terminal, nor
/// forge, hide or reverse a part of a line.
///
/// Control characters, separators of lines, and characters that are invisible or turn the direction
/// of writing are shown as `\n`, `\x1b` or `\u{202e}`; all others stay as they are, so that readable
/// text stays readable. A backslash stays, too: what is displayed cannot be turned back.
///
/// With `{:?}` it is in quotes, and quotes and backslashes in it are escaped: for names and ids, whose
/// ends cannot be forged then.
///
/// ```
/// use stateroom_wasmi_host::Escaped;
///
/// assert_eq!(Escaped::new("größer\x1b[2J").to_string(), r"größer\x1b[2J");
/// assert_eq!(format!("{:?}", Escaped::new("a\" b")), r#""a\" b""#);
/// assert_eq!(Escaped::new("a long name").at_most(6).to_string(), "a long…");
/// ```
#[derive(Clone, Copy)]
pub struct Escaped<T> {
    text: T,
    max_chars: usize,
    keeps_lines: bool,
}

impl<T: fmt::Display> Escaped<T> {
    /// Escapes all of what `text` displays.
    pub const fn new(text: T) -> Self {
        Self {
            text,
            max_chars: usize::MAX,
            keeps_lines: false,
        }
    }

    /// Cuts off what is longer, and shows that by `…`.
    #[must_use]
    pub fn at_most(mut self, chars: usize) -> Self {
        self.max_chars = chars;
        self
    }

    /// Keeps the ends of lines, for a message whose layout has several.
    #[must_use]
    pub fn keep_lines(mut self) -> Self {
        self.keeps_lines = true;
        self
    }

    fn write(&self, out: &mut fmt::Formatter<'_>, is_quoted: bool) -> fmt::Result {
        let mut escaper = Escaper {
            out,
            chars_left: self.max_chars,
            is_cut: false,
            keeps_lines: self.keeps_lines,
            is_quoted,
        };
        let written = write!(escaper, "{}", self.text);
        if escaper.is_cut {
            escaper.out.write_char('…')
        } else {
            written
        }
    }
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl<T: fmt::Display> fmt::Debug for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, true)?;
        f.write_char('"')
    }
}

struct Escaper<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    chars_left: usize,
    /// Set when there are more characters; then writing fails, so that no more are formatted.
    is_cut: bool,
    keeps_lines: bool,
    is_quoted: bool,
}

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The characters from here on are yet to be written, as they are.
        let mut unwritten = 0;
        for (at, c) in text.char_indices() {
            if self.chars_left == 0 {
                self.is_cut = true;
                self.out.write_str(&text[unwritten..at])?;
                return Err(fmt::Error);
            }
            self.chars_left -= 1;
            if self.must_escape(c) {
                self.out.write_str(&text[unwritten..at])?;
                unwritten = at + c.len_utf8();
                write_escaped(self.out, c)?;
            }
        }
        self.out.write_str(&text[unwritten..])
    }
}

impl Escaper<'_, '_> {
    const fn must_escape(&self, c: char) -> bool {
        match c {
            '\n' => !self.keeps_lines,
            '"' | '\\' => self.is_quoted,
            _ => is_hidden(c),
        }
    }
}

/// No longer than four bytes for each byte of the character.
fn write_escaped(out: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '"' | '\\' => write!(out, "\\{c}"),
        ..='\x7f' => write!(out, "\\x{:02x}", u32::from(c)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
    }
}

/// Whether a character controls a terminal, ends a line, turns the direction of writing, or is
/// invisible: Unicode's categories Cc, Zl and Zp, and what has the properties `Bidi_Control` or
/// `Default_Ignorable_Code_Point`, but for the selectors of variants, which emoji are full of.
///
/// Not by the tables of the standard library: they are larger, and change with its version.
const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}
