//! Our snapshotter, running for real.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    command::command,
    daemon::Daemon,
    programs,
    scratch::{Scratch, processes_naming},
};

/// A running snapshotter.
#[derive(Debug)]
pub struct Snapshotter {
    daemon: Daemon,
    root: PathBuf,
    socket: PathBuf,
}

impl Snapshotter {
    /// Starts one below `scratch`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn start(scratch: &Scratch) -> Result<Self> {
        Self::start_with(scratch, &[])
    }

    /// Starts one with more flags.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn start_with(scratch: &Scratch, flags: &[&str]) -> Result<Self> {
        let dir = scratch.dir("snapshotter")?;
        let (root, socket) = (dir.join("root"), dir.join("grpc.sock"));
        Ok(Self { daemon: serve(&root, &socket, flags)?, root, socket })
    }

    /// Kills it, as a crash would, and starts another in its place.
    ///
    /// # Errors
    /// Where that does not answer.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.daemon.crash()?;
        self.daemon = serve(&self.root, &self.socket, &[])?;
        Ok(())
    }

    /// The directory it keeps everything in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket it serves on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The end of its log.
    #[must_use]
    pub fn said(&self) -> String {
        self.daemon.said()
    }

    /// How lazy data reaches containers: `erofs` where the kernel shows an image by itself, else what nydusd has mounted.
    #[must_use]
    pub fn data_path(&self) -> Option<String> {
        let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
        let own = |point: &str| Path::new(point).starts_with(&self.root);
        let mut kinds = table.lines().filter_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            (own(words.get(1)?) && *words.get(2)? != "overlay").then(|| words[2].to_owned())
        });
        let first = kinds.next()?;
        Some(kinds.find(|kind| kind == "erofs").unwrap_or(first))
    }

    /// A bootstrap that it serves.
    #[must_use]
    pub fn bootstrap(&self) -> Option<PathBuf> {
        let snapshots = fs::read_dir(self.root.join("snapshots")).ok()?;
        let file = |dir: fs::DirEntry| dir.path().join("fs/image/image.boot");
        snapshots.filter_map(|dir| Some(file(dir.ok()?))).find(|file| file.exists())
    }

    /// The processes that serve data.
    #[must_use]
    pub fn daemons(&self) -> Vec<Pid> {
        let name = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        processes_naming(&self.root).into_iter().filter(|pid| name(pid).starts_with("nydusd")).collect()
    }

    /// Kills them, as a crash would.
    ///
    /// # Errors
    /// Where there is none.
    pub fn crash_daemons(&self) -> Result<()> {
        let daemons = self.daemons();
        daemons.first().context("no nydusd is running")?;
        for pid in daemons {
            kill(pid, Signal::SIGKILL)?;
        }
        Ok(())
    }
}

fn serve(root: &Path, socket: &Path, flags: &[&str]) -> Result<Daemon> {
    let mut start = command(programs::path("containerd-nydus-grpc")?, ["--root"]);
    start.arg(root).arg("--address").arg(socket).args(flags);
    let mut daemon =
        Daemon::start("containerd-nydus-grpc", &mut start, &root.with_file_name("snapshotter.log"))?;
    daemon.wait_ready(Duration::from_secs(30), || UnixStream::connect(socket).is_ok())?;
    Ok(daemon)
}
