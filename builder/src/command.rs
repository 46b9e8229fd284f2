//! One function a command.

mod create;
mod inspect;
mod merge;
mod unpack;

use std::{io::Read, path::Path};

use anyhow::Context;
use builder::{ChunkDict, PrefetchList};

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
        Command::Unpack(args) => unpack::run(&args),
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

/// Takes up the chunks of the image that `--chunk-dict` names as `bootstrap=FILE`.
fn add_chunk_dict(dict: &mut ChunkDict, argument: &str, chunk_size: u32) -> anyhow::Result<()> {
    let path = match argument.split_once('=') {
        Some(("bootstrap", path)) => path,
        Some((kind, _)) => {
            let problem = format!("--chunk-dict {argument}: there is bootstrap=FILE, and no {kind}=");
            return Err(service::exit::UsageError(problem).into());
        }
        None => argument,
    };
    add_chunks(dict, &read_tree(Path::new(path))?, chunk_size).with_context(|| format!("--chunk-dict {path}"))
}

fn add_chunks(dict: &mut ChunkDict, image: &rafs::Tree, chunk_size: u32) -> anyhow::Result<()> {
    let found = image.chunk_size;
    anyhow::ensure!(found == chunk_size, "its chunks have {found:#x} bytes, not {chunk_size:#x}");
    dict.add(image);
    Ok(())
}

/// Reads a bootstrap whole.
fn read_tree(path: &Path) -> anyhow::Result<rafs::Tree> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let bootstrap = rafs::Bootstrap::open(bytes).with_context(|| format!("bootstrap {}", path.display()))?;
    bootstrap.to_tree().with_context(|| format!("bootstrap {}", path.display()))
}
