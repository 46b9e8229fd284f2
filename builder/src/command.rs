//! One function a command.

mod create;
mod inspect;
mod merge;

use std::{io::Read, path::Path};

use anyhow::Context;
use builder::PrefetchList;

use crate::cli::{Cli, Command, PrefetchArgs, PrefetchPolicy};

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(path) = &cli.log_file {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("open log file {}", path.display()))?;
        nix::unistd::dup2_stderr(&file).context("send stderr to the log file")?;
    }
    service::telemetry::start(&cli.log);
    match cli.command {
        Command::Create(args) => create::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Check(args) => inspect::check(&args),
        Command::Inspect(args) => inspect::run(&args),
    }
}

/// Reads patterns from stdin, where the policy says that it has some.
fn prefetch_list(args: &PrefetchArgs) -> anyhow::Result<PrefetchList> {
    if args.prefetch_policy == PrefetchPolicy::None {
        return Ok(PrefetchList::default());
    }
    /// More text than any list of an image's files.
    const MOST: u64 = 64 << 20;
    let mut text = Vec::new();
    std::io::stdin().take(MOST).read_to_end(&mut text).context("read prefetch patterns from stdin")?;
    Ok(PrefetchList::parse(&text))
}

/// Reads a bootstrap whole.
fn read_tree(path: &Path) -> anyhow::Result<rafs::Tree> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let bootstrap = rafs::Bootstrap::open(bytes).with_context(|| format!("bootstrap {}", path.display()))?;
    bootstrap.to_tree().with_context(|| format!("bootstrap {}", path.display()))
}
