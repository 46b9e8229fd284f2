//! `shoal completions`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Flags of `shoal completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  shoal completions bash > /etc/bash_completion.d/shoal")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shoal", &mut script);
    // clap_complete itself panics on a closed pipe.
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(())
}
