//! `nydus-image`: builds RAFS v6 layers and merges them, with the command line of the original.

mod cli;
mod command;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    service::exit::report("nydus-image", command::run(cli))
}
