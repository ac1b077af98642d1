//! The project that a path belongs to, for those who name it in place of the module that it makes.

use crate::project_kind::{CARGO, DEFAULT_TARGET, Kind};
use stateroom_wasmi_host::Escaped;
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// What builds the project that a path is in or names, and which module that makes; none if there is no
/// project.
pub(crate) fn hint(path: &Path) -> Option<String> {
    /// `target/wasm32-wasip1/release/deps/x.wasm`, and some folders more.
    const MAX_PARENTS: usize = 8;
    let folders = path.ancestors().take(MAX_PARENTS);
    let (folder, kind) = folders
        .filter_map(|folder| Kind::of(folder).map(|kind| (folder, kind)))
        .next()?;
    let shown = match folder.as_os_str().is_empty() {
        true => Escaped::new(Path::new(".").display()).to_string(),
        false => Escaped::new(folder.display()).to_string(),
    };
    let (mut command, mut module) = (kind.command.to_owned(), built_module(folder, kind));
    let mut trap = "";
    if kind.command == CARGO {
        let crate_ = Crate::read(folder);
        if crate_.target.is_none() {
            command.push_str(" --target ");
            command.push_str(DEFAULT_TARGET);
        }
        if !crate_.is_cdylib {
            trap = "; its Cargo.toml lacks `crate-type = [\"cdylib\"]` below `[lib]`, without which \
                    cargo makes no module";
        }
        let made = || {
            let target = crate_.target.unwrap_or(DEFAULT_TARGET);
            let library = crate_.library?;
            Some(folder.join(format!("target/{target}/release/{library}")))
        };
        module = module.or_else(made);
    }
    let module = module.map_or(String::new(), |module| {
        format!(", which makes {}", Escaped::new(module.display()))
    });
    Some(format!(
        "`{shown}` is {}: build it with `{command}`{module}{trap}",
        kind.name
    ))
}

/// A module that the project has made before.
fn built_module(folder: &Path, kind: &Kind) -> Option<PathBuf> {
    /// Nobody is helped by waiting for a folder of millions of files.
    const MAX_FILES: usize = 10_000;
    kind.outputs.iter().find_map(|output| {
        let output = match *output {
            "." => folder.to_owned(),
            output => folder.join(output),
        };
        let read = match output.as_os_str().is_empty() {
            true => Path::new("."),
            false => &output,
        };
        let names = fs::read_dir(read).ok()?.take(MAX_FILES).flatten();
        let names = names.map(|entry| PathBuf::from(entry.file_name()));
        let modules = names.filter(|name| name.extension().is_some_and(|it| it == "wasm"));
        // Always the same one.
        modules.min().map(|name| output.join(name))
    })
}

/// What a hint says of a crate. Its files are searched for a few words, and not parsed: a hint may be
/// wrong where they are in unusual places.
struct Crate {
    /// The file that cargo makes of its library.
    library: Option<String>,
    is_cdylib: bool,
    /// For which target it is built, if its folder says so.
    target: Option<&'static str>,
}

impl Crate {
    fn read(folder: &Path) -> Self {
        let manifest = read_start(&folder.join("Cargo.toml"));
        let config = read_start(&folder.join(".cargo/config.toml"));
        let lines = manifest.lines().map(str::trim);
        let mut package = lines
            .clone()
            .skip_while(|line| *line != "[package]")
            .skip(1)
            .take_while(|line| !line.starts_with('['));
        let name = package.find_map(|line| {
            let value = line.strip_prefix("name")?.trim_start().strip_prefix('=')?;
            value.split('"').nth(1).filter(|name| is_crate_name(name))
        });
        let mut code = lines.filter(|line| !line.starts_with('#'));
        let config = config.lines().map(str::trim);
        let mut targets = config.filter(|line| line.starts_with("target"));
        Self {
            library: name.map(|name| format!("{}.wasm", name.replace('-', "_"))),
            // A workspace's crates say it themselves.
            is_cdylib: !manifest.contains("[package]") || code.any(|line| line.contains("cdylib")),
            target: targets.find_map(|line| {
                let mut known = ["wasm32-wasip1", "wasm32-unknown-unknown"].into_iter();
                known.find(|target| line.contains(target))
            }),
        }
    }
}

/// Whether cargo would take this name, and nobody has to read much of it.
fn is_crate_name(name: &str) -> bool {
    const MAX_BYTES: usize = 64;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.len() <= MAX_BYTES && name.chars().all(is_allowed)
}

/// As much of a file as is looked at; nothing if it cannot be read.
fn read_start(path: &Path) -> String {
    const MAX_BYTES: u64 = 64 << 10;
    let mut bytes = Vec::new();
    // A pipe would be waited for.
    if !path.is_file() {
        return String::new();
    }
    // The end of what could be read is as good as that of the file.
    let _ = File::open(path).map(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
