//! A stand-alone nydusd that shows one image of a registry.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

use crate::{command::command, daemon::Daemon, programs, registry::Registry};

const READY: Duration = Duration::from_secs(30);

/// A running nydusd; dropped, it ends and unmounts.
#[derive(Debug)]
pub struct Nydusd {
    daemon: Daemon,
    api: PathBuf,
    mountpoint: PathBuf,
}

impl Nydusd {
    /// Shows the image whose bootstrap layer was unpacked into `bootstrap`, with files of its own in `dir`. `backend` is
    /// the configuration of the registry backend.
    ///
    /// # Errors
    /// Where the image is not seen in time.
    pub fn start(dir: &Path, bootstrap: &Path, backend: &serde_json::Value) -> Result<Self> {
        let (mountpoint, config) = (dir.join("mnt"), dir.join("nydusd.json"));
        fs::create_dir_all(&mountpoint)?;
        let text = serde_json::json!({
            "device": {
                "backend": { "type": "registry", "config": backend },
                "cache": { "type": "blobcache", "config": { "work_dir": dir.join("cache") } },
            },
            "fs_prefetch": { "enable": false },
        });
        fs::write(&config, text.to_string())?;
        let mut nydusd = command(programs::path("nydusd")?, ["--log-level", "debug"]);
        nydusd.arg("--mountpoint").arg(&mountpoint).arg("--config").arg(config);
        nydusd.arg("--bootstrap").arg(bootstrap.join("image/image.boot"));
        let api = dir.join("api.sock");
        nydusd.arg("--apisock").arg(&api);
        let mut daemon = Daemon::start("nydusd", &mut nydusd, &dir.join("nydusd.log"))?;
        let seen = || fs::read_dir(&mountpoint).is_ok_and(|mut entries| entries.next().is_some());
        daemon.wait_ready(READY, seen)?;
        Ok(Self { daemon, api, mountpoint })
    }

    /// The socket of its API.
    #[must_use]
    pub fn api(&self) -> &Path {
        &self.api
    }

    /// A file of the image.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.mountpoint.join(name)).with_context(|| format!("{name}\n{}", self.daemon.said()))
    }

    /// The end of what it logged.
    #[must_use]
    pub fn said(&self) -> String {
        self.daemon.said()
    }
}

impl Drop for Nydusd {
    fn drop(&mut self) {
        drop(self.daemon.stop());
        // One that had to be killed leaves its mount.
        nix::mount::umount2(&self.mountpoint, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// Unpacks the bootstrap layer of an image in a registry into `dir`; says the digests of its blobs, without `sha256:`.
///
/// # Errors
/// Where there is no such image.
pub fn unpack_bootstrap(registry: &Registry, repository: &str, tag: &str, dir: &Path) -> Result<Vec<String>> {
    let manifest = registry.manifest(repository, tag)?;
    let layers = manifest["layers"].as_array().context("a manifest has layers")?;
    let hex = |layer: &serde_json::Value| {
        layer["digest"].as_str().map(|digest| digest.trim_start_matches("sha256:").to_owned())
    };
    let (bootstrap, blobs) = layers.split_last().context("an image has layers")?;
    let file = fs::File::open(registry.blob_file(&hex(bootstrap).context("a layer has a digest")?))?;
    tar::Archive::new(GzDecoder::new(file)).unpack(dir)?;
    Ok(blobs.iter().filter_map(hex).collect())
}
