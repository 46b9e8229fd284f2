//! A nydusd of our own for one image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nydusd_api::{Client, DaemonState, TracedFile};
use registry::Reference;
use serde_json::json;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::paths;

/// Longest wait for the image to be mounted.
const START: Duration = Duration::from_secs(15);
/// Longest wait for the daemon to end.
const END: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The image is the root of the mount.
const ROOT: &str = "/";

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    client: Client,
    mountpoint: PathBuf,
}

impl Daemon {
    /// Starts nydusd over `work/image.boot` and waits until it serves.
    pub(super) async fn start(work: &Path, from: &Reference, hosts_dirs: &[PathBuf]) -> anyhow::Result<Self> {
        let program = paths::program("nydusd").context("nydusd is neither beside shoal nor in PATH")?;
        let (mountpoint, socket, config) =
            (work.join("mnt"), work.join("api.sock"), work.join("nydusd.json"));
        fs::create_dir(&mountpoint)?;
        fs::create_dir(work.join("cache"))?;
        let registry =
            json!({"host": from.repository.host, "repo": from.repository.path, "hosts_dirs": hosts_dirs});
        let settings = json!({
            "version": 2,
            "backend": {"type": "registry", "registry": registry},
            "cache": {"type": "blobcache", "filecache": {"work_dir": work.join("cache")}},
            "rafs": {"mode": "direct", "validate": true, "enable_xattr": true},
        });
        fs::write(&config, settings.to_string())?;
        let child = Command::new(&program)
            .args(["fuse", "--log-level", "warn", "--mountpoint"])
            .arg(&mountpoint)
            .arg("--bootstrap")
            .arg(work.join("image.boot"))
            .arg("--config")
            .arg(&config)
            .arg("--apisock")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            // Ctrl-C is ours to answer: the daemon must serve until the container is gone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self { child, client: Client::new(socket, ANSWER), mountpoint };
        daemon.until_running().await?;
        Ok(daemon)
    }

    /// Where the image is.
    pub(super) fn mountpoint(&self) -> PathBuf {
        self.mountpoint.clone()
    }

    /// Forgets what was read until now.
    pub(super) async fn start_trace(&self) -> anyhow::Result<()> {
        Ok(self.client.start_trace(ROOT).await?)
    }

    /// What was read since.
    pub(super) async fn trace(&self) -> anyhow::Result<Vec<TracedFile>> {
        Ok(self.client.trace(ROOT).await?)
    }

    /// Ends the daemon; its mount goes with it.
    pub(super) async fn end(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Where it has died already there is nothing to end.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        if tokio::time::timeout(END, self.child.wait()).await.is_err() {
            tracing::warn!("nydusd does not end; killing it");
        }
    }

    async fn until_running(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("nydusd ended at once: {status}");
            }
            match self.client.status().await {
                Ok(status) if status.state == DaemonState::Running => return Ok(()),
                _ if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                Ok(status) => anyhow::bail!("nydusd is still {:?} after {START:?}", status.state),
                Err(error) => return Err(error).context("nydusd does not come up"),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A killed daemon leaves a dead mount, which would keep the temporary directory.
        nix::mount::umount2(&self.mountpoint, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}
