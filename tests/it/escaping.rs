//! Text from outside, where it is displayed: it forges nothing and stays readable, and its length is
//! bounded.

use crate::support::{assemble, guest_0_2};
use stateroom_wasmi_host::{Escaped, Limits, LoadError, Module, abi::AbiProblem};
use std::error::Error;

fn escaped(text: &str) -> String {
    Escaped::new(text).to_string()
}

fn load_error(wasm: &[u8]) -> LoadError {
    Module::load(wasm, &Limits::default()).expect_err("it cannot be loaded")
}

/// An error with its sources.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Characters that nobody sees, or that turn the direction of writing: `Bidi_Control` of Unicode's
/// PropList.txt, and the invisible ones that Trojan Source and similar attacks use.
const INVISIBLE: &str = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\
    \u{2067}\u{2068}\u{2069}\u{ad}\u{180e}\u{200b}\u{200c}\u{200d}\u{2060}\u{2061}\u{2062}\u{2063}\
    \u{2064}\u{206a}\u{206f}\u{feff}\u{fff9}\u{fffa}\u{fffb}\u{e0001}\u{e0041}\u{e007f}\u{3164}";

#[test]
fn control_and_invisible_characters_are_escaped() {
    let controls = ('\0'..='\u{9f}').filter(|c| c.is_control());
    for c in controls
        .chain(['\u{2028}', '\u{2029}'])
        .chain(INVISIBLE.chars())
    {
        let text = escaped(&c.to_string());
        assert!(text.starts_with('\\') && text.is_ascii(), "{c:?}: {text}");
        assert!(text.len() <= 4 * c.len_utf8(), "{c:?}: {text}");
    }
    assert_eq!(
        escaped("\0\t\n\r\x1b\x7f\u{85}\u{202e}"),
        r"\x00\t\n\r\x1b\x7f\u{85}\u{202e}"
    );
}

#[test]
fn readable_text_stays_as_it_is() {
    let readable = r#"it's "C:\x", größer, здравствуйте, 你好, שלום, مرحبا, नमस्ते, ❤️ 👍🏽 `a`"#;
    assert_eq!(escaped(readable), readable);
    // The standard library's own tables: what it takes for printable is escaped only where it is
    // invisible all the same.
    let blank = [
        '\u{34f}', '\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{180b}', '\u{180c}',
        '\u{180d}', '\u{180f}', '\u{3164}', '\u{ffa0}',
    ];
    for c in ('\0'..=char::MAX).filter(|c| !blank.contains(c)) {
        let (text, debug) = (c.to_string(), format!("{:?}", format!("x{c}")));
        let is_printable = debug == format!("\"x{c}\"");
        let is_variant = ('\u{e0100}'..='\u{e01ef}').contains(&c);
        assert!(
            !is_printable || is_variant || escaped(&text) == text,
            "{c:?}"
        );
    }
}

#[test]
fn the_end_of_a_quoted_text_cannot_be_forged() {
    let quoted = |text| format!("{:?}", Escaped::new(text));
    assert_eq!(quoted("lobby"), r#""lobby""#);
    assert_eq!(quoted(""), r#""""#);
    assert_eq!(quoted("a\": fine"), r#""a\": fine""#);
    assert_eq!(quoted("a\\\" \n"), r#""a\\\" \n""#);
}

#[test]
fn long_text_is_cut() {
    let cut = |text, chars| Escaped::new(text).at_most(chars).to_string();
    assert_eq!(cut("héllo", 5), "héllo");
    assert_eq!(cut("héllo", 4), "héll…");
    assert_eq!(cut("\n\n", 1), r"\n…");
    assert_eq!(cut("a", 0), "…");
    assert_eq!(cut("", 0), "");
    assert_eq!(format!("{:?}", Escaped::new("hello").at_most(2)), "\"he…\"");
}

#[test]
fn names_of_imports_forge_no_line() {
    let name = r"\1b[2J\1b]0;owned\07\0d\0aroom.wat: can be served\0a\e2\80\ae";
    let text = guest_0_2(&format!(r#"(import "env" "{name}" (func))"#), &[], "");
    let report = load_error(&assemble(&text)).to_string();
    assert_eq!(report.lines().count(), 2, "{report}");
    let is_plain = |c: char| c == '\n' || !c.is_control() && !INVISIBLE.contains(c);
    assert!(report.chars().all(is_plain), "{report:?}");
    let forged = r#""\x1b[2J\x1b]0;owned\x07\r\nroom.wat: can be served\n\u{202e}""#;
    assert!(report.contains(forged), "{report}");
}

#[test]
fn names_in_errors_of_the_parser_forge_no_line() {
    // Valid but for the second of two equal names.
    let wasm = assemble("(module (func (export \"a\\0ab\") (export \"a\\0ac\")))");
    let duplicate: Vec<u8> = wasm
        .iter()
        .map(|b| if *b == b'c' { b'b' } else { *b })
        .collect();
    let error = chain(&load_error(&duplicate));
    assert!(error.contains(r"a\nb"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn the_report_of_a_module_is_bounded() {
    // Names of 10,000 characters, and functions with as many parameters as there may be.
    let parameters = " i64".repeat(32);
    let import = |i| {
        let name = format!("{i}-{}", "n".repeat(10_000));
        format!(r#"(import "{name}" "{name}" (func (type 0)))"#)
    };
    let imports: String = (0..200).map(import).collect();
    let text = guest_0_2(
        &format!("(type (func (param {parameters}))) {imports}"),
        &[],
        "",
    );
    let error = load_error(&assemble(&text));
    let LoadError::Abi { problems, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(problems.len(), 200, "none is missing from the list");
    let unknown =
        |p: &AbiProblem| matches!(p, AbiProblem::UnknownImport { name, .. } if name.len() > 10_000);
    assert!(problems.iter().all(unknown));
    let report = error.to_string();
    assert!(report.len() < 32 * 500, "{} bytes", report.len());
    assert!(report.ends_with("\n  - and 168 more"), "{report}");
    assert!(report.contains("and 16 more"), "{report}");
}

#[test]
fn an_error_that_quotes_a_long_name_is_bounded() {
    let long = "n".repeat(50_000);
    let wasm = assemble(&format!(
        "(module (func (export \"{long}b\") (export \"{long}c\")))"
    ));
    let duplicate: Vec<u8> = wasm
        .iter()
        .map(|b| if *b == b'c' { b'b' } else { *b })
        .collect();
    let error = chain(&load_error(&duplicate));
    assert!(error.contains("nnn"), "{error}");
    assert!(error.len() < 2_000, "{} bytes", error.len());
}
