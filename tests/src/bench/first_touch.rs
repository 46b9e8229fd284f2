//! The first read of data whose backend costs nothing: what decompressing, checking and storing take.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::warm::one_pass;
use crate::{command::command, daemon::Daemon, node::Node, programs, scratch::Mounted};

const START: Duration = Duration::from_secs(30);

/// An image whose blobs are files in memory.
pub(super) struct InMemory {
    dir: PathBuf,
    bootstrap: PathBuf,
    samples: u32,
}

impl InMemory {
    /// Takes the blobs of `repository:lazy` from the registry's own directory, and the bootstrap that `node` has
    /// unpacked for it.
    pub(super) fn take(node: &Node, repository: &str) -> Result<Self> {
        let dir = node.scratch.dir("first-touch")?;
        let blobs = dir.join("blobs");
        fs::create_dir_all(&blobs)?;
        let manifest = node.registry.manifest(repository, "lazy")?;
        for layer in manifest["layers"].as_array().context("the image has layers")? {
            let digest = layer["digest"].as_str().context("a layer has a digest")?;
            let hex = digest.trim_start_matches("sha256:");
            fs::hard_link(node.registry.blob_file(hex), blobs.join(hex))?;
        }
        let bootstrap = node.snapshotter.bootstrap().context("the node has unpacked a bootstrap")?;
        Ok(Self { dir, bootstrap, samples: 0 })
    }

    /// Reads the big file below overlay, through a daemon that has never seen it.
    pub(super) fn sample(&mut self) -> Result<Duration> {
        self.samples += 1;
        let own = self.dir.join(self.samples.to_string());
        let part = |name: &str| own.join(name);
        for name in ["mnt", "cache", "upper", "work"] {
            fs::create_dir_all(part(name))?;
        }
        let config = serde_json::json!({ "device": {
            "backend": { "type": "localfs", "config": { "dir": self.dir.join("blobs") } },
            "cache": { "config": { "work_dir": part("cache") } },
        }});
        fs::write(part("config.json"), config.to_string())?;
        let mut start = command(programs::path("nydusd")?, ["--mountpoint"]);
        start
            .arg(part("mnt"))
            .arg("--bootstrap")
            .arg(&self.bootstrap)
            .arg("--config")
            .arg(part("config.json"));
        let mut daemon = Daemon::start("nydusd", &mut start, &part("log"))?;
        daemon.wait_ready(START, || part("mnt/bench/big").exists())?;
        for blob in fs::read_dir(self.dir.join("blobs"))? {
            fs::read(blob?.path())?;
        }
        let took = self.read(&own)?;
        daemon.stop()?;
        ensure!(fs::read_dir(part("cache"))?.next().is_some(), "the daemon has cached nothing");
        fs::remove_dir_all(own)?;
        Ok(took)
    }

    fn read(&self, own: &Path) -> Result<Duration> {
        let places = ["mnt", "upper", "work"].map(|name| own.join(name).display().to_string());
        let options = format!("lowerdir={},upperdir={},workdir={}", places[0], places[1], places[2]);
        let overlay = Mounted::new(["-t", "overlay", "-o", &options, "overlay"], &own.join("root"))?;
        one_pass(overlay.path())
    }
}
