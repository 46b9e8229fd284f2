//! A place of our own: a mount namespace, an empty `/run`, and a directory that goes away with all that is in it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// A scratch directory. The thread that made it, and all it starts from then on, see mounts that the machine does not:
/// none of ours can be left behind, and the fixed paths that containerd uses below `/run` are not the machine's.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Enters a private mount namespace and makes the directory.
    ///
    /// # Errors
    /// Where we are not root, or the directory cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("enter a mount namespace of our own (this needs root)")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .context("mount a /run")?;
        // Not /tmp: that may be memory, which an image does not fit into.
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let dir = tempfile::Builder::new().prefix(&format!("shoal-{name}-")).tempdir_in(parent)?;
        Ok(Self { dir })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A directory in it, made where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Has everything that looks where containerd's users keep their `hosts.toml` speak plain HTTP to a registry.
    ///
    /// # Errors
    /// Where `/etc/containerd` is missing.
    pub fn trust(&self, registry: SocketAddr) -> Result<()> {
        let (etc, none) = (Path::new("/etc/containerd"), None::<&str>);
        mount(Some("tmpfs"), etc, Some("tmpfs"), MsFlags::empty(), none)
            .context("mount an /etc/containerd")?;
        let hosts = etc.join("certs.d").join(registry.to_string());
        fs::create_dir_all(&hosts)?;
        let text = format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n");
        fs::write(hosts.join("hosts.toml"), text).context("write hosts.toml")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Shims outlive containerd by design, daemons their snapshotter. Ours have this directory in their command line.
        for pid in processes_naming(self.path()) {
            kill(pid, Signal::SIGKILL).ok();
        }
        for point in mounts_below(self.path()) {
            umount2(&point, MntFlags::MNT_DETACH).ok();
        }
    }
}

/// Mount points below a directory, innermost first.
#[must_use]
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let mut points: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    points
}

/// Processes, other than this one, whose command line has the path in it.
#[must_use]
pub fn processes_naming(path: &Path) -> Vec<Pid> {
    let path = path.to_string_lossy();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*path)
        })
        .filter_map(|pid| Some(Pid::from_raw(i32::try_from(pid).ok()?)))
        .collect()
}

/// A mount that is undone when its guard goes.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
}

impl Mounted {
    /// Mounts what `mount(8)` is told by `args` at `point`, a directory made where it is missing.
    ///
    /// # Errors
    /// Where mount(8) fails.
    pub fn new<'a>(args: impl IntoIterator<Item = &'a str>, point: &Path) -> Result<Self> {
        fs::create_dir_all(point)?;
        crate::command::run(Command::new("mount").args(args).arg(point))?;
        Ok(Self { point: point.to_owned() })
    }

    /// Takes over a mount that something else made.
    #[must_use]
    pub fn adopt(point: &Path) -> Self {
        Self { point: point.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.point, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.point.display());
        }
    }
}
