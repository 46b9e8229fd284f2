//! The `p2pd` program.

use std::process::ExitCode;

use p2p::{cli::Cli, run};

fn main() -> ExitCode {
    match Cli::from_args() {
        Ok(cli) => service::exit::report("p2pd", run::run(cli)),
        Err(code) => code,
    }
}
