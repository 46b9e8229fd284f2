//! The `nydusd` program.

use std::process::ExitCode;

use nydusd::{cli::Cli, run};

fn main() -> ExitCode {
    match service::exit::flags::<Cli>() {
        Ok(cli) => service::exit::report("nydusd", run::run(cli)),
        Err(code) => code,
    }
}
