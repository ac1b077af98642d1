//! `stateroom-wasmi check`.

use super::{TempDir, bundled_path, tool};
use crate::support::{assemble, echo};
use serde_json::{Value, json};

/// Runs `check`; returns its exit status, standard output and standard error.
fn check(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tool(&[&["check"], args].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn check_json(module: &str) -> (Option<i32>, Value) {
    let (status, printed, _) = check(&[module, "--json"]);
    (
        status,
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}")),
    )
}

fn bundled(name: &str) -> String {
    bundled_path(name).to_str().expect("UTF-8").to_owned()
}

/// Lacks `timer` and `jam_free`, mistypes `connect`, and has an unknown import.
const BROKEN: &str = r#"(module
    (import "env" "launch_missiles" (func (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (func (export "jam_malloc") (param i32) (result i32) (i32.const 64))
    (func (export "initialize") (param i32 i32))
    (func (export "connect") (param i64))
    (func (export "disconnect") (param i32))
    (func (export "message") (param i32 i32 i32))
    (func (export "binary") (param i32 i32 i32)))"#;

/// The four problems, each by the words that its text contains.
const PROBLEMS: [&[&str]; 4] = [
    &["`timer`", "() -> ()"],
    &["`jam_free`", "(i32, i32) -> ()"],
    &["`connect`", "(i32) -> ()", "(i64) -> ()"],
    &["env", "launch_missiles", "(i32, i64) -> i32"],
];

fn assert_names_all<'a>(problems: impl Iterator<Item = &'a str> + Clone) {
    for words in PROBLEMS {
        let named = problems
            .clone()
            .filter(|problem| words.iter().all(|word| problem.contains(word)));
        assert_eq!(
            named.count(),
            1,
            "{words:?} in {:?}",
            problems.collect::<Vec<_>>()
        );
    }
    assert_eq!(problems.count(), PROBLEMS.len());
}

#[test]
fn a_module_that_can_be_served() {
    let (status, text, errors) = check(&[&bundled("echo-c")]);
    assert_eq!(status, Some(0), "{errors}");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("echo-c.wasm: can be served"));
    assert_eq!(lines.next(), Some("ABI       0.2"));
    assert!(!text.contains("problem"), "{text}");
    assert!(text.contains("memory    65536 bytes a room"), "{text}");
    assert!(text.contains("imports   env.send_"), "{text}");
    assert!(
        text.contains("jam_malloc: a function (i32) -> i32"),
        "{text}"
    );
}

#[test]
fn a_module_that_can_be_served_in_json() {
    for (name, abi) in [("echo-rust-0.2", "0.2"), ("dice-rust-0.4-wasi", "0.4")] {
        let (status, report) = check_json(&bundled(name));
        assert_eq!(status, Some(0), "{report}");
        assert_eq!(report["module"], format!("{name}.wasm"));
        assert_eq!(
            (&report["ok"], &report["abi"], &report["problems"]),
            (&json!(true), &json!(abi), &json!([]))
        );
        let bytes = std::fs::metadata(bundled_path(name))
            .expect("cannot read it")
            .len();
        assert_eq!(report["module_bytes"], bytes);
        assert!(
            report["room"]["memory_bytes"].as_u64() >= Some(65_536),
            "{report}"
        );
        assert!(
            report["room"]["fuel_to_open"].as_u64() > Some(0),
            "{report}"
        );
        assert!(
            report["room"]["fuel_to_connect"].as_u64() > Some(0),
            "{report}"
        );
        assert!(!report["exports"].as_array().expect("a list").is_empty());
    }
    let (_, report) = check_json(&bundled("dice-rust-0.4-wasi"));
    let imports = report["imports"].as_array().expect("a list");
    let random = json!({
        "name": "wasi_snapshot_preview1.random_get", "kind": "a function (i32, i32) -> i32"
    });
    assert!(imports.contains(&random), "{report}");
}

#[test]
fn all_problems_are_named() {
    let folder = TempDir::new();
    let module = folder.write("broken.wat", BROKEN);
    let module = module.to_str().expect("UTF-8");

    let (status, text, _) = check(&[module]);
    assert_eq!(status, Some(1));
    assert!(text.starts_with("broken.wat: cannot be served\n"), "{text}");
    assert_names_all(
        text.lines()
            .filter_map(|line| line.trim_start().strip_prefix("problem: ")),
    );

    let (status, report) = check_json(module);
    assert_eq!(status, Some(1));
    assert_eq!(
        (&report["ok"], &report["abi"], &report["room"]),
        (&json!(false), &json!("0.2"), &Value::Null)
    );
    let problems = report["problems"].as_array().expect("a list");
    assert_names_all(
        problems
            .iter()
            .map(|problem| problem.as_str().expect("a text")),
    );
}

#[test]
fn a_module_whose_guest_fails_to_connect_is_rejected() {
    let folder = TempDir::new();
    let fails = echo().replace(
        "(export \"connect\") (param i32)",
        "(export \"connect\") (param i32) unreachable",
    );
    let module = folder.write("fails.wasm", assemble(&fails));
    let (status, report) = check_json(module.to_str().expect("UTF-8"));
    assert_eq!(status, Some(1));
    let problems = report["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 1, "{report}");
    let problem = problems[0].as_str().expect("a text");
    assert_eq!(
        problem.matches("the guest failed in `connect`: ").count(),
        1,
        "{report}"
    );
}

#[test]
fn files_that_are_not_modules_are_rejected() {
    let folder = TempDir::new();
    let text = folder.write("hello.wasm", "hello");
    let empty = folder.write("empty.wasm", "");
    let cut = std::fs::read(bundled_path("echo-c")).expect("cannot read it");
    let cut = folder.write("cut.wasm", &cut[..200]);
    for path in [text, empty, cut] {
        let (status, printed, errors) = check(&[path.to_str().expect("UTF-8")]);
        assert_eq!(status, Some(1), "{path:?}: {printed}{errors}");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            format!("{printed}{errors}").contains(&name),
            "{path:?}: {printed}{errors}"
        );
    }
    let (status, printed, errors) = check(&["/nowhere/at-all.wasm"]);
    assert_eq!((status, printed.as_str()), (Some(1), ""));
    assert!(errors.contains("/nowhere/at-all.wasm"), "{errors}");
}

#[test]
fn a_folder() {
    let folder = TempDir::new();
    let path = folder.0.to_str().expect("UTF-8").to_owned();
    assert_eq!(check(&[&path]).0, Some(1), "it has no server.wasm yet");
    folder.write("server.wasm", assemble(&echo()));
    let (status, text, errors) = check(&[&path]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(text.starts_with("server.wasm: can be served\n"), "{text}");
}

#[test]
fn wrong_usage_prints_the_usage() {
    let (status, _, errors) = check(&[]);
    assert_eq!(status, Some(2));
    assert!(errors.contains("Usage: stateroom-wasmi check"), "{errors}");
}
