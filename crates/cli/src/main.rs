//! The command-line tool `stateroom-wasmi`.
//!
//! - `serve` serves the rooms of a module over WebSockets.
//! - `attach` does so for the rooms of a board at the other end of a link.
//! - `check` checks whether a module can be served.
//!
//! `serve` and `attach` need the feature `serve`, which is on by default. The server itself is the
//! library `stateroom-wasmi-server`.

#![forbid(unsafe_code)]

#[cfg(feature = "serve")]
mod attach;
mod check;
#[cfg(feature = "serve")]
mod listen;
mod module_file;
#[cfg(feature = "serve")]
mod serve;

use clap::{Parser, Subcommand};
use std::{error::Error, process::ExitCode};

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
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_target(false)
        .init();
    let result = match Cli::parse().command {
        #[cfg(feature = "serve")]
        Command::Serve(serve) => serve.run(),
        #[cfg(feature = "serve")]
        Command::Attach(attach) => attach.run(),
        Command::Check(check) => check.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", with_sources(&*error));
        ExitCode::FAILURE
    })
}

/// An error and its sources, on one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
