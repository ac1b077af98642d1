//! Scripts: the format, what a failure shows, and the script as it would have to be.

use super::{
    bundled_module, repository,
    support::{ENV, assemble, guest_0_2},
};
use stateroom_wasmi_testkit::{Outcome, Script, TestOptions};
use std::{fs, sync::LazyLock};

static ECHO: LazyLock<Vec<u8>> = LazyLock::new(|| bundled_module("echo-c"));
static COUNTER: LazyLock<Vec<u8>> = LazyLock::new(|| bundled_module("counter-rust-0.4"));
static CLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| bundled_module("clock-rust-0.4"));
static HOSTILE: LazyLock<Vec<u8>> = LazyLock::new(|| bundled_module("hostile-rust-small"));

fn run(wasm: &[u8], text: &str) -> Outcome {
    let script = Script::parse("a.test", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    script.run(wasm, &TestOptions::new())
}

/// Plays a script, and checks what it becomes: after that it passes.
fn blessed(wasm: &[u8], text: &str) -> String {
    let outcome = run(wasm, text);
    assert_eq!(outcome.error(), None, "{text}");
    let blessed = outcome.script().to_owned();
    assert_eq!(outcome.is_ok(), blessed == text);
    let again = run(wasm, &blessed);
    assert!(again.is_ok(), "{again}");
    blessed
}

fn error_of(text: &str) -> String {
    let error = Script::parse("a.test", text).expect_err(text);
    error.to_string()
}

/// Takes what [`keeper`] returns.
const KEEP: &str = "(i32.store8 (i32.const 64) (i32.load8_u (local.get 0)))";

/// A guest that says how many bytes it was sent; each counts as much as `step`. It has the state's exports.
fn keeper(step: u32, load: &str) -> Vec<u8> {
    let count = format!(
        "(i32.store8 (i32.const 64)
           (i32.add (i32.load8_u (i32.const 64)) (i32.mul (local.get 2) (i32.const {step}))))
         (call $send_message (i32.const 0) (i32.const 64) (i32.const 1))"
    );
    let exports = format!(
        "(data (i32.const 64) \"0\")
         (func (export \"stateroom_save\") (result i64) (i64.const 0x4000000001))
         (func (export \"stateroom_load\") (param i32 i32) {load})"
    );
    assemble(&guest_0_2(ENV, &[("message", &count)], &exports))
}

#[test]
fn a_room_goes_on_with_its_next_version() {
    let (first, next) = (keeper(1, KEEP), keeper(2, KEEP));
    let script = |last: &str| {
        format!("connect 1\n1 > \"ab\"\n  1 < \"2\"\nupgrade\n1 > \"a\"\n  1 < \"{last}\"\n")
    };
    let same = run(&first, &script("3"));
    assert!(same.is_ok(), "{same}");
    let other = |text: &str, next: &[u8]| {
        let script = Script::parse("a.test", text).expect("it is one");
        script.run_upgrade(&first, next, &TestOptions::new())
    };
    let outcome = other(&script("4"), &next);
    assert!(outcome.is_ok(), "{outcome}");
    assert!(!other(&script("3"), &next).is_ok());
    for (next, reason) in [
        (
            keeper(2, "unreachable"),
            "a.test:4: the room does not go on",
        ),
        (ECHO.clone(), "does not export `stateroom_load`"),
        (b"junk".to_vec(), "cannot load the module"),
    ] {
        let error = other(&script("3"), &next).error().map(ToString::to_string);
        assert!(
            error.as_ref().is_some_and(|error| error.contains(reason)),
            "{error:?}"
        );
    }
    let error = run(&ECHO, "upgrade\n").error().map(ToString::to_string);
    assert!(error.is_some_and(|error| error.contains("stateroom_save")));
    assert!(error_of("upgrade 1").contains("too much"));
}

#[test]
fn what_is_no_script_is_refused_with_its_line() {
    for (line, reason) in [
        ("conect 1", "\"conect\" begins no line"),
        ("\u{1b}[2J", "\"\\x1b[2J\" begins no line"),
        ("connect", "expected a number, found the end of the line"),
        ("connect ada", "expected a number, found \"ada\""),
        (
            "connect 0",
            "client 0 cannot be: ids are from 1 to 2147483647",
        ),
        ("connect 2147483648", "client 2147483648 cannot be"),
        (
            "connect 99999999999999999999",
            "the number \"99999999999999999999\" is too large",
        ),
        ("connect 1 2", "\"2\" is too much on this line"),
        (
            "1",
            "expected `>` (the client sends) or `<` (it receives), found the end",
        ),
        ("1 = \"x\"", "found \"= \\\"x\\\"\""),
        (
            "1 > ",
            "expected a message, \"text\" or bytes as 0x00ff, found the end of the line",
        ),
        ("1 > x", "expected a message"),
        ("1 > \"x", "the text has no end on this line"),
        ("1 > 'x", "the text has no end on this line"),
        ("1 > \"\\q\"", "expected one of the escapes"),
        ("1 > \"\\x\"", "expected one of the escapes"),
        ("1 > \"\\xff\"", "expected one of the escapes"),
        ("1 > \"\\x+1\"", "expected one of the escapes"),
        ("1 > \"\\xéé\"", "expected one of the escapes"),
        ("1 > \"\\u{d800}\"", "expected one of the escapes"),
        ("1 > \"\\u{\"", "expected one of the escapes"),
        ("1 > \"x\" \"y\"", "is too much on this line"),
        ("1 > 0x123", "bytes have two digits each"),
        ("1 > 0x1_23", "bytes have two digits each"),
        ("1 > 0xgg", "bytes have digits from 0 to f"),
        ("1 > 00", "expected bytes as 0x00ff"),
        ("1 > \"x\" + 0x00", "a message is either text or bytes"),
        ("1 > \"x\" * ", "expected a number"),
        (
            "1 > \"x\" * 1048577",
            "the message is longer than 1048576 bytes",
        ),
        (
            "1 > \"x\" * 18446744073709551615 + \"x\" * 18446744073709551615",
            "together",
        ),
        ("1, 2 > \"x\"", "a message is sent by one client"),
        ("1, 2, 1 < \"x\"", "a client is named twice"),
        ("1, < \"x\"", "expected a number"),
        ("all > \"x\"", "expected `<`, found \"> \\\"x\\\"\""),
        ("@ 1", "expected a time in ns, us, ms, s, min or h"),
        ("@ s", "\"\" s is no time"),
        ("@ 1.2.3 s", "\"1.2.3\" s is no time"),
        ("@ 0.1 ns", "\"0.1\" ns is no time"),
        ("@ 1.00000000000000000000000000001 h", "is no time"),
        ("@ 8761 h", "the time is later than a year"),
        ("@ 18446744073709551616 ns", "is no time"),
        ("@ 18446744073709551615 h", "is no time"),
        ("@ -1 s", "expected a time"),
        (
            "@ 5 s\n@ 4 s",
            "the time is earlier than that of a line before",
        ),
        (
            "fault it trapped",
            "expected a text in quotes, found \"it trapped\"",
        ),
        ("seed x", "expected a number"),
        ("seed 18446744073709551616", "is too large"),
        ("seed 1\nseed 2", "it is set twice"),
        ("connect 1\nseed 1", "`seed` must stand before what happens"),
        (
            "on-fault explode",
            "expected `close`, `restart`, `continue` or `rollback`",
        ),
        ("max-fuel-per-event 0", "there is no event without fuel"),
        ("room", "expected a text in quotes"),
    ] {
        let text = format!("# A comment.\r\n\n{line}\n");
        let error = error_of(&text);
        let number = 2 + line.lines().count();
        assert!(error.starts_with(&format!("a.test:{number}: ")), "{error}");
        assert!(error.contains(reason), "{line}: {error}");
        // Nothing that a terminal would obey.
        assert!(!error.contains(char::is_control), "{error}");
    }
}

#[test]
fn scripts_are_bounded() {
    let long = "#".repeat((1 << 20) + 1);
    assert_eq!(error_of(&long), "a.test: it is longer than 1048576 bytes");
    let many = "\n".repeat(20_001);
    assert_eq!(
        error_of(&many),
        "a.test:20001: there are more than 20000 lines"
    );
    let large = "1 > \"x\" * 1000000\n".repeat(1000);
    assert!(error_of(&large).contains("the messages of the script are longer than 33554432 bytes"));
    let error = Script::read("/nowhere/a.test").expect_err("no file");
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/a.test: cannot read it: ")
    );
    assert_eq!(error.line(), None);
}

#[test]
fn every_notation_is_read() {
    let text = "\u{feff}room \"lobby\"  # a setting\r
seed 7\r
on-fault rollback\r
max-fuel-per-event 1000\r
\r
\tconnect 1\r
1>'say \"hi\" # no comment'\r
1   <   'say \"hi\" # no comment'# a comment\r
1 > \"\\n\\r\\t\\0\\\\\\\"\\'\\x1b\\u{1F600}\"\r
1 < \"\\u{a}\\u{d}\\x09\\u{0}\\x5c\\x22'\\u{1b}😀\"\r
1 > 0x_00_FFff_\r
1 < 0x00 + 0xff * 2\r
1 > \"\" * 5 + \"ab\" * 2\r
1 < \"abab\"\r
@ 1 ns\r
@ 1.5us\r
@ 0.002 ms\r
@ 2.000001 ms\r
@ 1 s\r
@ 1.5 min\r
@ 1 h";
    let outcome = run(&ECHO, text);
    assert!(outcome.is_ok(), "{outcome}");
    assert_eq!(outcome.script(), text);
}

#[test]
fn whatever_is_sent_can_be_written_into_a_script() {
    let mut text = String::from("connect 1\n");
    let codes = (0..0x3000)
        .chain(0xd000..0x1_1000)
        .chain(0xe_0000..0xe_0200);
    let chars: Vec<_> = codes.filter_map(char::from_u32).collect();
    for line in chars.chunks(64) {
        let escaped: String = line
            .iter()
            .map(|c| format!("\\u{{{:x}}}", *c as u32))
            .collect();
        text += &format!("1 > \"{escaped}\"\n");
    }
    for special in [
        r#"'{"a":"b"}'"#,
        r#""it's \"\\\"""#,
        r#"'\n'"#,
        "0x",
        "\"\"",
    ] {
        text += &format!("1 > {special}\n");
    }
    let blessed = blessed(&ECHO, &text);
    assert!(blessed.contains("1 > '{\"a\":\"b\"}'\n  1 < '{\"a\":\"b\"}'\n"));
    assert!(blessed.contains("\n  1 < \"it's \\\"\\\\\\\"\"\n"));
    assert!(blessed.contains("\n1 > '\\n'\n  1 < '\\n'\n"));
    let printable = |c: char| c == '\n' || !c.is_control();
    assert!(blessed.chars().all(printable));
}

#[test]
fn what_is_missing_is_written() {
    assert_eq!(
        blessed(
            &COUNTER,
            "connect 1\nconnect 2\n\n# up\n1 > \"+\"\n1 > \"x\""
        ),
        "connect 1\n  1 < \"0\"\nconnect 2\n  2 < \"0\"\n\n# up\n1 > \"+\"\n  all < \"1\"\n1 > \"x\"\n  \
         1 < \"Say +, -, +N, -N or =N.\"\n"
    );
    assert_eq!(blessed(&COUNTER, ""), "");
}

#[test]
fn only_what_differs_is_rewritten() {
    let text = "# Counter.\r
\r
connect 1   # one\r
\t1<\"0\"   # zero\r
  # between\r
1 > \"+\"\r
\t1 < \"2\"   # two\r
\t1 < \"3\"   # three\r
\t1 < \"4\"\r
\r
1 > \"=5\"\r
\t1 < \"5\"\r
# the end";
    let expected = "# Counter.\r
\r
connect 1   # one\r
\t1<\"0\"   # zero\r
  # between\r
1 > \"+\"\r
\t1 < \"1\"  # two\r
\t# three\r
\r
1 > \"=5\"\r
\t1 < \"5\"\r
# the end";
    assert_eq!(blessed(&COUNTER, text), expected);
}

#[test]
fn a_failure_names_the_line_and_shows_the_difference() {
    let outcome = run(&COUNTER, "connect 1\n  1 < \"0\"\n1 > \"+\"\n  1 < \"2\"\n");
    assert!(!outcome.is_ok());
    let expected = "\
a.test:4: the room does something else
--- a.test, expected
+++ what happened
@@ -1,4 +1,4 @@
 connect 1
   1 < \"0\"
 1 > \"+\"
-  1 < \"2\"
+  1 < \"1\"
";
    assert_eq!(outcome.to_string(), expected);
    // What is missing belongs to its step.
    let outcome = run(&COUNTER, "\nconnect 1\n\n\n");
    assert!(outcome.to_string().starts_with("a.test:2: "), "{outcome}");
}

#[test]
fn the_order_among_clients_makes_no_difference() {
    for expected in [
        "all < \"1\"",
        "1, 2 < \"1\"",
        "2, 1 < \"1\"",
        "2 < \"1\"\n1 < \"1\"",
    ] {
        let text = format!("connect 2\n2 < \"0\"\nconnect 1\n1 < \"0\"\n1 > \"+\"\n{expected}\n");
        let outcome = run(&COUNTER, &text);
        assert!(outcome.is_ok(), "{outcome}");
    }
    // That of one client does.
    let connects = "(call $send_message (local.get 0) (i32.const 16) (i32.const 1))
        (call $send_message (local.get 0) (i32.const 17) (i32.const 1))";
    let data = r#"(data (i32.const 16) "ab")"#;
    let wasm = assemble(&guest_0_2(ENV, &[("connect", connects)], data));
    assert!(run(&wasm, "connect 1\n1 < \"a\"\n1 < \"b\"").is_ok());
    assert!(!run(&wasm, "connect 1\n1 < \"b\"\n1 < \"a\"").is_ok());
}

#[test]
fn all_is_somebody() {
    assert_eq!(blessed(&ECHO, "all < \"x\"\n"), "");
    assert_eq!(
        blessed(
            &ECHO,
            "connect 1\n1 > \"x\"\n  all < \"x\"\ndisconnect 1\n  all < \"x\"\n"
        ),
        "connect 1\n1 > \"x\"\n  all < \"x\"\ndisconnect 1\n"
    );
}

#[test]
fn each_output_has_its_time() {
    assert_eq!(
        blessed(&CLOCK, "connect 1\n\n# later\n@ 2.5 s\n  1 < \"tick 2\"\n"),
        "connect 1\n@ 1 s\n  1 < \"tick 1\"\n@ 2 s\n  1 < \"tick 2\"\n\n# later\n@ 2.5 s\n"
    );
    let outcome = run(&CLOCK, "connect 1\n@ 999 ms\n  1 < \"tick 1\"\n@ 1 s\n");
    assert_eq!(
        outcome.script(),
        "connect 1\n@ 999 ms\n@ 1 s\n  1 < \"tick 1\"\n"
    );
}

#[test]
fn faults_are_expected_or_shown() {
    let text =
        |expected: &str| format!("max-fuel-per-event 100000\nconnect 1\n1 > \"loop\"\n{expected}");
    for expected in [
        "fault\n",
        "fault \"\"",
        "fault \"more than 100000 units\"  # it spins",
    ] {
        let outcome = run(&HOSTILE, &text(expected));
        assert!(outcome.is_ok(), "{outcome}");
    }
    let fault =
        "fault \"the guest failed in `message`: one event used more than 100000 units of fuel\"";
    assert_eq!(blessed(&HOSTILE, &text("")), text(&format!("  {fault}\n")));
    assert_eq!(
        blessed(&HOSTILE, &text("fault \"panic\"\n")),
        text(&format!("{fault}\n"))
    );
    assert_eq!(
        blessed(&HOSTILE, "fault\nconnect 1\n  fault \"x\"\n"),
        "connect 1\n"
    );
}

#[test]
fn a_script_that_cannot_go_on_says_why() {
    let outcome = run(
        &HOSTILE,
        "connect 1\n1 > \"panic\"\n1 > \"more\"\n  1 < \"more\"\n",
    );
    let error = outcome.error().expect("the room is closed");
    assert_eq!(error.to_string(), "a.test:3: the room is closed");
    // The fault that closed it is shown, and what comes later is left as it is.
    let shown = outcome.to_string();
    assert!(
        shown.contains("\n+  fault \"the guest failed in `message`: it panicked"),
        "{shown}"
    );
    assert!(
        shown.contains("\n   1 < \"more\"\n") && !shown.contains("\n-  1"),
        "{shown}"
    );

    let outcome = run(&ECHO, "connect 1\n1 > \"x\" * 1048576\n  1 < \"x\"\n");
    assert!(!outcome.is_ok());
    assert!(
        outcome.to_string().contains("longer than a script may be"),
        "{outcome}"
    );
    let outcome = run(b"no module", "connect 1\n");
    assert!(
        outcome
            .to_string()
            .starts_with("a.test: cannot load the module: "),
        "{outcome}"
    );
}

#[test]
fn rooms_without_end_end() {
    // A timer of a millisecond, without end.
    let timer = "(call $set_timer (i32.const 1))";
    let wasm = assemble(&guest_0_2(ENV, &[("connect", timer), ("timer", timer)], ""));
    let script = Script::parse("a.test", "connect 1\n@ 8760 h\n").expect("a script");
    let outcome = script.run(&wasm, &TestOptions::new().max_fuel(1_000_000));
    let error = outcome.error().expect("an end").to_string();
    assert!(
        error.starts_with("a.test:2: the room has used more than 1000000 units"),
        "{error}"
    );

    // The same, and each time it sends something that is not expected.
    let tick = format!("(call $send_message (i32.const 0) (i32.const 0) (i32.const 1000)) {timer}");
    let wasm = assemble(&guest_0_2(ENV, &[("connect", timer), ("timer", &tick)], ""));
    let error = run(&wasm, "connect 1\n@ 8760 h\n")
        .error()
        .expect("an end")
        .to_string();
    assert!(error.contains("longer than a script may be"), "{error}");

    let wasm = assemble(&guest_0_2(ENV, &[("connect", timer), ("timer", timer)], ""));
    let outcome = run(&wasm, "connect 1\n@ 299999 ms\n@ 300 s\n@ 300001 ms\n");
    let error = outcome.error().expect("an end").to_string();
    assert!(
        error.starts_with("a.test:4: the room's timer has fired more than 300000 times"),
        "{error}"
    );

    // What each client is sent when it connects is sent to all of them when the room starts again.
    let flood = "(local $n i32)
        (loop
            (call $send_message (local.get 0) (i32.const 0) (i32.const 0))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $n) (i32.const 4000))))";
    let exports = [("connect", flood), ("message", "unreachable")];
    let wasm = assemble(&guest_0_2(ENV, &exports, ""));
    let mut text = String::from("on-fault restart\n");
    for client in 1..=3 {
        text += &format!("connect {client}\n");
        text += &format!("  {client} < \"\"\n").repeat(4000);
    }
    assert!(run(&wasm, &text).is_ok());
    let outcome = run(&wasm, &(text + "1 > \"\"\n  fault\n@ 100 ms\n"));
    let error = outcome.error().expect("an end").to_string();
    assert!(
        error.contains("the room sends more than 10000 messages for one step"),
        "{error}"
    );
}

#[test]
fn settings_take_precedence() {
    let dice = bundled_module("dice-rust-0.4-wasi");
    let roll = |settings: &str, seed| {
        let text = format!("{settings}connect 1\n1 > \"100d1000\"\n");
        let script = Script::parse("a.test", &text).expect("a script");
        let outcome = script.run(&dice, &TestOptions::new().seed(seed));
        outcome.script().lines().last().expect("a roll").to_owned()
    };
    assert_eq!(roll("seed 7\n", 1), roll("seed 7\n", 2));
    assert_eq!(roll("seed 7\n", 1), roll("", 7));
    assert_ne!(roll("", 1), roll("", 2));

    // The id of the room, which this guest sends to the first client.
    let initialize =
        "(global.set $len (local.get 1)) (memory.copy (i32.const 16) (local.get 0) (local.get 1))";
    let connect = "(call $send_message (i32.const 0) (i32.const 16) (global.get $len))";
    let exports = [("initialize", initialize), ("connect", connect)];
    let wasm = assemble(&guest_0_2(
        ENV,
        &exports,
        "(global $len (mut i32) (i32.const 0))",
    ));
    assert!(run(&wasm, "connect 1\n1 < \"test\"").is_ok());
    assert!(run(&wasm, "room \"größer\"\nconnect 1\n1 < \"größer\"").is_ok());
}

#[test]
fn the_scripts_of_the_documentation_do_what_it_says() {
    let page = fs::read_to_string(repository().join("docs/testing.md")).expect("the page");
    let mut scripts = page
        .split("```text\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("an end of the block").0);
    let mut next = || scripts.next().expect("a script");
    let counter = next();
    let outcome = run(&COUNTER, counter);
    assert!(outcome.is_ok(), "{outcome}");
    let wrong = counter.replace("all < \"5\"", "all < \"6\"");
    let wrong = Script::parse("counter.test", &wrong).expect("a script");
    let outcome = wrong.run(&COUNTER, &TestOptions::new());
    assert_eq!(outcome.to_string(), next());
    let clock = run(&CLOCK, next());
    assert_eq!(
        clock.script(),
        "connect 1\n@ 1 s\n  1 < \"tick 1\"\n@ 2 s\n  1 < \"tick 2\"\n@ 2999 ms\n"
    );
    // Of a room that counts pluses.
    let votes = run(&keeper(1, KEEP), next());
    assert!(votes.is_ok(), "{votes}");
    let hostile = run(&HOSTILE, next());
    assert!(hostile.is_ok(), "{hostile}");
}

/// Scripts of which parts are mixed up: none is a panic, and each becomes one that passes.
#[test]
fn mixed_up_scripts_become_scripts_that_pass() {
    const SEED: u64 = 0x5eed;
    let mut random = SEED;
    let mut below = |bound: usize| {
        // The multiplier and increment of Knuth's MMIX.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    let parts = [
        "connect 1\n",
        "connect 2\n",
        "disconnect 1\n",
        "disconnect 2\n",
        "1 > \"+\"\n",
        "2 > 0x00\n",
        "  1 < \"1\"\n",
        "1, 2 < \"2\"  # both\n",
        "all < \"3\"\n",
        "@ 1 s\n",
        "@ 2.5 s\n",
        "@ 3 s\n",
        "# a comment\n",
        "\n",
        "fault\n",
        "  fault \"x\"\n",
        "\r\n",
        "1 < \"tick 1\"\n",
        "all < \"tick 2\"",
    ];
    let (mut parsed, mut rewritten) = (0, 0);
    for round in 0..1500 {
        let mut text: String = (0..below(20)).map(|_| parts[below(parts.len())]).collect();
        if below(4) == 0 && !text.is_empty() {
            text.remove(below(text.len()));
        }
        let Ok(script) = Script::parse("a.test", &text) else {
            continue;
        };
        parsed += 1;
        let wasm = if round % 2 == 0 { &COUNTER } else { &CLOCK };
        let outcome = script.run(wasm, &TestOptions::new());
        assert!(!outcome.to_string().is_empty());
        if outcome.error().is_none() {
            rewritten += usize::from(!outcome.is_ok());
            let again = run(wasm, outcome.script());
            assert!(again.is_ok(), "round {round}: {text}\n{again}");
        }
    }
    assert!(parsed > 300 && rewritten > 100, "{parsed} {rewritten}");
}
