//! A module as the command line names it.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// A module that was read, binary.
pub(crate) struct ModuleFile {
    pub(crate) name: String,
    pub(crate) wasm: Vec<u8>,
    /// The files that belong to it, if it is a folder that has some.
    #[cfg_attr(
        not(feature = "serve"),
        expect(dead_code, reason = "only a server serves files")
    )]
    pub(crate) static_dir: Option<PathBuf>,
}

impl ModuleFile {
    /// Reads a `.wasm`, a `.wat`, or a folder with `server.wasm` (and `static`), as
    /// `stateroom serve` takes it.
    pub(crate) fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let (file, static_dir) = match path.is_dir() {
            true => (
                path.join("server.wasm"),
                Some(path.join("static")).filter(|dir| dir.is_dir()),
            ),
            false => (path.to_owned(), None),
        };
        let bytes =
            fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        // Binary modules are returned as they are.
        let wasm = wat::parse_bytes(&bytes)
            .map_err(|mut error| {
                error.set_path(&file);
                error
            })?
            .into_owned();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            name,
            wasm,
            static_dir,
        })
    }
}
