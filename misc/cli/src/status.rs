//! `shoal status`.

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  shoal status")]
pub(crate) struct Args {}

/// Runs.
pub(crate) async fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("lands within the hour")
}
