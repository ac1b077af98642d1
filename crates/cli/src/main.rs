//! The command-line tool `stateroom-wasmi`.
//!
//! - `serve` serves the rooms of a module over WebSockets.
//! - `attach` does so for the rooms of a board at the other end of a link.
//! - `check` checks whether a module can be served.
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
mod store;

use clap::{Parser, Subcommand};
use stateroom_wasmi_host::WithSources;
use std::{
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
    Attach(attach::Attach),
    Check(check::Check),
    #[cfg(feature = "serve")]
    Store(store::StoreCommand),
    #[cfg(feature = "serve")]
    Replay(replay::Replay),
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
    let result = match Cli::parse().command {
        #[cfg(feature = "serve")]
        Command::Serve(serve) => serve.run(&logging),
        #[cfg(feature = "serve")]
        Command::Attach(attach) => attach.run(&logging),
        Command::Check(check) => check.run(),
        #[cfg(feature = "serve")]
        Command::Store(store) => store.run(),
        #[cfg(feature = "serve")]
        Command::Replay(replay) => replay.run(),
    };
    result.unwrap_or_else(|error| {
        logging.print_error(WithSources(&*error));
        ExitCode::FAILURE
    })
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
