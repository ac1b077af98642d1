//! Building with Cargo, and running what else builds a room.

use serde::Deserialize;
use stateroom_wasmi_host::Escaped;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Builds a package, or the folder's own, and returns the last module of what Cargo says it has made.
/// Without a target that of the folder's configuration is built for.
///
/// # Errors
///
/// If that fails: why, with what to do about it if that is known.
pub(crate) fn build(
    folder: &Path,
    package: Option<&str>,
    target: Option<&str>,
) -> Result<PathBuf, String> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(folder);
    if let Some(target) = target {
        cargo.args(["--target", target]);
    }
    if let Some(package) = package {
        cargo.args(["--package", package]);
    }
    let output = run(cargo, "cargo build")?;
    let module = output.lines().rev().find_map(|line| {
        let message: Message = serde_json::from_str(line).ok()?;
        message.filenames.into_iter().rfind(|file| is_module(file))
    });
    module.ok_or_else(|| {
        let name = package.map_or_else(
            || "the package".to_owned(),
            |package| format!("the package {:?}", Escaped::new(package)),
        );
        format!(
            "{name} has made no .wasm file: its Cargo.toml needs\n\n    [lib]\n    crate-type = \
             [\"cdylib\"]\n"
        )
    })
}

/// The version of a dependency that the workspace of a folder has locked; none if it does not have it.
///
/// # Errors
///
/// If the workspace cannot be read.
pub(crate) fn locked_version(folder: &Path, dependency: &str) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let mut cargo = Command::new("cargo");
    cargo
        .args(["locate-project", "--workspace", "--message-format=plain"])
        .current_dir(folder);
    let manifest = run(cargo, "cargo locate-project")?;
    let file = Path::new(manifest.trim_end()).with_file_name("Cargo.lock");
    let unreadable = |error: &dyn core::fmt::Display| {
        let file = Escaped::new(file.display()).to_string();
        format!("cannot read {file:?}: {}", Escaped::new(error))
    };
    let text = fs::read_to_string(&file).map_err(|error| unreadable(&error))?;
    let lock: Lock = toml::from_str(&text).map_err(|error| unreadable(&error))?;
    let mut packages = lock.package.into_iter();
    let package = packages.find(|package| package.name == dependency);
    Ok(package.map(|package| package.version))
}

/// Whether this is the name of a module.
pub(crate) fn is_module(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "wasm")
}

/// Runs a command; returns what it prints on standard output.
///
/// # Errors
///
/// If that fails: why, with what it prints on standard error.
pub(crate) fn run(mut command: Command, name: &str) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("`{name}` is not installed"),
            _ => format!("cannot run `{name}`: {error}"),
        })?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into());
    }
    let advice = [
        (
            "can't find crate for `core`",
            "install the target: rustup target add wasm32-wasip1, and wasm32-unknown-unknown for a \
             client",
        ),
        (
            "undefined symbol",
            "the linker must leave the host's functions undefined: in .cargo/config.toml, under \
             [target.wasm32-wasip1], rustflags = [\"-C\", \"link-arg=--allow-undefined\"]",
        ),
    ];
    let advice = advice.iter().find(|(message, _)| stderr.contains(message));
    let advice = advice.map_or_else(String::new, |(_, advice)| format!("\n{advice}\n"));
    Err(format!(
        "`{name}` has failed ({})\n{stderr}{advice}",
        output.status
    ))
}
