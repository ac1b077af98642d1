//! `stateroom-wasmi dev`.

use crate::{
    logging::Logging,
    module_file::ModuleFile,
    project::{Built, Project},
    reload::reload_changed,
    serve::{ServeArgs, bind, run, run_server},
    watch::{Changes, settle},
};
use clap::Args;
use stateroom_wasmi_host::{Escaped, ModuleHash};
use stateroom_wasmi_server::{ServerControl, journal::ModuleUpgrade};
use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio::{sync::Notify, task::spawn_blocking};

/// Build a room, serve it, and build it again when its sources change
///
/// A folder with a Cargo.toml or a stateroom.toml is built by Cargo, one with a build.zig by `zig build`, one
/// with a go.mod by `go build`, one with a package.json by `npm run build`, one with a Makefile by `make`. Rooms
/// go on with each new module, and clients stay connected: their state passes by the modules' exports
/// `stateroom_save` and `stateroom_load`, or else a fresh guest begins anew. Why a build fails is printed, and shown on the page.
#[derive(Args)]
pub(crate) struct Dev {
    /// The folder with the sources
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Command that builds the room, in the folder, for the shell
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// What the command builds [default: the .wasm file below the folder that was written last]
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    #[command(flatten)]
    server: ServeArgs,
}

impl Dev {
    pub(crate) fn run(self, logging: &Logging) -> Result<ExitCode, Box<dyn Error>> {
        self.server.set_log_format(logging);
        let folder = std::path::absolute(&self.folder)?;
        let project = Project::find(&folder, self.build, self.module, self.server.data())?;
        let project = Arc::new(project);
        run(async {
            let changed = Arc::new(Notify::new());
            let sources = project.clone();
            let is_source = move |path: &Path| sources.is_source(path);
            let _changes = Changes::of_folder(&folder, is_source, changed.clone())?;
            let built = loop {
                match build(&project).await {
                    Ok(built) => break built,
                    Err(error) => print_failure(&error),
                }
                log::info!("waiting for a change in {}", Escaped::new(folder.display()));
                changed.notified().await;
                settle(&changed).await;
            };
            let mut config = self.server.config(&built.module, logging)?;
            if config.upgrade == ModuleUpgrade::Refuse {
                config.upgrade = ModuleUpgrade::HookOrRestart;
            }
            config.static_dir = config.static_dir.or_else(|| project.static_dir.clone());
            config.client_dir = built.client;
            let served = ModuleHash::of(&config.module);
            let server = bind(config).await?;
            let rebuilding = tokio::spawn(rebuild(project, changed, server.control(), served));
            let served = run_server(server, &ModuleFile::name(&built.module)).await;
            rebuilding.abort();
            served
        })
    }
}

/// Builds a room whenever its sources have changed, and lets the server go on with it. A change of files or
/// of the client alone leaves the rooms as they are.
async fn rebuild(
    project: Arc<Project>,
    changed: Arc<Notify>,
    control: ServerControl,
    mut served: ModuleHash,
) {
    loop {
        changed.notified().await;
        settle(&changed).await;
        match build(&project).await {
            Ok(built) => {
                let control = control.clone();
                let reloaded =
                    spawn_blocking(move || reload_changed(&built.module, served, &control));
                // Fails if it has panicked.
                if let Ok(reloaded) = reloaded.await {
                    served = reloaded;
                }
            }
            Err(error) => {
                print_failure(&error);
                control.set_notice(Some(error));
            }
        }
    }
}

async fn build(project: &Arc<Project>) -> Result<Built, String> {
    log::info!("building");
    let project = project.clone();
    let built = spawn_blocking(move || project.build()).await;
    built.unwrap_or_else(|error| Err(error.to_string()))
}

/// As the build has written it, line by line.
fn print_failure(error: &str) {
    for line in error.lines() {
        log::error!("{line}");
    }
}
