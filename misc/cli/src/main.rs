//! `shoal`: the user's command. One module for each subcommand.

mod cli;
mod completions;
mod containerd;
mod convert;
mod doctor;
mod image;
mod output;
mod paths;
mod platform;
mod progress;
mod pull;
mod registries;
mod setup;
mod status;
mod trace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::usage(&error),
    };
    service::telemetry::start(&cli.log);
    service::exit::report("shoal", cli::run(cli.command))
}
