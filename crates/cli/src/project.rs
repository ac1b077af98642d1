//! How a room is built from its sources.

use crate::{
    cargo::{self, is_module},
    client::Client,
    project_kind::{CARGO, DEFAULT_TARGET, Kind},
};
use serde::Deserialize;
use stateroom_wasmi_host::Escaped;
use std::{
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
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
    client: Option<Client>,
}

/// What was built.
pub(crate) struct Built {
    pub(crate) module: PathBuf,
    /// The folder with the client's files, if there is a client.
    pub(crate) client: Option<PathBuf>,
}

enum Build {
    /// A package of Cargo; none is the folder's own.
    Cargo { package: Option<String> },
    /// A line for a shell.
    Shell(String),
}

/// `stateroom.toml`, as Stateroom's own tool reads it.
#[derive(Deserialize)]
struct StateroomToml {
    #[serde(default)]
    service: Service,
    static_files: Option<PathBuf>,
    client: Option<Client>,
}

#[derive(Default, Deserialize)]
struct Service {
    /// None is the folder's own.
    package: Option<String>,
}

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
        let mut client = None;
        let build = match command {
            Some(command) => Build::Shell(command),
            None if has("stateroom.toml") => {
                let text = fs::read_to_string(folder.join("stateroom.toml"));
                let text = text.map_err(|error| format!("cannot read stateroom.toml: {error}"))?;
                let config: StateroomToml =
                    toml::from_str(&text).map_err(|error| format!("stateroom.toml: {error}"))?;
                client = config.client;
                static_dir = config
                    .static_files
                    .map(|dir| folder.join(dir))
                    .or(static_dir);
                Build::Cargo {
                    package: config.service.package,
                }
            }
            None => match Kind::of(folder) {
                Some(kind) if kind.command == CARGO => Build::Cargo { package: None },
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
            client,
        })
    }

    /// Builds the room, and then its client if there is one.
    ///
    /// # Errors
    ///
    /// If that fails: why, with what to do about it if that is known.
    pub(crate) fn build(&self) -> Result<Built, String> {
        let built = match &self.build {
            Build::Cargo { package } => {
                let target = (!self.has_target()).then_some(DEFAULT_TARGET);
                Some(cargo::build(&self.folder, package.as_deref(), target)?)
            }
            Build::Shell(command) => {
                let (shell, flag) = if cfg!(windows) {
                    ("cmd", "/C")
                } else {
                    ("sh", "-c")
                };
                let mut shell = Command::new(shell);
                shell.args([flag, command]).current_dir(&self.folder);
                cargo::run(shell, command)?;
                None
            }
        };
        let module = self.module.clone().or(built);
        let module = module.or_else(|| newest_module(&self.folder));
        let module = module.ok_or_else(|| {
            "the build has made no .wasm file: pass its path as --module".to_owned()
        })?;
        let client = self.client.as_ref();
        let client = client
            .map(|client| client.build(&self.folder))
            .transpose()?;
        Ok(Built { module, client })
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
