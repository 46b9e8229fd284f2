//! Flags and dispatch.

use anyhow::Context;
use clap::{Parser, Subcommand};
use service::{telemetry::LogArgs, version};

use crate::{completions, convert, doctor, explain, get, pull, setup, status, trace};

/// Lazy container images: convert them, pull them, see what they do.
#[derive(Debug, Parser)]
#[command(name = "shoal", version = version::LONG, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to log.
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn an OCI or Docker image into a lazy one
    Convert(convert::Args),
    /// Pull an image into containerd, fetching the data of lazy images only when it is read
    Pull(pull::Args),
    /// Download a blob or a file, by the piece network where it can
    Get(get::Args),
    /// Run a command in a lazy image and list the files it reads
    Trace(trace::Args),
    /// Print the configuration that containerd and systemd need
    Setup(setup::Args),
    /// Check what this machine needs to run lazy images
    Doctor(doctor::Args),
    /// Show the mounted images and what they have read
    Status(status::Args),
    /// Tell where the chunks of mounted images came from, how long that took and why
    Explain(explain::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// Runs one subcommand to its end.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(args) => return setup::run(&args),
        Command::Completions(args) => return completions::run(&args),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        match command {
            Command::Convert(args) => convert::run(args).await,
            Command::Pull(args) => pull::run(args).await,
            Command::Get(args) => get::run(args).await,
            Command::Trace(args) => trace::run(args).await,
            Command::Doctor(args) => doctor::run(&args).await,
            Command::Status(args) => status::run(&args).await,
            Command::Explain(args) => explain::run(&args).await,
            Command::Setup(_) | Command::Completions(_) => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{} has no example", command.get_name());
        }
    }
}
