//! `stateroom-wasmi build`.

use crate::{module_file::ModuleFile, print, project::Project};
use clap::Args;
use stateroom_wasmi_host::Escaped;
use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Build a room into a folder that `serve` serves
///
/// The folder has server.wasm, and with static files or a client static/, as that of Stateroom's own tool.
#[derive(Args)]
pub(crate) struct BuildRoom {
    /// The folder with the sources
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The folder to write [default: dist, in the folder with the sources]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Command that builds the room, in the folder, for the shell
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// What the command builds [default: the .wasm file below the folder that was written last]
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
}

impl BuildRoom {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let folder = std::path::absolute(&self.folder)?;
        let out = self.out.unwrap_or_else(|| folder.join("dist"));
        let project = Project::find(&folder, self.build, self.module, None)?;
        let built = project.build()?;
        let module = ModuleFile::read(&built.module)?;
        fs::create_dir_all(&out)?;
        fs::write(out.join("server.wasm"), module.wasm)?;
        if let Some(files) = &project.static_dir {
            copy_files(files, &out.join("static"))?;
        }
        if let Some(files) = &built.client {
            copy_files(files, &out.join("static/client"))?;
        }
        print(&format!("{}\n", Escaped::new(out.display())))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Copies the regular files of a folder, and of those below it.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_files(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
