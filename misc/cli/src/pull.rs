//! `shoal pull`: an image into containerd, lazy layers only by name.

mod downloads;
mod fetch;
mod labels;
mod unpack;

use anyhow::Context;
use registry::{Client, Reference};
use serde::Serialize;
use service::{exit::UsageError, shutdown};

use crate::{
    containerd::{Containerd, ContainerdArgs},
    output,
    platform::Platform,
    registries::RegistryArgs,
};

/// Flags of `shoal pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal pull registry.example.com/team/app:1.2-lazy
  shoal pull --namespace k8s.io --address /run/k3s/containerd/containerd.sock registry.example.com/app
  shoal pull --snapshotter overlayfs --json docker.io/library/redis:7

Then run it: ctr run --rm --snapshotter nydus registry.example.com/team/app:1.2-lazy NAME")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    image: String,
    #[command(flatten)]
    containerd: ContainerdArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Variant of a multi-platform image: os/arch[/variant] (default: this machine's)
    #[arg(long)]
    platform: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a pull did.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    image: String,
    digest: String,
    manifest: String,
    snapshotter: String,
    chain_id: String,
    layers: usize,
    /// Layers that were not downloaded: lazy ones, and those the node had.
    kept_layers: usize,
    downloaded_bytes: u64,
    layers_bytes: u64,
}

/// Pulls.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let reference = Reference::parse(&args.image).map_err(|error| UsageError(error.to_string()))?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
    let registry = Client::new(args.registries.options())?;
    let containerd = Containerd::connect(&args.containerd).await?;
    let stop = shutdown::on_signal().context("cannot listen to signals")?;
    let (leased, lease) = containerd.lease().await?;
    let pull = fetch::Pull::new(leased, registry, reference, platform);
    let result = tokio::select! {
        result = pull.run() => result,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    if result.is_err() {
        pull.abandon().await;
    }
    let ended = lease.end(result.is_err()).await;
    let pulled = result.with_context(|| format!("cannot pull {}", args.image))?;
    ended?;
    if args.json {
        return output::json(&pulled);
    }
    output::line(summary(&pulled))?;
    Ok(())
}

fn summary(pulled: &Pulled) -> String {
    format!(
        "{}: {} of {} layers and {} of {} downloaded",
        pulled.image,
        pulled.layers - pulled.kept_layers,
        pulled.layers,
        output::size(pulled.downloaded_bytes),
        output::size(pulled.layers_bytes),
    )
}
