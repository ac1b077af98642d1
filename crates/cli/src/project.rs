//! How a room is built from its sources.

use crate::project_kind::{CARGO, DEFAULT_TARGET, Kind};
use serde::Deserialize;
use stateroom_wasmi_host::Escaped;
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

/// A folder with the sources of a room.
pub(crate) struct Project {
    folder: PathBuf,
    build: Build,
    /// What is built, if that is known before.
    module: Option<PathBuf>,
    /// What is no source although it is in the folder.
    written: Vec<PathBuf>,
    /// The folder of files that Stateroom's own tool would serve.
    pub(crate) static_dir: Option<PathBuf>,
}

enum Build {
    /// A package of Cargo; none is the folder's own. The target is for folders that name none.
    Cargo {
        package: Option<String>,
        target: &'static str,
    },
    /// A line for a shell.
    Shell(String),
}

/// `stateroom.toml`, as Stateroom's own tool reads it, as far as it is about the room.
#[derive(Deserialize)]
struct StateroomToml {
    service: Service,
    static_files: Option<PathBuf>,
    client: Option<toml::Table>,
}

#[derive(Deserialize)]
struct Service {
    package: String,
}

/// That of Stateroom's own tool.
const STATEROOM_TARGET: &str = "wasm32-unknown-unknown";

impl Project {
    /// Finds out how a folder's room is built: by `command`, or by what is in the folder. The `module` that
    /// is built and the `data` that the server writes are no sources.
    ///
    /// # Errors
    ///
    /// If nothing in the folder tells.
    pub(crate) fn find(
        folder: &Path,
        command: Option<String>,
        module: Option<PathBuf>,
        data: Option<&Path>,
    ) -> Result<Self, String> {
        let written = module.as_deref().into_iter().chain(data);
        let written = written.filter_map(|path| std::path::absolute(path).ok());
        let written = written.collect();
        let has = |name: &str| folder.join(name).is_file();
        let mut static_dir = Some(folder.join("static")).filter(|dir| dir.is_dir());
        let build = match command {
            Some(command) => Build::Shell(command),
            None if has("stateroom.toml") => {
                let text = fs::read_to_string(folder.join("stateroom.toml"));
                let text = text.map_err(|error| format!("cannot read stateroom.toml: {error}"))?;
                let config: StateroomToml =
                    toml::from_str(&text).map_err(|error| format!("stateroom.toml: {error}"))?;
                if config.client.is_some() {
                    log::warn!(
                        "stateroom.toml has a client, which is not built here: build it with \
                         wasm-bindgen into the folder of static files"
                    );
                }
                static_dir = config
                    .static_files
                    .map(|dir| folder.join(dir))
                    .or(static_dir);
                let package = Some(config.service.package);
                Build::Cargo {
                    package,
                    target: STATEROOM_TARGET,
                }
            }
            None => match Kind::of(folder) {
                Some(kind) if kind.command == CARGO => Build::Cargo {
                    package: None,
                    target: DEFAULT_TARGET,
                },
                Some(kind) => Build::Shell(kind.command.into()),
                None => {
                    return Err(format!(
                        "nothing in {:?} tells how the room is built: pass the command as --build",
                        Escaped::new(folder.display())
                    ));
                }
            },
        };
        Ok(Self {
            folder: folder.to_owned(),
            build,
            module,
            written,
            static_dir,
        })
    }

    /// Builds the room, with what the build prints on standard error, and returns the module.
    ///
    /// # Errors
    ///
    /// If that fails: why, with what to do about it if that is known.
    pub(crate) fn build(&self) -> Result<PathBuf, String> {
        let built = match &self.build {
            Build::Cargo { package, target } => self.cargo(package.as_deref(), target)?,
            Build::Shell(command) => {
                let (shell, flag) = if cfg!(windows) {
                    ("cmd", "/C")
                } else {
                    ("sh", "-c")
                };
                let mut shell = Command::new(shell);
                shell.args([flag, command]).current_dir(&self.folder);
                run(shell, command)?;
                None
            }
        };
        let built = self.module.clone().or(built);
        built
            .or_else(|| newest_module(&self.folder))
            .ok_or_else(|| "the build has made no .wasm file: pass its path as --module".to_owned())
    }

    /// The last module of what Cargo says it has made.
    fn cargo(&self, package: Option<&str>, target: &str) -> Result<Option<PathBuf>, String> {
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
            .current_dir(&self.folder);
        if !self.has_target() {
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
        match module {
            Some(module) => Ok(Some(module)),
            None => Err(
                "the package has made no .wasm file: its Cargo.toml needs\n\n    [lib]\n    \
                         crate-type = [\"cdylib\"]\n"
                    .into(),
            ),
        }
    }

    /// Whether the folder's configuration of Cargo chooses the target.
    fn has_target(&self) -> bool {
        let config = fs::read_to_string(self.folder.join(".cargo/config.toml"));
        let config = config.unwrap_or_default().parse::<toml::Table>();
        config.is_ok_and(|config| {
            let build = config.get("build").and_then(|build| build.get("target"));
            build.is_some()
        })
    }

    /// Whether a file is a source: what a build writes must not start the next one.
    pub(crate) fn is_source(&self, path: &Path) -> bool {
        const BUILT: [&str; 8] = [
            "target",
            "node_modules",
            "build",
            "dist",
            "zig-out",
            ".zig-cache",
            ".git",
            ".cache",
        ];
        let is_built =
            |component: Component<'_>| BUILT.iter().any(|name| component.as_os_str() == *name);
        // Folders above the project do not count, whatever their names are.
        let below = path.strip_prefix(&self.folder).unwrap_or(path);
        let is_written = self.written.iter().any(|written| path.starts_with(written));
        !is_module(path) && !is_written && !below.components().any(is_built)
    }
}

/// Runs a command; returns what it prints on standard output.
fn run(mut command: Command, name: &str) -> Result<String, String> {
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
            "install the target, such as: rustup target add wasm32-wasip1",
        ),
        (
            "undefined symbol",
            "the linker must leave the host's functions undefined: in .cargo/config.toml, under \
             [target.wasm32-unknown-unknown], rustflags = [\"-C\", \"link-arg=--allow-undefined\"]",
        ),
    ];
    let advice = advice.iter().find(|(message, _)| stderr.contains(message));
    let advice = advice.map_or_else(String::new, |(_, advice)| format!("\n{advice}\n"));
    Err(format!(
        "`{name}` has failed ({})\n{stderr}{advice}",
        output.status
    ))
}

fn is_module(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "wasm")
}

/// The module below a folder that was written last, of no more than some thousand files.
fn newest_module(folder: &Path) -> Option<PathBuf> {
    const MAX_ENTRIES: usize = 100_000;
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    let mut folders = Vec::from([folder.to_owned()]);
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
            entries += 1;
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() && entries < MAX_ENTRIES {
                let is_other = [".git", "node_modules"]
                    .iter()
                    .any(|name| path.ends_with(name));
                if !is_other {
                    folders.push(path);
                }
            } else if is_module(&path)
                && let Ok(written) = entry.metadata().and_then(|file| file.modified())
                && newest.as_ref().is_none_or(|(at, _)| written > *at)
            {
                newest = Some((written, path));
            }
        }
    }
    newest.map(|(_, module)| module)
}
