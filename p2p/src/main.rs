//! The `p2pd` program.

use std::process::ExitCode;

use p2p::{cli::Cli, run};

fn main() -> ExitCode {
    match service::exit::flags::<Cli>() {
        Ok(cli) => service::exit::report("p2pd", run::run(cli)),
        Err(code) => code,
    }
}
