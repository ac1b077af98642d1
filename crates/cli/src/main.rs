//! The command-line tool `stateroom-wasmi`.
//!
//! - `serve` serves the rooms of a module over WebSockets.
//! - `attach` does so for the rooms of a board at the other end of a link.
//! - `check` checks whether a module can be served.
//! - `config` prints the settings with which `serve` would run, `completions` and `man` help at a shell.
//! - `store` looks into the rooms that `serve --data` keeps, and `replay` runs their events again.
//!
//! All but `check` need the feature `serve`, which is on by default. The server itself is the
//! library `stateroom-wasmi-server`.

#![forbid(unsafe_code)]

#[cfg(feature = "serve")]
mod admin;
#[cfg(feature = "serve")]
mod attach;
mod check;
#[cfg(feature = "serve")]
mod data;
mod diagnosis;
#[cfg(feature = "serve")]
mod listen;
mod logging;
mod module_file;
#[cfg(feature = "serve")]
mod replay;
mod room_args;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod settings;
#[cfg(feature = "serve")]
mod store;

#[cfg(feature = "serve")]
use clap::CommandFactory;
use clap::{Parser, Subcommand};
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
    #[cfg(feature = "serve")]
    Serve(Box<serve::Serve>),
    #[cfg(feature = "serve")]
    Attach(Box<attach::Attach>),
    Check(check::Check),
    #[cfg(feature = "serve")]
    Store(store::StoreCommand),
    #[cfg(feature = "serve")]
    Replay(replay::Replay),
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
    let logging = match logging::start() {
        Ok(logging) => logging,
        Err(error) => {
            // Fails if standard error is closed.
            let _ = writeln!(io::stderr(), "error: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = run(&logging);
    result.unwrap_or_else(|error| {
        logging.print_error(WithSources(&*error));
        ExitCode::FAILURE
    })
}

fn run(logging: &logging::Logging) -> Result<ExitCode, Box<dyn Error>> {
    #[cfg(feature = "serve")]
    let command_line = CommandLine::parse(Cli::command())?;
    #[cfg(feature = "serve")]
    let cli: Cli = command_line.parsed();
    #[cfg(not(feature = "serve"))]
    let (cli, _) = (Cli::parse(), logging);
    match cli.command {
        #[cfg(feature = "serve")]
        Command::Serve(serve) => serve.run(logging),
        #[cfg(feature = "serve")]
        Command::Attach(attach) => attach.run(logging),
        Command::Check(check) => check.run(),
        #[cfg(feature = "serve")]
        Command::Store(store) => store.run(),
        #[cfg(feature = "serve")]
        Command::Replay(replay) => replay.run(),
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
