//! `shoal get`: blobs and files, by the piece network where it can, from their own server where not.

pub(crate) mod dfget;
mod download;
mod pace;
mod part;
mod patience;
mod recursive;
mod source;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use registry::{Client, SocketMirror, is_digest};
use serde::Serialize;
use service::{exit::UsageError, shutdown, size};

use self::{
    download::{Means, Report, download},
    pace::Pace,
    recursive::{Tree, recursive},
    source::Source,
};
use crate::{
    output,
    progress::{Bars, short},
    registries::RegistryArgs,
};

const DEFAULT_SOCKET: &str = "/run/shoal/p2pd.sock";
/// Longest silence of the piece network: it fetches for a while before it answers.
const SILENCE: Duration = Duration::from_secs(60);

/// Seconds that nobody waits.
const NO_LIMIT: u64 = u32::MAX as u64;

/// Flags of `shoal get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal get registry.example.com/app@sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945 -o layer
  shoal get https://files.example.com/model.bin -o model.bin --digest sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945
  shoal get --recursive https://files.example.com/models/ -o models --continue
  shoal get --rate-limit 10MiB --json registry.example.com/app@sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945 -o layer

A download that was interrupted goes on where it was, from FILE.part, if its digest is known: all of it is checked in the
end. Without a digest a URL begins anew.
shoal get --recursive replaces files that are there, unless --continue leaves them. It follows links of the index pages that
lead below the URL, and fails in the end if something did not come.  The name dfget stands for this command, with the flags of Dragonfly's.")]
pub(crate) struct Args {
    /// What to download: REGISTRY/NAME@DIGEST, or http://… or https://…
    source: String,
    /// Where to; a directory for --recursive
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Download the files that the web server's index at the URL lists, and those of directories below it
    #[arg(long, short, conflicts_with = "digest")]
    recursive: bool,
    /// Leave files alone that are there already (they have their names when they are whole; what is newer is not found)
    #[arg(long = "continue", requires = "recursive")]
    continues: bool,
    /// What a URL's file must be: sha256:HEX
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Bytes a second at most, such as 10MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    rate_limit: Option<u64>,
    /// Seconds for all of it (default: as long as something comes)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// How urgent it is to the piece network
    #[arg(long, value_name = "PRIORITY", value_enum, default_value_t)]
    priority: Priority,
    /// Socket of the piece network's daemon
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    p2p_socket: PathBuf,
    /// Ask the registry alone
    #[arg(long)]
    no_p2p: bool,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How urgent a download is, as the piece network knows it.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Priority {
    /// Somebody waits for it
    Demand,
    /// Somebody will, soon
    ReadAhead,
    /// As pulls are
    #[default]
    Trace,
    /// When nothing else is to do
    Background,
}

impl Priority {
    const fn name(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::ReadAhead => "read-ahead",
            Self::Trace => "trace",
            Self::Background => "background",
        }
    }
}

/// What came.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Got {
    File(Report),
    Tree(Tree),
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(report) => report.fmt(f),
            Self::Tree(tree) => tree.fmt(f),
        }
    }
}

#[derive(Debug, Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    got: &'a Got,
    seconds: f64,
}

/// Downloads.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let source = Source::parse(&args.source)?;
    let stop = shutdown::on_signal().context("cannot listen to signals")?;
    let limit = Duration::from_secs(args.timeout.unwrap_or(NO_LIMIT));
    let began = Instant::now();
    let got = tokio::select! {
        got = tokio::time::timeout(limit, Box::pin(get(&args, &source))) => {
            got.with_context(|| format!("{source} is not here within {limit:?}"))??
        }
        () = stop.cancelled() => bail!("interrupted; what came is kept for the next time"),
    };
    match args.json {
        true => output::json(&Timed { got: &got, seconds: began.elapsed().as_secs_f64() })?,
        false => output::line(&got)?,
    }
    match got {
        Got::File(_) => Ok(()),
        Got::Tree(tree) => tree.check(),
    }
}

async fn get(args: &Args, source: &Source) -> anyhow::Result<Got> {
    let mut means = means(args)?;
    if args.recursive {
        let root = recursive::root(source)?;
        return Ok(Got::Tree(recursive(&mut means, root, &args.output, args.continues).await?));
    }
    let digest = wanted_digest(args)?;
    let name = digest.as_deref().map_or_else(|| source.name(), |digest| short(digest).to_owned());
    let bar = means.bars.bar(&name, 0);
    let report = download(&mut means, source, digest.as_deref(), (&args.output, &bar)).await?;
    means.bars.done(&bar, "done");
    Ok(Got::File(report))
}

fn means(args: &Args) -> anyhow::Result<Means> {
    let mirror = (!args.no_p2p && args.p2p_socket.exists())
        .then(|| SocketMirror::new(&args.p2p_socket, SILENCE))
        .transpose()?;
    Ok(Means {
        client: Client::new(args.registries.options())?,
        mirror: mirror.map(|mirror| mirror.with_priority(args.priority.name())),
        pace: Pace::new(args.rate_limit),
        bars: Bars::new(),
    })
}

/// What the file must be, where that is known.
fn wanted_digest(args: &Args) -> Result<Option<String>, UsageError> {
    let named = Source::parse(&args.source)?.digest().map(ToOwned::to_owned);
    if let (Some(named), Some(digest)) = (&named, &args.digest)
        && named != digest
    {
        return Err(UsageError(format!("--digest {digest} is not that of {}", args.source)));
    }
    let wanted = named.or_else(|| args.digest.clone());
    match wanted {
        Some(digest) if !is_digest(&digest) || !digest.starts_with("sha256:") => {
            Err(UsageError(format!("{digest} is no digest: sha256: and 64 hexadecimal digits")))
        }
        wanted => Ok(wanted),
    }
}

#[cfg(test)]
mod tests;
