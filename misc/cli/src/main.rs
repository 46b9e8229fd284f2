//! `shoal`: the user's command. One module for each subcommand.

mod cli;
mod completions;
mod containerd;
mod convert;
mod doctor;
mod explain;
mod get;
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

fn main() -> ExitCode {
    if get::dfget::is_called() {
        return get::dfget::main();
    }
    let cli = match service::exit::flags::<cli::Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    service::telemetry::start(&cli.log);
    service::exit::report("shoal", cli::run(cli.command))
}
