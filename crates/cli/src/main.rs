//! The command-line tool `stateroom-wasmi`.
//!
//! - `new` creates a room to start from.
//! - `serve` serves the rooms of a module over WebSockets.
//! - `dev` does so for a room that is being written: it builds it again when its sources change.
//! - `build` builds it once, into a folder that `serve` serves.
//! - `attach` does so for the rooms of a board at the other end of a link.
//! - `check` checks whether a module can be served.
//! - `config` prints the settings with which `serve` would run, `completions` and `man` help at a shell.
//! - `test` plays scripts with a room and compares what its clients receive.
//! - `store` looks into the rooms that `serve --data` keeps, and `replay` runs their events again.
//! - `save`, `load` and `move` are for rooms of running servers.
//! - `cluster` shows the nodes of `serve --cluster`, and moves rooms between them.
//!
//! All but `new`, `check` and `test` need the feature `serve`, which is on by default. The server itself is the
//! library `stateroom-wasmi-server`.

#![forbid(unsafe_code)]

#[cfg(feature = "serve")]
mod admin;
mod advice;
#[cfg(feature = "serve")]
mod attach;
#[cfg(feature = "serve")]
mod build_room;
#[cfg(feature = "serve")]
mod cargo;
mod check;
#[cfg(feature = "serve")]
mod client;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "serve")]
mod data;
#[cfg(feature = "serve")]
mod dev;
mod diagnosis;
#[cfg(feature = "cluster")]
mod leaf;
#[cfg(feature = "serve")]
mod listen;
mod logging;
mod module_file;
mod new;
#[cfg(feature = "serve")]
mod project;
mod project_hint;
mod project_kind;
#[cfg(feature = "serve")]
mod reload;
#[cfg(feature = "serve")]
mod replay;
mod room_args;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod settings;
#[cfg(feature = "serve")]
mod store;
mod test;
#[cfg(feature = "serve")]
mod transfer;
#[cfg(feature = "serve")]
mod watch;

#[cfg(feature = "serve")]
use clap::CommandFactory;
use clap::{Parser, Subcommand};
use logging::Logging;
#[cfg(feature = "serve")]
use settings::CommandLine;
use stateroom_wasmi_host::WithSources;
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// Serves Stateroom rooms, small stateful WebAssembly modules that talk to groups of clients
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::New),
    #[cfg(feature = "serve")]
    Serve(Box<serve::Serve>),
    #[cfg(feature = "serve")]
    Dev(Box<dev::Dev>),
    #[cfg(feature = "serve")]
    Build(build_room::BuildRoom),
    #[cfg(feature = "serve")]
    Attach(Box<attach::Attach>),
    Check(check::Check),
    Test(Box<test::Test>),
    #[cfg(feature = "serve")]
    Store(store::StoreCommand),
    #[cfg(feature = "serve")]
    Replay(replay::Replay),
    #[cfg(feature = "serve")]
    Save(transfer::Save),
    #[cfg(feature = "serve")]
    Load(transfer::Load),
    #[cfg(feature = "serve")]
    Move(transfer::Move),
    #[cfg(feature = "cluster")]
    Cluster(cluster::ClusterCommand),
    /// Print the settings with which `serve` would run, and where each is from
    #[cfg(feature = "serve")]
    Config(Box<serve::Serve>),
    /// Print a script that completes commands in a shell
    #[cfg(feature = "serve")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a folder
    #[cfg(feature = "serve")]
    Man {
        /// The folder
        dir: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        // Fails if standard error is closed.
        let _ = writeln!(io::stderr(), "error: {}", WithSources(&*error));
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    #[cfg(feature = "serve")]
    let command_line = CommandLine::parse(Cli::command())?;
    #[cfg(feature = "serve")]
    let cli: Cli = command_line.parsed();
    #[cfg(not(feature = "serve"))]
    let cli = Cli::parse();
    match cli.command {
        Command::New(new) => new.run(),
        #[cfg(feature = "serve")]
        Command::Serve(serve) => logged(|logging| serve.run(logging)),
        #[cfg(feature = "serve")]
        Command::Dev(dev) => logged(|logging| dev.run(logging)),
        #[cfg(feature = "serve")]
        Command::Build(build) => logged(|_| build.run()),
        #[cfg(feature = "serve")]
        Command::Attach(attach) => logged(|logging| attach.run(logging)),
        Command::Check(check) => logged(|_| check.run()),
        // It logs nothing: what a room prints belongs to the test.
        Command::Test(test) => test.run(),
        #[cfg(feature = "serve")]
        Command::Store(store) => logged(|_| store.run()),
        #[cfg(feature = "serve")]
        Command::Replay(replay) => logged(|_| replay.run()),
        #[cfg(feature = "cluster")]
        Command::Cluster(cluster) => logged(|_| cluster.run()),
        #[cfg(feature = "serve")]
        Command::Save(save) => logged(|_| save.run()),
        #[cfg(feature = "serve")]
        Command::Load(load) => logged(|_| load.run()),
        #[cfg(feature = "serve")]
        Command::Move(moving) => logged(|_| moving.run()),
        #[cfg(feature = "serve")]
        Command::Config(_) => {
            print(&command_line.settings())?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "serve")]
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let (mut command, name) = (Cli::command(), env!("CARGO_PKG_NAME"));
            clap_complete::generate(shell, &mut command, name, &mut script);
            print(&String::from_utf8(script)?)?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "serve")]
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir)?;
            clap_mangen::generate_to(Cli::command(), &dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a command with the log, which also gets its error.
fn logged(
    run: impl FnOnce(&Logging) -> Result<ExitCode, Box<dyn Error>>,
) -> Result<ExitCode, Box<dyn Error>> {
    let logging = logging::start().map_err(|error| format!("cannot start the log: {error}"))?;
    Ok(run(&logging).unwrap_or_else(|error| {
        logging.print_error(WithSources(&*error));
        ExitCode::FAILURE
    }))
}

/// Prints to standard output. That a reader such as `head` has gone is no error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
