//! `shoal explain`: where the chunks of mounted images came from, how long that took and why.

mod shown;
mod target;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use nydusd_api::{Client, ExplainRequest, Explanation};
use serde::Serialize;

use crate::{output, status};

/// Longest wait for one answer: a large image takes a while to walk.
const ANSWER: Duration = Duration::from_secs(30);

/// Flags of `shoal explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Where a chunk came from:
  cache                 it was there when the image was mounted
  p2p-here              this node's p2pd had it on its disk
  p2p-peers             p2pd had it from other nodes
  p2p-origin            p2pd had it from the registry (p2p-mixed: some of it)
  registry              nydusd had it from the registry; WHY says why not through p2pd
  shared                it came for another image with the same blob
  absent                nobody has needed it yet
  forgotten             it came by a read so long ago that it is not remembered

WAIT is the time from when a chunk was first asked for until its bytes were checked.

Examples:
  shoal explain
  shoal explain registry.example.com/redis:7-lazy
  shoal explain --file /usr/local/bin/redis-server my-container
  shoal explain --chunks --json /12 --apisock /run/nydusd.sock")]
pub(crate) struct Args {
    /// Mountpoints as `shoal status` shows them, images, containers, or directories where one is mounted; all where none
    /// is named
    #[arg(value_name = "MOUNTPOINT|IMAGE|CONTAINER|DIR")]
    targets: Vec<String>,
    /// Show every chunk, not only those that were waited for longest
    #[arg(long)]
    chunks: bool,
    /// Show the chunks of one file of the image
    #[arg(long, value_name = "PATH", conflicts_with = "chunks")]
    file: Option<String>,
    /// Show so many of the chunks that were waited for longest
    #[arg(long, value_name = "N", default_value_t = 20)]
    slowest: usize,
    /// The snapshotter's directory
    #[arg(long, value_name = "DIR", default_value = status::DEFAULT_ROOT)]
    root: PathBuf,
    /// Socket of a nydusd, instead of the snapshotter's
    #[arg(long, value_name = "SOCKET")]
    apisock: Option<PathBuf>,
    /// Print as JSON, times in microseconds
    #[arg(long)]
    json: bool,
}

/// An image and what became of it.
#[derive(Debug, Serialize)]
struct Explained {
    /// Host and repository of its blobs, where a registry has them.
    image: String,
    #[serde(flatten)]
    told: Explanation,
}

/// Explains.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let socket = args.apisock.clone().unwrap_or_else(|| args.root.join("api.sock"));
    let client = Client::new(&socket, ANSWER);
    let daemon = client.status().await.context("no nydusd; it starts with the first lazy container")?;
    let all = client.mounts().await?.into_iter().map(|mounted| {
        let image = status::place(&daemon.backend_collection[&mounted.mountpoint]);
        target::Candidate { mounted, image }
    });
    let chosen = target::choose(all.collect(), &args.targets)?;
    let mut explained = Vec::new();
    for candidate in chosen {
        let request = ExplainRequest {
            mountpoint: candidate.mounted.mountpoint,
            chunks: args.chunks,
            slowest: args.slowest,
            path: args.file.clone(),
            paths: true,
        };
        explained.push(Explained { image: candidate.image, told: client.explain(&request).await? });
    }
    match args.json {
        true => output::json(&explained),
        false => Ok(shown::show(&explained)?),
    }
}
