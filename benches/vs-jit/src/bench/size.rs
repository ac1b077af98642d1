//! Sizes of programs and numbers of crates, from cargo.

use super::{
    measure::Figure,
    table::{Group, Row, Unit},
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// This package's folder.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

pub fn rows() -> Result<Vec<Row>> {
    let ours = program(&["--example", "virtual_time"], "examples/virtual_time")?;
    let mut rows = Vec::new();
    let jits = [
        ("JIT 0.2.9", "0.2.9", "smallest_jit_0_2"),
        ("JIT 0.4.4", "0.4.4", "smallest_jit_0_4"),
    ];
    for (name, version, program) in jits {
        rows.push(row(
            format!("a program with a room, stripped, against {version}"),
            Unit::Bytes,
            &[("this crate", ours), (name, example(program)?)],
        ));
    }
    let tool = program(
        &["-p", "stateroom-wasmi", "--no-default-features"],
        "stateroom-wasmi",
    )?;
    rows.push(row(
        "the tool without the server, stripped".into(),
        Unit::Bytes,
        &[("this crate", tool)],
    ));
    let root = Path::new(HERE).join("../..");
    let ours = crates(&root, "stateroom-wasmi-host")?;
    for (name, version, _) in jits {
        let theirs = crates(Path::new(HERE), &format!("stateroom-wasm-host@{version}"))?;
        rows.push(row(
            format!("crates that the library depends on, against {version}"),
            Unit::Count,
            &[("this crate", ours), (name, theirs)],
        ));
    }
    Ok(rows)
}

fn row(title: String, unit: Unit, values: &[(&str, usize)]) -> Row {
    let value = |value: usize| vec![value as f64];
    let first = value(values[0].1);
    let figures = values
        .iter()
        .map(|(name, bytes)| Figure::new(name, value(*bytes), &first));
    Row {
        title,
        group: Group::Size,
        unit,
        figures: figures.collect(),
        goal: None,
    }
}

/// The size of an example of this package, built in the same target folder, so that its
/// dependencies are built already.
fn example(name: &str) -> Result<usize> {
    let target = target_folder()?;
    let features = super::features().unwrap_or_default();
    build(
        Path::new(HERE),
        &target,
        &["--features", &features, "--example", name],
    )?;
    length(&target.join("release/examples").join(name))
}

/// The size of a program of this repository's workspace.
fn program(arguments: &[&str], name: &str) -> Result<usize> {
    let target = target_folder()?.join("size");
    build(&Path::new(HERE).join("../.."), &target, arguments)?;
    length(&target.join("release").join(name))
}

fn build(package: &Path, target: &Path, arguments: &[&str]) -> Result<()> {
    let status = cargo(package)
        .args(["rustc", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(target)
        .args(arguments)
        // For the program alone; a profile would apply to the libraries, too.
        .args(["--", "-C", "strip=symbols"])
        .status()?;
    ensure!(
        status.success(),
        "cargo rustc {} failed",
        arguments.join(" ")
    );
    Ok(())
}

fn length(program: &Path) -> Result<usize> {
    let file = std::fs::metadata(program).with_context(|| program.display().to_string())?;
    Ok(usize::try_from(file.len())?)
}

/// The number of crates that a library depends on.
fn crates(package: &Path, library: &str) -> Result<usize> {
    let output = cargo(package)
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            library,
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let all: BTreeSet<&str> = text
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    Ok(all.len() - 1)
}

/// The cargo that runs this program, or the one in the path.
fn cargo(package: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(package);
    command
}

/// The target folder that this program is in.
fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program
        .ancestors()
        .nth(2)
        .context("the program is not in a target folder")?
        .to_owned())
}
