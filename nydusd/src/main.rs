//! The `nydusd` program.

use std::process::ExitCode;

use nydusd::{cli::Cli, run};

fn main() -> ExitCode {
    match Cli::from_args() {
        Ok(cli) => service::exit::report("nydusd", run::run(cli)),
        Err(code) => code,
    }
}
