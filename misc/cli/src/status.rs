//! `shoal status`: what nydusd serves on this node.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use nydusd_api::{Client, DataPath, MountedImage};
use serde::Serialize;
use serde_json::Value;

use crate::output;

/// Where the snapshotter keeps its things unless told otherwise.
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.nydus";
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Flags of `shoal status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal status
  shoal status --json --apisock /run/nydusd.sock")]
pub(crate) struct Args {
    /// The snapshotter's directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    root: PathBuf,
    /// Socket of a nydusd, instead of the snapshotter's
    #[arg(long, value_name = "SOCKET")]
    apisock: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// A daemon and its images.
#[derive(Debug, Serialize)]
struct Status {
    socket: PathBuf,
    state: String,
    version: String,
    images: Vec<ImageStatus>,
}

/// One mounted image.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ImageStatus {
    mountpoint: String,
    /// Who answers containers.
    data_path: DataPath,
    /// Host and repository of its blobs, where a registry has them.
    source: String,
    /// Bytes that were asked of nydusd: by containers, or by the kernel for them.
    read_bytes: u64,
    /// Bytes that came from the source.
    fetched_bytes: u64,
    fetches: u64,
    fetch_errors: u64,
    /// Reads that needed nothing from the source, in percent.
    hit_percent: u64,
}

/// Shows.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let socket = args.apisock.clone().unwrap_or_else(|| args.root.join("api.sock"));
    let client = Client::new(&socket, ANSWER);
    let daemon = client.status().await.context("no nydusd; it starts with the first lazy container")?;
    let mut images = Vec::new();
    for mounted in client.mounts().await? {
        let backend = &daemon.backend_collection[&mounted.mountpoint];
        images.push(image(&client, &mounted, backend).await?);
    }
    let status = Status {
        socket,
        state: format!("{:?}", daemon.state).to_uppercase(),
        version: daemon.version.package_ver,
        images,
    };
    match args.json {
        true => output::json(&status),
        false => Ok(show(&status)?),
    }
}

async fn image(client: &Client, mounted: &MountedImage, backend: &Value) -> anyhow::Result<ImageStatus> {
    let mountpoint = &mounted.mountpoint;
    let get = async |kind: &str| client.get(&format!("/api/v1/metrics{kind}?id={mountpoint}")).await;
    let (files, cache, source) = (get("").await?, get("/blobcache").await?, get("/backend").await?);
    Ok(figures(mounted, backend, [&files, &cache, &source]))
}

fn figures(mounted: &MountedImage, backend: &Value, [files, cache, source]: [&Value; 3]) -> ImageStatus {
    let number = |from: &Value, key: &str| from[key].as_u64().unwrap_or(0);
    let (hits, total) = (number(cache, "whole_hits"), number(cache, "total"));
    ImageStatus {
        mountpoint: mounted.mountpoint.clone(),
        data_path: mounted.data_path,
        source: place(backend),
        read_bytes: number(files, "data_read"),
        fetched_bytes: number(source, "read_amount_total"),
        fetches: number(source, "read_count"),
        fetch_errors: number(source, "read_errors"),
        hit_percent: (hits * 100).checked_div(total).unwrap_or(100),
    }
}

/// Host and repository of an image's blobs, where a registry has them.
pub(crate) fn place(backend: &Value) -> String {
    let registry = backend.pointer("/config").or_else(|| backend.pointer("/registry")).unwrap_or(backend);
    match (registry["host"].as_str(), registry["repo"].as_str()) {
        (Some(host), Some(repo)) => format!("{host}/{repo}"),
        _ => backend["type"].as_str().unwrap_or("unknown").to_owned(),
    }
}

fn show(status: &Status) -> std::io::Result<()> {
    output::line(format!("nydusd {} at {} is {}", status.version, status.socket.display(), status.state))?;
    if status.images.is_empty() {
        return output::line("no image is mounted");
    }
    let head = ["IMAGE", "PATH", "SOURCE", "READ", "FETCHED", "FETCHES", "ERRORS", "HITS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(status.images.iter().map(|image| {
        vec![
            image.mountpoint.clone(),
            image.data_path.to_string(),
            image.source.clone(),
            output::size(image.read_bytes),
            output::size(image.fetched_bytes),
            image.fetches.to_string(),
            image.fetch_errors.to_string(),
            format!("{}%", image.hit_percent),
        ]
    }));
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mounted() -> MountedImage {
        MountedImage { mountpoint: "/1".into(), data_path: DataPath::Fuse, path: "/mnt/1".into() }
    }

    #[test]
    fn figures_come_from_the_three_metrics_of_nydusd() {
        let backend = json!({"type": "registry", "registry": {"host": "h:1", "repo": "a/b"}});
        let (files, cache) = (json!({"data_read": 10}), json!({"whole_hits": 3, "total": 4}));
        let source = json!({"read_amount_total": 5, "read_count": 2, "read_errors": 1});
        let shown = figures(&mounted(), &backend, [&files, &cache, &source]);
        assert_eq!(shown.source, "h:1/a/b");
        assert_eq!((shown.read_bytes, shown.fetched_bytes, shown.hit_percent), (10, 5, 75));
        assert_eq!((shown.fetches, shown.fetch_errors), (2, 1));
    }

    #[test]
    fn an_image_nobody_read_has_missed_nothing() {
        let nothing = json!({});
        assert_eq!(figures(&mounted(), &json!({"type": "localfs"}), [&nothing; 3]).hit_percent, 100);
    }
}
