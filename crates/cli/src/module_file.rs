//! Reads the module that the command line names.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// A module in the binary format.
pub(crate) struct ModuleFile {
    pub(crate) name: String,
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
        // Binary modules pass through unchanged.
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
