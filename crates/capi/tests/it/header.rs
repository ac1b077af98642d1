//! `include/stateroom.h` is what this makes of the sources. `UPDATE_HEADER=1 cargo test -p
//! stateroom-wasmi-capi header` writes it.

use std::{env, fmt::Write, fs, path::Path};

/// The header's sections in order: a title, and the source that is its contents.
const SECTIONS: &[(&str, &[&str])] = &[
    ("Versions", &["version"]),
    ("Errors", &["status", "buffer"]),
    ("The allocator", &["allocator"]),
    ("Limits", &["limits"]),
    ("Modules", &["module"]),
    ("Faults", &["fault"]),
    ("The log", &["log_line"]),
    ("Figures", &["stats"]),
    ("What callbacks are passed", &["callbacks"]),
    ("Hosts", &["host"]),
    ("Rooms", &["room"]),
    ("Snapshots", &["snapshot"]),
];

#[test]
fn the_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/stateroom.h");
    let header = header(root);
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    assert!(
        committed == header,
        "include/stateroom.h is not current: run UPDATE_HEADER=1 cargo test -p stateroom-wasmi-capi header"
    );
}

/// Both can be linked into one program, such as a test of a room.
#[test]
fn no_name_is_one_of_the_guests_abi() {
    let header = header(Path::new(env!("CARGO_MANIFEST_DIR")));
    let code = header
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    for name in code
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| word.to_lowercase().starts_with("stateroom_"))
    {
        for guest in ["malloc", "free", "recv", "send", "keep_payload_buffer"] {
            assert_ne!(name, format!("stateroom_{guest}"));
        }
        assert!(!name.starts_with("STATEROOM_API_"), "{name}");
    }
}

#[test]
fn the_readme_has_each_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let header = header(root);
    let functions: Vec<_> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '#', '}']))
        .filter_map(|line| line.split_once('('))
        .map(|(start, _)| start.rsplit([' ', '*']).next().unwrap())
        .collect();
    assert!(functions.len() > 30, "{functions:?}");
    for function in functions {
        assert!(readme.contains(&format!("`{function}`")), "{function}");
    }
}

fn header(root: &Path) -> String {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut header = fs::read_to_string(root.join("header/prologue.h")).unwrap();
    for (title, sources) in SECTIONS {
        write!(header, "\n// ==== {title} ").unwrap();
        let width = header.lines().last().map_or(0, str::len);
        writeln!(header, "{}", "=".repeat(97 - width)).unwrap();
        for source in *sources {
            let mut section = Vec::new();
            cbindgen::Builder::new()
                .with_config(config.clone())
                .with_src(root.join(format!("src/{source}.rs")))
                .generate()
                .unwrap()
                .write(&mut section);
            let section = String::from_utf8(section).unwrap();
            let section =
                simplify_types(&simplify_enums(&section)).replace("any_stateroom_", "stateroom_");
            write!(header, "\n{}\n", section.trim()).unwrap();
        }
    }
    header + "\n" + &fs::read_to_string(root.join("header/epilogue.h")).unwrap()
}

/// Types have names of their own, so nothing refers to them by their tags.
fn simplify_types(section: &str) -> String {
    let definition = "typedef struct stateroom_";
    section
        .split(definition)
        .map(|part| part.replace("struct stateroom_", "stateroom_"))
        .collect::<Vec<_>>()
        .join(definition)
}

/// An enumeration of C++ and C23 may have a type, one of C11 may not; a type and anonymous constants are
/// the same to all of them.
fn simplify_enums(section: &str) -> String {
    let mut result = String::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("enum ") else {
            writeln!(result, "{line}").unwrap();
            continue;
        };
        let name = name.trim_end_matches(" {");
        writeln!(result, "typedef int32_t {name};\nenum {{").unwrap();
        for line in lines
            .by_ref()
            .skip_while(|line| !line.trim_start().starts_with("//"))
        {
            writeln!(result, "{line}").unwrap();
            if line == "};" {
                break;
            }
        }
        let typedef = lines.by_ref().take_while(|line| !line.is_empty());
        assert!(typedef.last().is_some(), "the type of {name} is missing");
        result.push('\n');
    }
    result
}
