//! Compares stateroom-wasmi-host with the published JIT hosts of Stateroom. See README.md.

mod bench;
mod conformance;
mod engines;
mod jit;
mod runtime;
mod wasmi_host;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Compares this project with the JIT host: outputs and performance
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Conformance(conformance::Options),
    Bench(bench::Options),
    #[command(hide = true)]
    MemoryChild(bench::memory::Child),
    #[cfg(feature = "server")]
    #[command(hide = true)]
    ServerChild(bench::server::Child),
    #[cfg(feature = "server")]
    #[command(hide = true)]
    ServerLoad(bench::server::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Conformance(options) => {
            return Ok(if conformance::run(&options)? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Bench(options) => bench::run(&options)?,
        Command::MemoryChild(child) => child.run()?,
        #[cfg(feature = "server")]
        Command::ServerChild(child) => child.run()?,
        #[cfg(feature = "server")]
        Command::ServerLoad(load) => load.run()?,
    }
    Ok(ExitCode::SUCCESS)
}
