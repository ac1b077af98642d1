//! `stateroom-wasmi test`.

use super::{TempDir, bundled_path, tool};
use crate::support::{assemble, guest_0_2};
use std::{fs, path::Path};

/// Runs `test`; returns its exit status, standard output and standard error.
fn test(module: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let module = module.to_str().expect("UTF-8");
    let output = tool(&[&["test", module], args].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const COUNTS: &str = "# Counts.\nconnect 1\n  1 < \"0\"\n1 > \"+\"\n  1 < \"1\"  # one\n";
const MISCOUNTS: &str = "# Counts.\nconnect 1\n  1 < \"0\"\n1 > \"+\"\n  1 < \"2\"  # one\n";

#[test]
fn scripts_that_pass() {
    let folder = TempDir::new();
    let first = folder.write("a.test", COUNTS);
    let second = folder.write("b.test", "connect 7\n  7 < \"0\"\n");
    let args = [path(&first), path(&second)];
    let (status, printed, log) = test(&bundled_path("counter-c"), &args);
    let [first, second] = args;
    let expected = format!(
        "\nrunning 2 scripts\ntest {first} ... ok\ntest {second} ... ok\n\n\
         test result: ok. 2 passed; 0 failed\n\n"
    );
    assert_eq!((status, printed, log), (Some(0), expected, String::new()));
}

#[test]
fn a_script_that_fails_is_shown_as_a_diff() {
    let folder = TempDir::new();
    let bad = folder.write("bad.test", MISCOUNTS);
    let good = folder.write("good.test", COUNTS);
    let args = [path(&bad), path(&good)];
    let (status, printed, _) = test(&bundled_path("counter-c"), &args);
    let [bad, good] = args;
    let expected = format!(
        "\nrunning 2 scripts\ntest {bad} ... FAILED\ntest {good} ... ok\n\nfailures:\n\n\
         {bad}:5: the room does something else\n--- {bad}, expected\n+++ what happened\n\
         @@ -2,4 +2,4 @@\n connect 1\n   1 < \"0\"\n 1 > \"+\"\n-  1 < \"2\"  # one\n\
         +  1 < \"1\"  # one\n\ntest result: FAILED. 1 passed; 1 failed\n\n"
    );
    assert_eq!((status, printed), (Some(1), expected));
    assert_eq!(fs::read_to_string(bad).expect("the script"), MISCOUNTS);
}

#[test]
fn bless_rewrites_what_differs() {
    let folder = TempDir::new();
    let script = folder.write("a.test", MISCOUNTS);
    let args = ["--bless", path(&script)];
    let (status, printed, _) = test(&bundled_path("counter-c"), &args);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains(" ... blessed\n"), "{printed}");
    assert_eq!(fs::read_to_string(&script).expect("the script"), COUNTS);
    let (status, printed, _) = test(&bundled_path("counter-c"), &args);
    assert_eq!(status, Some(0));
    assert!(printed.contains(" ... ok\n"), "{printed}");
}

#[test]
fn bless_rewrites_no_script_that_cannot_be_played() {
    let folder = TempDir::new();
    let module = bundled_path("hostile-rust-small");
    for (text, reason) in [
        (
            "connect 1\n1 > \"panic\"\n1 > \"x\"\n",
            ":3: the room is closed",
        ),
        ("connect 1\n2 > \"x\"\n", ":2: client 2 is not connected"),
        ("connect 1\nconect 2\n", ":2: \"conect\" begins no line"),
        ("\u{1}", ":1: \"\\x01\" begins no line"),
    ] {
        let script = folder.write("a.test", text);
        let (status, printed, _) = test(&module, &["--bless", path(&script)]);
        assert_eq!(status, Some(1));
        assert!(
            printed.contains(&format!("{}{reason}", path(&script))),
            "{printed}"
        );
        assert_eq!(fs::read_to_string(&script).expect("the script"), text);
    }
}

#[test]
fn files_that_are_none() {
    let folder = TempDir::new();
    let module = bundled_path("counter-c");
    let missing = folder.0.join("missing.test");
    let (status, printed, _) = test(&module, &[path(&missing)]);
    assert_eq!(status, Some(1));
    assert!(
        printed.contains("missing.test: cannot read it: "),
        "{printed}"
    );
    let (status, printed, _) = test(&module, &[path(&module)]);
    assert_eq!(status, Some(1));
    assert!(printed.contains("it is not UTF-8"), "{printed}");

    let script = folder.write("a.test", COUNTS);
    let (status, printed, log) = test(&missing, &[path(&script)]);
    assert_eq!((status, printed), (Some(1), String::new()));
    assert!(log.starts_with("error: cannot read "), "{log}");
    let no_room = folder.write("a.wat", "(module)");
    let (status, _, log) = test(&no_room, &[path(&script)]);
    assert_eq!(status, Some(1));
    assert!(log.contains("the module is not a room"), "{log}");
}

#[test]
fn flags_are_those_of_serve() {
    let folder = TempDir::new();
    let module = bundled_path("hostile-rust-small");
    let script = folder.write(
        "a.test",
        "connect 1\n1 > \"loop\"\n  fault \"more than 5000 units\"\n1 > \"x\"\n  1 < \"x\"\n",
    );
    let flags = ["--max-fuel-per-event", "5000", "--on-fault", "rollback"];
    let (status, printed, _) = test(&module, &[&[path(&script)], &flags[..]].concat());
    assert_eq!(status, Some(0), "{printed}");
    let (status, printed, _) = test(&module, &[path(&script), "--max-fuel-per-event", "5000"]);
    assert_eq!(status, Some(1));
    assert!(printed.contains("the room is closed"), "{printed}");
    let (status, printed, _) = test(&module, &[path(&script), "--max-fuel", "5000"]);
    assert_eq!(status, Some(1));
    assert!(
        printed.contains("more than 5000 units of fuel in all"),
        "{printed}"
    );
}

#[test]
fn what_the_room_printed_is_shown_with_its_failure() {
    let imports = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let connect = "(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))";
    let data =
        r#"(data (i32.const 0) "\10\00\00\00\06\00\00\00") (data (i32.const 16) "oh\1b no")"#;
    let folder = TempDir::new();
    let wasm = assemble(&guest_0_2(imports, &[("connect", connect)], data));
    let module = folder.write("a.wasm", wasm);
    let passes = folder.write("a.test", "connect 1\n");
    let (_, printed, log) = test(&module, &[path(&passes)]);
    assert!(!printed.contains("oh") && log.is_empty(), "{printed}{log}");
    let fails = folder.write("b.test", "connect 1\n  1 < \"\"\n");
    let (_, printed, log) = test(&module, &[path(&fails)]);
    assert!(
        printed.contains("\nthe room printed:\n  oh\\x1b no\n"),
        "{printed}"
    );
    assert_eq!(log, "");
}
