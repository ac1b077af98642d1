//! `stateroom-wasmi check`.

use super::{TempDir, bundled_path, tool};
use crate::support::{ENV, assemble, echo, guest_0_2, guest_0_4};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Stdio},
};

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

/// The problems that `check` finds in a file, which is not served.
fn problems(path: &Path, flags: &[&str]) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let (status, printed, _) = check(&[&[path, "--json"], flags].concat());
    let report: Value =
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(
        (status, &report["ok"]),
        (Some(1), &json!(false)),
        "{report}"
    );
    // The same as text.
    let (status, text, _) = check(&[&[path], flags].concat());
    assert_eq!(status, Some(1));
    let problems = report["problems"].as_array().expect("a list").iter();
    let problems: Vec<_> = problems
        .map(|problem| problem.as_str().expect("a text").to_owned())
        .collect();
    assert!(!problems.is_empty(), "{report}");
    for problem in &problems {
        let first = problem.lines().next().expect("a line");
        assert!(text.contains(&format!("  problem: {first}")), "{text}");
    }
    problems
}

/// The one problem of a file.
fn problem(path: &Path) -> String {
    let [problem] = &problems(path, &[])[..] else {
        panic!("one problem in {path:?}");
    };
    problem.clone()
}

fn warnings(path: &Path, flags: &[&str]) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let (status, printed, _) = check(&[&[path, "--json"], flags].concat());
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(status, Some(0), "{report}");
    let warnings = report["warnings"].as_array().expect("a list").iter();
    warnings
        .map(|warning| warning.as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn files_that_are_not_modules_are_named_as_what_they_are() {
    let folder = TempDir::new();
    let cut = std::fs::read(bundled_path("echo-c")).expect("cannot read it");
    let gzip: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 56115\n";
    for (contents, words) in [
        (&b""[..], "an empty file"),
        (b"hello", "a text file"),
        (pointer, "a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<title>404</title>", "an HTML page"),
        (b"\xef\xbb\xbf \n<HTML>", "an HTML page"),
        (gzip, "a gzip file"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\x7fELF\x02\x01", "a native program"),
        (b"\xcf\xfa\xed\xfe\x07", "a native program"),
        (b"MZ\x90", "a native program"),
        (b"!<arch>\n/ 0", "crate-type = [\"cdylib\"]"),
        (b"rust\0\0\0\x09", "a library for a compiler"),
        (b"\0asm\x01\0\0\0\0\x09\x07linking\x02", "an object file"),
        (b"\x89PNG\r\n\x1a\n", "not WebAssembly"),
        (b"\0asm\x0d\0\x01\0", "a component"),
        (b"(component)", "a component"),
        (
            b"\0asm\x02\0\0\0",
            "of a version of WebAssembly that is not supported",
        ),
        (b"\0asm", "not valid WebAssembly"),
        (&cut[..200], "not valid WebAssembly"),
        (b"(module (func (nonsense)))", "not valid WebAssembly text"),
        (b";; a comment\n(module", "not valid WebAssembly text"),
    ] {
        let problem = problem(&folder.write("some.wasm", contents));
        assert!(problem.contains(words), "{problem}");
    }
    assert!(problem(&folder.0.join("not-there.wasm")).contains("cannot read"));
    assert!(
        problem(&folder.0).contains("cannot read"),
        "it has no server.wasm"
    );
}

/// What `check` says to do about a module, which is what `serve` says, too.
fn help(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let (status, report) = check_json(path);
    assert_eq!(status, Some(1), "{report}");
    let help: Vec<_> = report["help"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|help| help.as_str().expect("a text").to_owned())
        .collect();
    let (_, text, _) = check(&[path]);
    let served = tool(&["serve", path, "--port", "0"]);
    let served = String::from_utf8(served.stderr).expect("UTF-8");
    for printed in [text, served] {
        let lines = printed
            .lines()
            .filter_map(|line| line.strip_prefix("  help: "));
        assert_eq!(lines.collect::<Vec<_>>(), help, "{printed}");
    }
    help
}

#[test]
fn what_to_do_about_a_module_that_is_no_room() {
    let folder = TempDir::new();
    let memory = r#"(memory (export "memory") 1)"#;
    let made_by = |language: &str| {
        let (fields, values) = ("\\08language", "\\00");
        let length = language.len();
        format!(r#"(@custom "producers" "\01{fields}\01\{length:02x}{language}{values}") {memory}"#)
    };
    let import = |module: &str, name: &str| {
        guest_0_2(&format!(r#"(import "{module}" "{name}" (func))"#), &[], "")
    };
    let without = |export: &str| echo().replacen(&format!(r#"(export "{export}")"#), "", 1);
    let main = r#"(func (export "main") (param i32 i32) (result i32) (i32.const 0))"#;
    let of = |fields: &str| format!("(module {fields})");
    for (text, words) in [
        (of(&format!("{memory} {main}")), "crate-type = [\"cdylib\"]"),
        (of(&format!("{} {main}", made_by("Rust"))), "src/lib.rs"),
        (of(&made_by("Rust")), "`#[stateroom_wasm]`"),
        (of(&made_by("C11")), "malloc.c"),
        (of(&made_by("Zig")), "-rdynamic"),
        (of(&made_by("Go")), "-buildmode=c-shared"),
        (of(memory), "stateroom-wasmi new"),
        (without("memory"), "--import-memory"),
        (without("jam_malloc"), "malloc.c"),
        (without("timer"), "void room_timer(void) {}"),
        (import("env", "abort"), "\"use\": [\"abort=\"]"),
        (import("env", "console.log"), "asconfig.json"),
        (import("env", "emscripten_resize_heap"), "--target=wasm32"),
        (import("env", "launch_missiles"), "--allow-undefined"),
        (import("gojs", "runtime.wasmExit"), "GOOS=wasip1"),
        (
            import("__wbindgen_placeholder__", "__wbindgen_describe"),
            "a browser",
        ),
    ] {
        let found = help(&folder.write("some.wasm", assemble(&text)));
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{words}: {found:?}"
        );
    }
    // Nobody knows what this is.
    let found = help(&folder.write("some.wasm", assemble(&import("other", "f"))));
    assert_eq!(found, [""; 0]);
    // One for each kind of mistake.
    let imports: String = (0..1_000)
        .map(|i| format!(r#"(import "env" "f{i}" (func)) (import "gojs" "f{i}" (func))"#))
        .collect();
    let found = help(&folder.write("some.wasm", assemble(&guest_0_2(&imports, &[], ""))));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_panic_without_a_message_is_explained() {
    let folder = TempDir::new();
    let help = |imports: &str| {
        let text = guest_0_2(imports, &[("initialize", "unreachable")], "");
        let path = folder.write("panics.wat", text);
        let (_, report) = check_json(path.to_str().expect("UTF-8"));
        report["help"].as_array().expect("a list").clone()
    };
    let found = help("");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].as_str().expect("a text").contains("wasm32-wasip1"));
    // It could have printed something.
    let print = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func (param i32 i32 i32 i32) (result i32)))"#;
    assert_eq!(help(print).len(), 0);
}

const CDYLIB: &str = "[package]\nname = \"my-room\"\n[lib]\ncrate-type = [\"cdylib\"]\n";

#[test]
fn a_project_in_place_of_its_module() {
    let folder = TempDir::new();
    let other_name = CDYLIB.replace("my-room", "other");
    let no_cdylib = "[package]\nname = \"my-room\"\n# crate-type = [\"cdylib\"]\n";
    let lacks = "lacks `crate-type = [\"cdylib\"]`";
    for (kind, file, text, expected) in [
        (
            "cargo",
            "Cargo.toml",
            CDYLIB,
            "`cargo build --release --target wasm32-wasip1`",
        ),
        (
            "cargo",
            "Cargo.toml",
            CDYLIB,
            "/target/wasm32-wasip1/release/my_room.wasm",
        ),
        ("other", "Cargo.toml", &other_name, "/release/other.wasm"),
        ("lib", "Cargo.toml", no_cdylib, lacks),
        (
            "workspace",
            "Cargo.toml",
            "[workspace]\n",
            "`cargo build --release --target",
        ),
        ("zig", "build.zig", "", "`zig build`"),
        ("go", "go.mod", "", "-buildmode=c-shared"),
        ("ts", "asconfig.json", "{}", "`npm run build`"),
        ("c", "Makefile", "", "`make`"),
    ] {
        let project = folder.0.join(kind);
        folder.write(&format!("{kind}/{file}"), text);
        folder.write(&format!("{kind}/src/room.rs"), "fn main() {}\n");
        folder.write(&format!("{kind}/src/room.rlib"), "!<arch>\n");
        folder.write(&format!("{kind}/src/room"), "\x7fELF");
        for path in [
            project.clone(),
            project.join("src"),
            project.join(file),
            project.join("src/room.rs"),
            project.join("src/room.rlib"),
            project.join("src/room"),
            project.join("target/wasm32-wasip1/release/room.wasm"),
        ] {
            if text.is_empty() && path == project.join(file) {
                continue; // An empty file is called that.
            }
            let problem = problem(&path);
            assert!(problem.contains(expected), "{expected}: {problem}");
            let lacked = problem.contains(lacks);
            assert_eq!(lacked, kind == "lib", "{problem}");
            let served = tool(&["serve", path.to_str().expect("UTF-8"), "--port", "0"]);
            let served = String::from_utf8(served.stderr).expect("UTF-8");
            assert!(served.contains(expected), "{served}");
        }
        // Something else is wrong with this one.
        let problem = problem(&folder.write(&format!("{kind}/some.wasm"), "hello"));
        assert!(!problem.contains("build it"), "{problem}");
    }
    // Another target, and a module that was built.
    let project = folder.0.join("cargo");
    let config = "[build]\ntarget = \"wasm32-unknown-unknown\"\n";
    folder.write("cargo/.cargo/config.toml", config);
    let found = problem(&project);
    assert!(found.contains("`cargo build --release`, which"), "{found}");
    assert!(
        found.contains("/wasm32-unknown-unknown/release/my_room.wasm"),
        "{found}"
    );
    folder.write("cargo/target/wasm32-wasip1/release/built.wasm", "");
    let found = problem(&project);
    assert!(
        found.contains("/wasm32-wasip1/release/built.wasm"),
        "{found}"
    );
    folder.write("zig/zig-out/bin/z.wasm", "");
    let found = problem(&folder.0.join("zig"));
    assert!(found.contains("/zig-out/bin/z.wasm"), "{found}");
    // No project.
    let found = problem(&folder.0.join("target/wasm32-wasip1/release/room.wasm"));
    assert!(!found.contains("build it"), "{found}");
}

#[test]
fn hostile_projects_forge_and_block_nothing() {
    let folder = TempDir::new();
    let hostile = "x\u{1b}[2J\u{202e}";
    folder.write("a/Cargo.toml", CDYLIB.replace("my-room", hostile));
    folder.write("b/Cargo.toml", b"[package]\nname = \xff\xfe \"\n");
    folder.write(
        "c/Cargo.toml",
        format!("[package]\nname = \"{}", "x".repeat(1 << 20)),
    );
    folder.write(&format!("{hostile}/Cargo.toml"), CDYLIB);
    for name in ["a", "b", "c", hostile] {
        #[cfg(target_os = "linux")]
        {
            let config = folder.0.join(name).join(".cargo");
            std::fs::create_dir(&config).expect("a folder");
            let made = Command::new("mkfifo")
                .arg(config.join("config.toml"))
                .status();
            assert!(made.expect("mkfifo").success());
        }
        let problem = problem(&folder.0.join(name));
        assert!(problem.contains("`cargo build --release"), "{problem}");
        let is_plain = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(problem.chars().all(is_plain), "{problem:?}");
        assert!(problem.len() < 1_000, "{} bytes", problem.len());
    }
}

#[test]
fn names_of_files_and_their_contents_forge_no_line() {
    let folder = TempDir::new();
    let name = "x\u{1b}[2J\nok.wasm: can be served\n\u{202e}";
    let hostile = format!("(module (func ({name}\t)))");
    for contents in ["hello", hostile.as_str()] {
        let path = folder.write(&format!("{name}.wat"), contents);
        let path = path.to_str().expect("UTF-8");
        for flags in [&[][..], &["--json"]] {
            let (_, printed, _) = check(&[&[path], flags].concat());
            assert!(
                printed.contains(r"x\x1b[2J") || printed.contains(r"x\\x1b[2J"),
                "{printed}"
            );
            let is_plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
            assert!(printed.chars().all(is_plain), "{printed:?}");
            assert!(
                !printed.lines().any(|line| line.starts_with("ok.wasm")),
                "{printed}"
            );
        }
        let served = tool(&["serve", path, "--port", "0"]);
        let printed = String::from_utf8(served.stderr).expect("UTF-8");
        assert!(
            printed.starts_with("error: ") && !printed.contains('\u{1b}'),
            "{printed:?}"
        );
    }
}

#[test]
fn a_valid_module_with_an_unsupported_proposal_is_not_called_invalid() {
    let folder = TempDir::new();
    for (proposal, definition) in [
        ("threads and atomics", "(memory 1 1 shared)"),
        (
            "threads and atomics",
            "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))",
        ),
        ("64-bit memories", "(memory i64 1)"),
        ("exceptions", "(tag $t) (func (throw $t))"),
        ("garbage collection", "(type (struct (field i32)))"),
        (
            "function references",
            "(type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0)))",
        ),
        (
            "wide arithmetic",
            "(func (param i64) (drop (drop \
            (i64.mul_wide_s (local.get 0) (local.get 0)))))",
        ),
    ] {
        let text = format!("(module {definition})");
        let text = text.replace(
            "(drop (drop (i64.mul_wide_s (local.get 0) (local.get 0))))",
            "(i64.mul_wide_s (local.get 0) (local.get 0)) drop drop",
        );
        let problem = problem(&folder.write("some.wasm", assemble(&text)));
        let expected = "the module is valid, but uses what the interpreter does not support: ";
        let named = problem.strip_prefix(expected);
        let named = named.unwrap_or_else(|| panic!("{proposal}: {problem}"));
        assert!(named.split(", ").any(|name| name == proposal), "{named}");
        let serves = tool(&["serve", folder.0.join("some.wasm").to_str().expect("UTF-8")]);
        let printed = String::from_utf8(serves.stderr).expect("UTF-8");
        assert_eq!(
            printed,
            format!("error: cannot load the module: {problem}\n")
        );
    }
    // Invalid whatever is supported.
    let text = "(module (memory 1 1 shared) (func (drop)))";
    let problem = problem(&folder.write("some.wasm", assemble(text)));
    assert!(problem.contains("not valid WebAssembly"), "{problem}");
}

#[test]
fn a_command_is_told_to_become_a_reactor() {
    let folder = TempDir::new();
    let start = r#"(func (export "_start"))"#;
    // A program with a `main`, as a C or Rust compiler makes it.
    let text = format!(r#"(module (memory (export "memory") 1) {start})"#);
    let found = problems(&folder.write("command.wasm", assemble(&text)), &[]);
    assert!(
        found.iter().any(|problem| problem.contains("`_start`")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|problem| problem.contains("-mexec-model=reactor")),
        "{found:?}"
    );
    // All exports of a room are there, so that it may work.
    let room = guest_0_2(ENV, &[], start);
    let found = warnings(&folder.write("room.wasm", assemble(&room)), &[]);
    assert!(
        found.len() == 1 && found[0].contains("`_start`"),
        "{found:?}"
    );
    // A reactor may have both.
    let room = guest_0_2(
        ENV,
        &[],
        &format!(r#"{start} (func (export "_initialize"))"#),
    );
    let found = warnings(&folder.write("room.wasm", assemble(&room)), &[]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_null_allocator_is_warned_of() {
    let folder = TempDir::new();
    let null = guest_0_2(ENV, &[("jam_malloc", "(i32.const 0)")], "");
    let null_0_4 = guest_0_4("", "").replace("(i32.const 4096)", "(i32.const 0)");
    for text in [null, null_0_4] {
        let found = warnings(&folder.write("null.wat", text), &[]);
        assert!(
            found.len() == 1 && found[0].contains("allocator returns null"),
            "{found:?}"
        );
    }
    for text in [echo(), guest_0_4("", "")] {
        assert_eq!(warnings(&folder.write("room.wat", text), &[]), [""; 0]);
    }
}

#[test]
fn a_module_as_its_linker_left_it_is_warned_of() {
    let folder = TempDir::new();
    // A call, and place for the four bytes by which a linker pads its index.
    let guest = guest_0_2(ENV, &[("timer", "(call $f) nop nop nop nop")], "(func $f)");
    let short = assemble(&guest);
    let (opcode, nops) = (0x10, [1; 4]);
    let at = short
        .windows(6)
        .position(|code| code[0] == opcode && code[2..] == nops)
        .expect("the call");
    let mut padded = short.clone();
    padded[at + 1] |= 0x80;
    padded[at + 2..at + 6].copy_from_slice(&[0x80, 0x80, 0x80, 0]);
    assert_eq!(warnings(&folder.write("short.wasm", short), &[]), [""; 0]);
    let found = warnings(&folder.write("padded.wasm", padded), &[]);
    assert!(
        found.len() == 1 && found[0].contains("wasm-opt -O3"),
        "{found:?}"
    );
}

#[test]
fn a_report_is_bounded() {
    let folder = TempDir::new();
    let name = "n".repeat(1_000);
    let imports: String = (0..1_000)
        .map(|i| format!(r#"(import "{name}{i}" "{name}" (func))"#))
        .collect();
    let exports: String = (0..1_000)
        .map(|i| format!(r#"(func (export "{name}{i}"))"#))
        .collect();
    for (text, problems) in [
        (guest_0_2(&imports, &[], ""), 1_000),
        (guest_0_2(ENV, &[], &exports), 0),
    ] {
        let wasm = assemble(&text);
        let path = folder.write("large.wasm", &wasm);
        let path = path.to_str().expect("UTF-8");
        let (_, text, _) = check(&[path]);
        assert!(text.len() < wasm.len() / 10, "{} bytes", text.len());
        assert!(
            text.contains("and 900 more") || text.contains("and 909 more"),
            "{text}"
        );
        let (_, report) = check_json(path);
        let counts = ["problems", "imports", "exports"].map(|list| {
            let more = report[&format!("more_{list}")].as_u64().expect("a number");
            report[list].as_array().expect("a list").len() as u64 + more
        });
        // A module that cannot be loaded has no lists.
        let (imports, exports) = if problems == 0 { (3, 1_009) } else { (0, 0) };
        assert_eq!(counts, [problems, imports, exports]);
        assert!(report.to_string().len() < wasm.len() / 10);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = TempDir::new();
    // More than a pipe holds.
    let exports: String = (0..1_000)
        .map(|i| format!(r#"(func (export "{i}{}"))"#, "n".repeat(1_000)))
        .collect();
    let good = folder.write("good.wat", guest_0_2("", &[], &exports));
    let bad = folder.write("bad.wat", BROKEN);
    for (module, status) in [(good, 0), (bad, 1)] {
        for flag in [&[][..], &["--json"]] {
            let mut process = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
                .arg("check")
                .arg(&module)
                .args(flag)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("cannot run the tool");
            drop(process.stdout.take());
            let output = process.wait_with_output().expect("it ends");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            assert_eq!(output.status.code(), Some(status));
        }
    }
}

#[test]
fn rooms_are_opened_with_the_flags_of_serve() {
    let folder = TempDir::new();
    let path = |name: &str, text: &str| folder.write(name, assemble(text));
    let two_pages = path(
        "pages.wasm",
        &echo().replacen("\"memory\") 1)", "\"memory\") 2)", 1),
    );
    let busy = "(local $i i32) (loop (br_if 0 (i32.lt_u
        (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000))))";
    let busy = path("busy.wasm", &guest_0_2("", &[("connect", busy)], ""));
    let table = "(table.set $t (i32.const 0) (ref.null func))";
    let table = path(
        "table.wasm",
        &guest_0_2("", &[("timer", table)], "(table $t 1 funcref)"),
    );
    for (module, flags, words) in [
        (&two_pages, ["--max-memory-bytes", "131071"], "131071"),
        (
            &busy,
            ["--max-fuel-per-event", "10000"],
            "`connect`: one event used more than 10000",
        ),
        (
            &table,
            ["--on-fault", "rollback"],
            "cannot be saved or rolled back",
        ),
    ] {
        assert_eq!(warnings(module, &[]), [""; 0]);
        let found = problems(module, &flags);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn the_seed_is_that_of_serve() {
    let folder = TempDir::new();
    // The fuel to open a room is what is drawn.
    let import = r#"(import "wasi_snapshot_preview1" "random_get"
        (func $random (param i32 i32) (result i32)))"#;
    let body = "(local $i i32) (drop (call $random (i32.const 0) (i32.const 2)))
        (loop (br_if 0 (i32.le_u
            (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.load16_u (i32.const 0)))))";
    let text = guest_0_2(import, &[("initialize", body)], "");
    let path = folder.write("random.wat", text);
    let path = path.to_str().expect("UTF-8");
    let fuel = |flags: &[&str]| {
        let (_, printed, _) = check(&[&[path, "--json"], flags].concat());
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        report["room"]["fuel_to_open"].as_u64().expect("a number")
    };
    assert_eq!(fuel(&[]), fuel(&[]), "the same each time");
    assert_eq!(fuel(&["--seed", "7"]), fuel(&["--seed", "7"]));
    assert_ne!(fuel(&["--seed", "7"]), fuel(&["--seed", "8"]));
}

#[test]
fn rooms_are_opened_with_the_shortest_and_the_longest_id() {
    let folder = TempDir::new();
    let fails_if = |condition| {
        let body = format!("(if ({condition} (local.get 1)) (then (unreachable)))");
        let text = guest_0_2(ENV, &[("initialize", &body)], "");
        problem(&folder.write("picky.wat", text))
    };
    let empty = fails_if("i32.eqz");
    assert!(
        empty.starts_with("with the empty id: the guest failed in `initialize`"),
        "{empty}"
    );
    let long = fails_if("i32.lt_u (i32.const 255)");
    assert!(
        long.starts_with("with an id of 256 bytes: the guest failed in"),
        "{long}"
    );
    let both = fails_if("i32.lt_s (i32.const -1)");
    assert!(
        both.starts_with("the guest failed in `initialize`"),
        "{both}"
    );
}

#[test]
fn a_fault_that_the_room_survives_is_a_warning() {
    let folder = TempDir::new();
    let text = guest_0_2(ENV, &[("connect", "unreachable")], "");
    let path = folder.write("fails.wat", text);
    for flags in [&[][..], &["--on-fault", "restart"]] {
        let found = problems(&path, flags);
        assert!(
            found.len() == 1 && found[0].contains("`connect`"),
            "{found:?}"
        );
    }
    let found = warnings(&path, &["--on-fault", "rollback"]);
    assert!(
        found.len() == 1 && found[0].contains("`connect`"),
        "{found:?}"
    );
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
