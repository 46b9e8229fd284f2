//! A nydusd of a test, in a directory of its own.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nydusd_api::{Client, DaemonState, FsType, MountRequest};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the daemon and unmounts when dropped.
pub(crate) struct Nydusd {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) mountpoint: PathBuf,
    pub(crate) client: Client,
    child: Child,
}

impl Nydusd {
    /// A daemon without images.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], None).await
    }

    /// A daemon of one image at its root, blobs in `blobs`.
    pub(crate) async fn serving(bootstrap: &Path, blobs: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        fs::write(&config, localfs(blobs, &dir.path().join("cache"))).unwrap();
        let flags = ["--bootstrap", bootstrap.to_str().unwrap(), "--config", config.to_str().unwrap()];
        Self::start_in(dir, &flags, None).await
    }

    /// A daemon with more flags, over a descriptor that is mounted already where there is one.
    pub(crate) async fn start_with(flags: &[&str], fuse: Option<&dyn Fn(&Path) -> OwnedFd>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), flags, fuse).await
    }

    async fn start_in(
        dir: tempfile::TempDir,
        flags: &[&str],
        fuse: Option<&dyn Fn(&Path) -> OwnedFd>,
    ) -> Self {
        let (mountpoint, socket) = (dir.path().join("mnt"), dir.path().join("api.sock"));
        fs::create_dir(&mountpoint).unwrap();
        let device = fuse.map(|mount| mount(&mountpoint));
        let mut command = Command::new(env!("CARGO_BIN_EXE_nydusd"));
        command.arg("--mountpoint").arg(&mountpoint).arg("--apisock").arg(&socket).args(flags);
        command.arg("--log-file").arg(dir.path().join("log")).env_remove("RUST_LOG").stdin(Stdio::null());
        if let Some(device) = &device {
            use nix::fcntl::{FcntlArg, FdFlag, fcntl};
            fcntl(device, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            command.arg("--fuse-fd").arg(device.as_raw_fd().to_string());
        }
        let child = command.spawn().unwrap();
        let client = Client::new(&socket, PATIENCE);
        let daemon = Self { dir, mountpoint, client, child };
        daemon.wait_running().await;
        daemon
    }

    async fn wait_running(&self) {
        let start = Instant::now();
        loop {
            match self.client.status().await {
                Ok(status) if status.state == DaemonState::Running => return,
                other if start.elapsed() > PATIENCE => panic!("{other:?}: {}", self.log()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) async fn mount(&self, at: &str, bootstrap: &Path, blobs: &Path) {
        self.client.mount(at, &self.request(bootstrap, blobs)).await.unwrap();
    }

    /// A call as any program makes it: status and body.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut socket = UnixStream::connect(self.dir.path().join("api.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: d\r\nconnection: close");
        write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn request(&self, bootstrap: &Path, blobs: &Path) -> MountRequest {
        let config = localfs(blobs, &self.dir.path().join("cache"));
        let source = bootstrap.to_str().unwrap().to_owned();
        MountRequest { fs_type: FsType::Rafs, source, config, prefetch_files: None, kernel_mountpoint: None }
    }

    /// Memory of its own, in bytes.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end and returns whether it was a good one.
    pub(crate) async fn ended_well(&mut self) -> bool {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Nydusd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Images in the kernel stand beside the daemon's own mount.
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(1).map(Path::new));
        points.filter(|at| at.starts_with(self.dir.path())).for_each(|at| drop(nydusd_api::detach(at)));
    }
}

/// A configuration with blobs in a directory.
pub(crate) fn localfs(blobs: &Path, cache: &Path) -> String {
    serde_json::json!({ "device": {
        "backend": { "type": "localfs", "config": { "dir": blobs } },
        "cache": { "type": "blobcache", "config": { "work_dir": cache } },
    }})
    .to_string()
}
