//! `shoal trace`: runs a command in a lazy image and lists what it reads. Needs nydusd and runc, no containerd.

mod bundle;
mod container;
mod daemon;
mod lazy;
mod mount;

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::Context;
use nydusd_api::TracedFile;
use registry::{Client, Reference};
use service::{exit::UsageError, shutdown};

use crate::{output, platform::Platform, registries::RegistryArgs};

/// Flags of `shoal trace`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal trace registry.example.com/app:1-lazy -- python3 -c 'import flask' > files.txt
  shoal trace --timeout 20 -o files.txt registry.example.com/redis:7-lazy
  shoal convert --prefetch files.txt registry.example.com/app:1 registry.example.com/app:1-lazy

The command runs on the network of this machine. What it prints goes to stderr. Where it fails,
the list is written all the same, and the exit code is 1.")]
pub(crate) struct Args {
    /// The lazy image
    image: String,
    /// What to run in it (default: what the image says)
    #[arg(last = true)]
    command: Vec<String>,
    /// Seconds after which a command that still runs is ended; what it has read until then counts
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Write the list to a file instead of stdout
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// One line for each range: path, offset and length. An image's list holds whole files, so `convert --prefetch`
    /// passes the numbers over
    #[arg(long, conflicts_with = "json")]
    ranges: bool,
    /// Print files and ranges as JSON
    #[arg(long)]
    json: bool,
    /// Variant of a multi-platform image: os/arch[/variant] (default: this machine's)
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    registries: RegistryArgs,
}

/// Traces.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let reference = Reference::parse(&args.image).map_err(|error| UsageError(error.to_string()))?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
    let options = args.registries.options();
    let client = Client::new(options.clone())?;
    let stop = shutdown::on_signal().context("cannot listen to signals")?;
    let work = tempfile::Builder::new().prefix("shoal-trace-").tempdir().context("no temporary directory")?;
    let bootstrap = work.path().join("image.boot");
    let image = lazy::fetch(&client, &reference, &platform, &bootstrap);
    let config = tokio::select! {
        config = image => config.with_context(|| format!("cannot trace {}", args.image))?,
        () = stop.cancelled() => anyhow::bail!("interrupted"),
    };
    let daemon = daemon::Daemon::start(work.path(), &reference, &options.hosts_dirs).await?;
    let stack = mount::Stack::over(&daemon.mountpoint(), work.path())?;
    let spec = bundle::spec(&config, &args.command, stack.root())?;
    let timeout = Duration::from_secs(args.timeout);
    daemon.start_trace().await?;
    let ran = container::run(work.path(), &spec, timeout, &stop).await;
    let files = daemon.trace().await;
    drop(stack);
    daemon.end().await;
    write(&args, &files?)?;
    // The list is of use, but whoever made it by a script should look.
    ran?.map_or(Ok(()), |problem| Err(anyhow::anyhow!(problem)))
}

fn write(args: &Args, files: &[TracedFile]) -> anyhow::Result<()> {
    let text = match (args.json, args.ranges) {
        (true, _) => serde_json::to_string_pretty(files)? + "\n",
        (false, ranges) => lines(files, ranges),
    };
    match &args.output {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display())),
        None => Ok(std::io::stdout().lock().write_all(text.as_bytes())?),
    }?;
    let bytes = files.iter().flat_map(|file| &file.ranges).map(|(_, len)| len).sum();
    tracing::info!("{} files, {} read", files.len(), output::size(bytes));
    Ok(())
}

/// The form that `shoal convert --prefetch` reads. A path with a line break cannot be listed.
fn lines(files: &[TracedFile], ranges: bool) -> String {
    let mut text = String::new();
    for file in files.iter().filter(|file| !file.path.contains('\n')) {
        if ranges {
            text.extend(file.ranges.iter().map(|(at, len)| format!("{}\t{at}\t{len}\n", file.path)));
        } else {
            text.push_str(&file.path);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<TracedFile> {
        let file =
            |path: &str, ranges: &[(u64, u64)]| TracedFile { path: path.into(), ranges: ranges.to_vec() };
        vec![file("/z", &[(0, 5), (9, 2)]), file("/a b", &[(4096, 1)]), file("/odd\nname", &[(0, 1)])]
    }

    #[test]
    fn files_are_listed_in_the_order_of_their_first_touch() {
        assert_eq!(lines(&files(), false), "/z\n/a b\n");
    }

    #[test]
    fn ranges_are_columns_behind_the_path() {
        assert_eq!(lines(&files(), true), "/z\t0\t5\n/z\t9\t2\n/a b\t4096\t1\n");
    }
}
