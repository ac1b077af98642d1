//! Serves Stateroom rooms, and checks modules; without the feature `serve` it only checks.

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

/// Runs Stateroom rooms, small WebAssembly modules that serve a group of clients, on an interpreter.
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

/// An error and what it came from, in one line each.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
