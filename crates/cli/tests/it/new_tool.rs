//! `stateroom-wasmi new`. The CI step `rooms` builds and plays what it creates.

use super::{TempDir, repository};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

const LANGUAGES: [&str; 6] = ["rust", "rust-0.2", "c", "assemblyscript", "go", "zig"];

/// Runs `new` in a folder.
fn new(folder: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
        .arg("new")
        .args(args)
        .current_dir(&folder.0)
        .output()
        .expect("cannot run the tool")
}

/// They are copies, and no links, which a checkout on Windows leaves as files that hold a path.
#[test]
fn the_examples_have_the_support_files_of_the_templates() {
    let templates = repository().join("crates/cli/templates");
    let examples = repository().join("examples/rooms");
    for (template, example) in [
        ("assemblyscript/assembly/stateroom.ts", None),
        ("assemblyscript/assembly/tsconfig.json", None),
        ("c/malloc.c", None),
        ("c/stateroom.h", None),
        ("go/stateroom/stateroom.go", None),
        ("zig/src/stateroom.zig", Some("zig/stateroom.zig")),
    ] {
        let (original, copy) = (
            templates.join(template),
            examples.join(example.unwrap_or(template)),
        );
        let kind = fs::symlink_metadata(&copy)
            .expect("it is there")
            .file_type();
        assert!(kind.is_file(), "{} is no regular file", copy.display());
        let read = |path: &Path| fs::read(path).expect("it can be read");
        assert!(
            read(&original) == read(&copy),
            "they differ: cp {} {}",
            original.display(),
            copy.display()
        );
    }
}

/// The files below a folder, by their paths in it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = Vec::from([folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).expect("below it");
                found.insert(path.to_str().expect("UTF-8").replace('\\', "/"));
            }
        }
    }
    found
}

fn refusal(output: Output) -> String {
    assert!(output.stdout.is_empty(), "{output:?}");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    errors
}

#[test]
fn a_room_in_each_language() {
    let folder = TempDir::new();
    let templates = repository().join("crates/cli/templates");
    for lang in LANGUAGES {
        let name = format!("{}_x-1", lang.replace('.', "-"));
        let output = new(&folder, &[&name, "--lang", lang]);
        assert!(output.status.success(), "{output:?}");
        let room = folder.0.join(&name);

        // All files of the templates, but of the Rust rooms some are the same.
        let mut expected = files(&templates.join(lang));
        if lang == "rust-0.2" {
            expected.extend(files(&templates.join("rust")));
        }
        let rename = |path: String| match path.as_str() {
            "gitignore" => ".gitignore".to_owned(),
            "Cargo.toml.in" => "Cargo.toml".to_owned(),
            _ => path,
        };
        let mut expected: BTreeSet<_> = expected.into_iter().map(rename).collect();
        expected.insert("room.test".to_owned());
        assert_eq!(files(&room), expected);

        for file in expected {
            let text = fs::read_to_string(room.join(&file)).expect("a text");
            let left = ["my-room", "my_room"].map(|placeholder| text.contains(placeholder));
            assert_eq!(left, [false; 2], "{file}");
        }
        // What is printed is what the README says.
        let readme = fs::read_to_string(room.join("README.md")).expect("a text");
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        let commands = printed.split("\n\n").nth(1).expect("commands");
        let mut lines = commands.lines().map(str::trim);
        assert_eq!(lines.next(), Some(&*format!("cd {name}")));
        assert_eq!(lines.clone().count(), 4, "{printed}");
        for line in lines {
            assert!(readme.contains(&format!("\n{line}\n")), "{line}");
            let names_module = line.contains(&format!("/{name}.wasm"))
                || line.contains(&format!("/{}.wasm", name.replace('-', "_")))
                || line.contains(&format!(" {name}.wasm"));
            let builds = !line.starts_with("stateroom-wasmi");
            assert!(names_module || builds, "{line}");
        }
    }
}

#[test]
fn rust_is_the_default() {
    let folder = TempDir::new();
    assert!(new(&folder, &["a"]).status.success());
    let manifest = fs::read_to_string(folder.0.join("a/Cargo.toml")).expect("a manifest");
    assert!(manifest.contains("name = \"a\"\n"), "{manifest}");
    assert!(manifest.contains("stateroom-wasm = \"0.4"), "{manifest}");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let crate_types = manifest["lib"]["crate-type"].as_array().expect("a list");
    assert_eq!(crate_types[..], [toml::Value::from("cdylib")]);
}

#[test]
fn hostile_names_are_refused() {
    let folder = TempDir::new();
    let long = "x".repeat(65);
    for name in [
        "",
        " ",
        ".",
        "..",
        "../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        "C:x",
        "-x",
        "_x",
        "1x",
        "A",
        "größe",
        "a.b",
        "a b",
        "a\nb",
        "a\"b",
        "a\u{1b}[2J",
        "con",
        "com1",
        "assemblyscript",
        "vendor",
        &long,
    ] {
        for lang in LANGUAGES {
            let error = refusal(new(&folder, &["--lang", lang, "--", name]));
            assert_eq!(error.lines().count(), 1, "{error:?}");
            assert!(error.starts_with("error: \""), "{error:?}");
            assert!(!error.trim_end().contains(char::is_control), "{error:?}");
        }
        assert_eq!(files(&folder.0).len(), 0, "{name:?}");
        assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 0);
    }
    // As a flag, it is not one of ours.
    assert_eq!(new(&folder, &["-x"]).status.code(), Some(2));
    assert_eq!(
        new(&folder, &["x", "--lang", "cobol"]).status.code(),
        Some(2)
    );
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 0);
}

#[test]
fn names_that_look_hostile_are_good() {
    let folder = TempDir::new();
    let long = "x".repeat(64);
    for name in [
        "my_room2",
        "my-room",
        "my-room-my_room",
        "com",
        "com10",
        "a-",
        &long,
    ] {
        let output = new(&folder, &[name]);
        assert!(output.status.success(), "{output:?}");
        let read = |file: &str| fs::read_to_string(folder.0.join(name).join(file)).expect("a text");
        let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some(name));
        let library = name.replace('-', "_");
        assert!(read("README.md").contains(&format!("/release/{library}.wasm\n")));
    }
}

#[test]
fn what_exists_is_left_as_it_is() {
    let folder = TempDir::new();
    folder.write("file", "mine");
    folder.write("folder/Cargo.toml", "mine");
    fs::create_dir(folder.0.join("empty")).expect("a folder");
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", folder.0.join("link")).expect("a link");
    let before = files(&folder.0);
    let existing = ["file", "folder", "empty"];
    for name in existing.into_iter().chain(cfg!(unix).then_some("link")) {
        let error = refusal(new(&folder, &[name]));
        assert_eq!(
            error,
            format!("error: {name} exists, and is left as it is\n")
        );
    }
    assert_eq!(files(&folder.0), before);
    assert_eq!(fs::read_dir(folder.0.join("empty")).expect("it").count(), 0);
    for file in ["file", "folder/Cargo.toml"] {
        assert_eq!(fs::read_to_string(folder.0.join(file)).expect("it"), "mine");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_written_leaves_nothing_behind() {
    let folder = TempDir::new();
    // No file may be longer than no bytes.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" new room";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_stateroom-wasmi")])
        .current_dir(&folder.0)
        .output()
        .expect("cannot run sh");
    let error = refusal(output);
    assert!(error.starts_with("error: cannot create room: "), "{error}");
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 0);
}
