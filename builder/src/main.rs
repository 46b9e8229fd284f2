//! `nydus-image`: builds RAFS v6 layers and merges them, with the command line of the original.

mod cli;
mod command;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    match service::exit::flags::<cli::Cli>() {
        Ok(cli) => service::exit::report("nydus-image", command::run(cli)),
        Err(code) => code,
    }
}
