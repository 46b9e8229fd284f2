//! `shoal get`: one blob or file, by the piece network where it can, from its own server where not.

pub(crate) mod dfget;
mod pace;
mod part;
mod source;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use registry::{BlobStream, Client, SocketMirror, is_digest};
use serde::Serialize;
use service::{exit::UsageError, shutdown, size};
use tokio_stream::StreamExt as _;

use self::{pace::Pace, part::Part, source::Source};
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
  shoal get --rate-limit 10MiB --json registry.example.com/app@sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945 -o layer

A download that was interrupted goes on where it was, from FILE.part; all of it is checked in the end. The name dfget
stands for this command, with the flags of Dragonfly's.")]
pub(crate) struct Args {
    /// What to download: REGISTRY/NAME@DIGEST, or http://… or https://…
    source: String,
    /// Where to
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// What a URL's file must be: sha256:HEX
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Bytes a second at most, such as 10MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    rate_limit: Option<u64>,
    /// Seconds for all of it (default: as long as something comes)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
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

/// What came.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: PathBuf,
    digest: String,
    bytes: u64,
    /// Of them, those that were here from an earlier run, came by the piece network, and from the server.
    resumed_bytes: u64,
    p2p_bytes: u64,
    server_bytes: u64,
    seconds: f64,
}

/// Downloads.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (source, digest) = (Source::parse(&args.source)?, wanted_digest(&args)?);
    let stop = shutdown::on_signal().context("cannot listen to signals")?;
    let limit = Duration::from_secs(args.timeout.unwrap_or(NO_LIMIT));
    let began = Instant::now();
    let mut report = tokio::select! {
        got = tokio::time::timeout(limit, get(&args, &source, digest.as_deref())) => {
            got.with_context(|| format!("{} is not here within {limit:?}", args.source))??
        }
        () = stop.cancelled() => bail!("interrupted; what came is kept for the next time"),
    };
    report.seconds = began.elapsed().as_secs_f64();
    if args.json {
        return output::json(&report);
    }
    let Report { file, bytes, digest, p2p_bytes, server_bytes, resumed_bytes, .. } = report;
    output::line(format!(
        "{}: {}, {digest} ({} by the piece network, {} from the server, {} from before)",
        file.display(),
        output::size(bytes),
        output::size(p2p_bytes),
        output::size(server_bytes),
        output::size(resumed_bytes)
    ))?;
    Ok(())
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

async fn get(args: &Args, source: &Source, digest: Option<&str>) -> anyhow::Result<Report> {
    let bars = Bars::new();
    let name = digest.map_or_else(|| source.name(), |digest| short(digest).to_owned());
    let bar = bars.bar(&name, 0);
    let mut download = Download {
        part: Part::open(&args.output, digest.is_some()).await?,
        client: Client::new(args.registries.options())?,
        mirror: (!args.no_p2p && args.p2p_socket.exists())
            .then(|| SocketMirror::new(&args.p2p_socket, SILENCE))
            .transpose()?,
        pace: Pace::new(args.rate_limit),
        bar: bar.clone(),
        report: Report::default(),
    };
    download.report.resumed_bytes = download.part.len();
    let mut found = download.run(source).await?;
    if digest.is_some_and(|digest| digest != found) {
        // What was here before, or what the network gave, may be wrong. The server is asked for all of it, once.
        bars.line("what came is not what its digest says: all of it comes again, from the server");
        (download.mirror, download.report) = (None, Report::default());
        download.part.restart()?;
        found = download.run(source).await?;
    }
    if let Some(digest) = digest.filter(|digest| *digest != found) {
        download.part.discard()?;
        bail!("{} is {found}, not {digest}: its server has something else", args.source);
    }
    let mut report = download.report;
    (report.bytes, report.digest, report.file) = (download.part.len(), found, args.output.clone());
    download.part.keep().await?;
    bars.done(&bar, "done");
    Ok(report)
}

struct Download {
    part: Part,
    client: Client,
    mirror: Option<SocketMirror>,
    pace: Pace,
    bar: ProgressBar,
    report: Report,
}

impl Download {
    /// Fetches what is missing; says the digest of all of it.
    async fn run(&mut self, source: &Source) -> anyhow::Result<String> {
        self.bar.set_position(self.part.len());
        if let (Some(mirror), Source::Blob { repository, digest }) = (self.mirror.clone(), source) {
            let from = self.part.len();
            let came = match mirror.blob(repository, digest, from).await {
                Ok(rest) => {
                    self.bar.set_length(rest.total);
                    self.take(rest.body).await
                }
                Err(error) => Err(error.into()),
            };
            self.report.p2p_bytes += self.part.len() - from;
            match came {
                Ok(()) => return Ok(self.part.digest()),
                Err(error) if error.is::<part::WriteError>() => return Err(error),
                Err(error) => tracing::warn!("the piece network did not give all of it: {error:#}"),
            }
        }
        let from = self.part.len();
        let came = match source.open(&self.client, from).await {
            Ok(None) => Ok(()),
            Ok(Some((total, body))) => {
                total.inspect(|total| self.bar.set_length(*total));
                self.take(body).await
            }
            Err(error) => Err(error),
        };
        self.report.server_bytes += self.part.len() - from;
        came?;
        Ok(self.part.digest())
    }

    async fn take(&mut self, mut body: BlobStream) -> anyhow::Result<()> {
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            self.pace.wait(bytes.len()).await;
            self.part.write(&bytes)?;
            self.bar.inc(bytes.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
