//! The client of a `stateroom.toml`: a package that runs in browsers.

use crate::cargo;
use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A package that is built for browsers, by Cargo and wasm-bindgen.
#[derive(Debug, Deserialize)]
pub(crate) struct Client {
    package: String,
    #[serde(default)]
    optimization_level: Option<Level>,
}

/// How much `wasm-opt` optimises, as its flags `-O0` to `-O4`, `-Os` and `-Oz` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Level(char);

/// The target of browsers.
const TARGET: &str = "wasm32-unknown-unknown";

impl TryFrom<String> for Level {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let level = text.strip_prefix('-').unwrap_or(&text);
        let level = level.strip_prefix('O').unwrap_or(level);
        match level.as_bytes() {
            [level @ (b'0'..=b'4' | b's' | b'z')] => Ok(Self(char::from(*level))),
            _ => Err("the optimization_level must be one of 0 to 4, s and z"),
        }
    }
}

impl Client {
    /// Builds the client, and returns the folder with what pages load: `NAME.js` and `NAME_bg.wasm`.
    ///
    /// # Errors
    ///
    /// If that fails: why, with what to do about it if that is known.
    pub(crate) fn build(&self, folder: &Path) -> Result<PathBuf, String> {
        let module = cargo::build(folder, Some(&self.package), Some(TARGET))?;
        let missing = "the client's package does not depend on wasm-bindgen, which makes of it what \
                       pages can load";
        let version = cargo::locked_version(folder, "wasm-bindgen")?.ok_or(missing)?;
        check_version(&version)?;
        // Beside what Cargo makes, where it is no source and nobody's property.
        let out = module.with_file_name("client-pkg");
        let mut bindgen = Command::new(BINDGEN);
        bindgen
            .args(["--target", "web", "--out-dir"])
            .args([&out, &module]);
        cargo::run(bindgen, BINDGEN)?;
        if let Some(level) = self.optimization_level {
            let name = module.file_stem().unwrap_or_default().to_string_lossy();
            optimize(&out.join(format!("{name}_bg.wasm")), level)?;
        }
        Ok(out)
    }
}

const BINDGEN: &str = "wasm-bindgen";

/// Checks that the command is of the version that the client was built with: what they say to each other
/// changes from version to version.
fn check_version(needed: &str) -> Result<(), String> {
    let mut command = Command::new(BINDGEN);
    command.arg("--version");
    let advice = format!(
        "    cargo install wasm-bindgen-cli --version {needed} --locked\n\ninstalls that which the \
         client needs.\n"
    );
    let output = cargo::run(command, BINDGEN).map_err(|error| format!("{error}:\n\n{advice}"))?;
    let installed = output.split_whitespace().nth(1).unwrap_or("of no version");
    match installed == needed {
        true => Ok(()),
        false => Err(format!(
            "the client is built with wasm-bindgen {needed}, but the command `{BINDGEN}` is \
             {installed}, and they must be the same:\n\n{advice}"
        )),
    }
}

/// Optimises a module, if there is a command that does.
fn optimize(module: &Path, level: Level) -> Result<(), String> {
    const OPT: &str = "wasm-opt";
    /// What Rust's modules may use, and all browsers have.
    const FEATURES: [&str; 6] = [
        "--enable-bulk-memory",
        "--enable-sign-ext",
        "--enable-nontrapping-float-to-int",
        "--enable-mutable-globals",
        "--enable-multivalue",
        "--enable-reference-types",
    ];
    let mut version = Command::new(OPT);
    version.arg("--version");
    if version
        .output()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        // Stateroom's own tool does not optimise either.
        log::warn!("the client is not optimised, since `{OPT}` (of Binaryen) is not installed");
        return Ok(());
    }
    let optimized = module.with_extension("opt");
    let mut opt = Command::new(OPT);
    opt.arg(module)
        .arg("-o")
        .arg(&optimized)
        .arg(format!("-O{}", level.0))
        .args(FEATURES);
    cargo::run(opt, OPT)?;
    fs::rename(optimized, module).map_err(|error| format!("cannot write the client: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_wasm_opt() {
        for (text, level) in [("3", '3'), ("s", 's'), ("Oz", 'z'), ("-O4", '4')] {
            assert_eq!(Level::try_from(text.to_owned()), Ok(Level(level)), "{text}");
        }
        for text in ["", "5", "zz", "-O", "--help", "Z", "O 3"] {
            assert!(Level::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
