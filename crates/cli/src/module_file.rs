//! Reads the module that the command line names.

use crate::{
    diagnosis::{file_kind, is_text_format},
    project_hint,
};
use stateroom_wasmi_host::Escaped;
use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A module in the binary format.
pub(crate) struct ModuleFile {
    pub(crate) wasm: Vec<u8>,
    /// The folder's `static`, if it was read from a folder with one.
    #[cfg_attr(
        not(feature = "serve"),
        expect(dead_code, reason = "only a server serves files")
    )]
    pub(crate) static_dir: Option<PathBuf>,
}

impl ModuleFile {
    /// Reads a `.wasm` or `.wat` file, or a folder with `server.wasm` (and `static`), the layout of
    /// `stateroom serve`.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let file = module_path(path);
        let static_dir = Some(path.join("static")).filter(|dir| path.is_dir() && dir.is_dir());
        let error = |reason| FileError {
            hint: Some(&reason)
                .filter(|reason| is_of_a_project(&file, reason))
                .and_then(|_| project_hint::hint(path)),
            path: file.clone(),
            reason,
        };
        let bytes = read(&file).map_err(|reason| error(Reason::Unreadable(reason)))?;
        if let Some(kind) = file_kind(&bytes) {
            return Err(error(Reason::NotAModule(kind)));
        }
        let wasm = if is_text_format(&bytes) {
            let parsed = wat::parse_bytes(&bytes).map_err(|mut reason| {
                let path = Escaped::new(file.display()).to_string();
                reason.set_path(Path::new(&path));
                error(Reason::Text(reason))
            });
            parsed?.into_owned()
        } else {
            bytes
        };
        Ok(Self { wasm, static_dir })
    }

    /// The name of the file that is read for a path.
    pub(crate) fn name(path: &Path) -> String {
        let file = module_path(path);
        file.file_name()
            .unwrap_or(file.as_os_str())
            .to_string_lossy()
            .into_owned()
    }
}

/// The file that is read for a path.
pub(crate) fn module_path(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join("server.wasm"),
        false => path.to_owned(),
    }
}

/// Whether somebody has most likely named a part of a project, or a module that is not built yet.
fn is_of_a_project(file: &Path, reason: &Reason) -> bool {
    /// Sources, and what compilers make besides modules; a native program may have none.
    const EXTENSIONS: [&str; 20] = [
        "", "a", "c", "d", "dll", "dylib", "exe", "go", "h", "json", "lib", "mod", "o", "rlib",
        "rmeta", "rs", "so", "toml", "ts", "zig",
    ];
    match reason {
        Reason::Unreadable(error) => error.kind() == io::ErrorKind::NotFound,
        Reason::NotAModule(_) => {
            let extension = file.extension().unwrap_or_default();
            EXTENSIONS.iter().any(|known| extension == *known)
        }
        Reason::Text(_) => false,
    }
}

/// Reads a file, but not one without an end.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    /// Sixteen times the longest module; text is longer than what it stands for.
    const MAX_BYTES: u64 = 256 << 20;
    let mut bytes = Vec::new();
    File::open(file)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let error = format!("it is longer than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

/// Why a file is no module.
#[derive(Debug)]
pub(crate) struct FileError {
    path: PathBuf,
    reason: Reason,
    /// What to do.
    hint: Option<String>,
}

#[derive(Debug)]
enum Reason {
    Unreadable(io::Error),
    /// What it is instead.
    NotAModule(&'static str),
    /// It is not valid text.
    Text(wat::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Escaped::new(self.path.display());
        match &self.reason {
            Reason::Unreadable(error) => write!(f, "cannot read {path}: {error}"),
            Reason::NotAModule(kind) => write!(f, "{path} is {kind}"),
            Reason::Text(error) => {
                /// It quotes a line of the file, of any length.
                const MAX_CHARS: usize = 1000;
                let error = Escaped::new(error).keep_lines().at_most(MAX_CHARS);
                write!(f, "not valid WebAssembly text: {error}")
            }
        }?;
        match &self.hint {
            Some(hint) => write!(f, ". {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for FileError {}
