//! A nydusd process: a child of ours, or one that an earlier snapshotter left.

use std::{
    collections::HashMap, fs, os::fd::AsRawFd, path::PathBuf, process::Stdio, sync::Arc, time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nydusd_api::{Client, ClientError, DaemonState, MountedImage};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{LaunchOptions, places::Places};
use crate::layout::Layout;

const CALL: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(5);
const ADOPT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// How to start nydusd, and where.
#[derive(Debug, Clone)]
pub struct Launch {
    options: LaunchOptions,
    places: Places,
    socket: PathBuf,
}

/// A running nydusd.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    handle: Handle,
    mounted: Arc<HashMap<String, PathBuf>>,
}

#[derive(Debug)]
enum Handle {
    Child(Box<Child>),
    /// Its start time tells it from a later process with the same number; its end of an idle connection goes with it.
    Adopted {
        start_time: String,
        connection: UnixStream,
    },
}

impl Launch {
    /// Starts nydusd in the places that `layout` has for it.
    #[must_use]
    pub fn new(options: LaunchOptions, layout: &Layout) -> Self {
        Self { options, places: Places::new(layout), socket: layout.api_socket() }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket, CALL)
    }

    /// Mounts, starts a daemon with the mount's descriptor, and waits until it answers.
    pub(super) async fn start(&self) -> anyhow::Result<Process> {
        let mountpoint = &self.places.fuse;
        self.places.make_mountpoint().with_context(|| format!("make {}", mountpoint.display()))?;
        self.places.detach().with_context(|| format!("unmount {}", mountpoint.display()))?;
        fs::remove_file(&self.socket).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error).with_context(|| format!("remove {}", self.socket.display())),
        })?;
        let device = nydusd_api::mount_fuse(mountpoint, "nydusd")
            .with_context(|| format!("mount FUSE on {}", mountpoint.display()))?;
        let mut command = Command::new(&self.options.binary);
        command
            .arg("fuse")
            .arg("--fuse-fd")
            .arg(device.as_raw_fd().to_string())
            .arg("--mountpoint")
            .arg(mountpoint);
        command.arg("--apisock").arg(&self.socket).arg("--log-level").arg(&self.options.log_level);
        if let Some(threads) = self.options.threads {
            command.arg("--thread-num").arg(threads.to_string());
        }
        // Its own group: Ctrl-C is for us to handle.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        fcntl(&device, FcntlArg::F_SETFD(FdFlag::empty()))
            .context("let nydusd inherit the FUSE descriptor")?;
        let child = command.spawn().with_context(|| format!("run {}", self.options.binary.display()))?;
        // Only the daemon holds it from here: when the daemon dies the mount must fail at once, not wait for us.
        drop(device);
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("nydusd ended at once")?;
        let mut process = Process {
            pid: Pid::from_raw(pid),
            handle: Handle::Child(Box::new(child)),
            mounted: Arc::default(),
        };
        let ready = self.wait_ready(&mut process).await;
        if ready.is_err() {
            process.kill();
            drop(timeout(END, process.ended()).await);
        }
        ready.map(|()| process)
    }

    async fn wait_ready(&self, process: &mut Process) -> anyhow::Result<()> {
        let (client, deadline) = (self.client(), Instant::now() + START);
        loop {
            tokio::select! {
                ended = process.ended() => anyhow::bail!("{} ended at once: {ended}", self.options.binary.display()),
                () = sleep(POLL) => {}
            }
            match timeout(START, client.status()).await {
                Ok(Ok(status)) if is_serving(status.state) => return Ok(()),
                Ok(Err(error)) if Instant::now() > deadline => {
                    return Err(error).context("nydusd does not answer");
                }
                _ => ensure!(Instant::now() < deadline, "nydusd is not ready within {START:?}"),
            }
        }
    }

    /// The daemon that an earlier snapshotter left, if it still serves our mount; one that hangs is ended.
    pub(super) async fn adopt(&self) -> Option<Process> {
        let connection = timeout(ADOPT, UnixStream::connect(&self.socket)).await.ok()?.ok();
        let Some(connection) = connection else {
            self.detach();
            return None;
        };
        let pid = Pid::from_raw(connection.peer_cred().ok()?.pid()?);
        let start_time = start_time(pid)?;
        let status = timeout(ADOPT, self.found()).await;
        let handle = Handle::Adopted { start_time, connection };
        let mut process = Process { pid, handle, mounted: Arc::default() };
        match status {
            Ok(Ok((state, images))) if is_serving(state) && self.is_mounted() => {
                process.mounted =
                    Arc::new(images.into_iter().map(|image| (image.mountpoint, image.path)).collect());
                info!(process = %pid, images = process.mounted.len(), "found nydusd running");
                Some(process)
            }
            _ => {
                warn!(process = %pid, "the nydusd of an earlier start does not serve; ending it");
                process.kill();
                drop(timeout(END, process.ended()).await);
                self.detach();
                None
            }
        }
    }

    /// What a daemon that was found says of itself.
    async fn found(&self) -> Result<(DaemonState, Vec<MountedImage>), ClientError> {
        let client = self.client();
        Ok((client.status().await?.state, client.mounts().await?))
    }

    /// Takes its mounts away, whatever state they are in.
    pub(super) fn detach(&self) {
        if let Err(error) = self.places.detach() {
            warn!(%error, mountpoint = %self.places.fuse.display(), "cannot unmount");
        }
    }

    fn is_mounted(&self) -> bool {
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
        let mountpoint = self.places.fuse.to_string_lossy();
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*mountpoint))
    }
}

impl Process {
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Images that it had when it was found: mountpoint, and where it is seen.
    pub(super) fn mounted(&self) -> Arc<HashMap<String, PathBuf>> {
        Arc::clone(&self.mounted)
    }

    /// Waits until it has ended, and tells how.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.handle {
            Handle::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("cannot wait for it: {error}"),
            },
            // It is no child of ours: only the connection tells at once, which may also end before it.
            Handle::Adopted { start_time: born, connection } => {
                drop(connection.read(&mut [0]).await);
                while start_time(self.pid).as_ref() == Some(born) {
                    sleep(POLL).await;
                }
                "gone".into()
            }
        }
    }

    /// Has it end in good order; kills it when that takes too long.
    pub(super) async fn end(mut self, client: &Client) -> anyhow::Result<()> {
        let asked = timeout(END, client.exit()).await;
        if let Ok(Ok(())) = asked
            && timeout(END, self.ended()).await.is_ok()
        {
            return Ok(());
        }
        kill(self.pid, Signal::SIGTERM).ok();
        if timeout(END, self.ended()).await.is_ok() {
            return Ok(());
        }
        self.kill();
        timeout(END, self.ended()).await.context("killed, but still there")?;
        anyhow::bail!("killed")
    }

    fn kill(&self) {
        kill(self.pid, Signal::SIGKILL).ok();
    }
}

fn is_serving(state: DaemonState) -> bool {
    match state {
        DaemonState::Init | DaemonState::Ready | DaemonState::Running => true,
        DaemonState::Stopped | DaemonState::Unknown => false,
    }
}

/// When a process was started; nothing when it is gone or only waits to be reaped.
fn start_time(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_tells_living_processes_from_others() {
        let own = start_time(Pid::this()).unwrap();
        assert!(own.parse::<u64>().unwrap() > 0);
        assert_eq!(start_time(Pid::from_raw(i32::MAX)), None);
    }
}
