//! One FUSE connection: its worker threads, its notices to the kernel, its end.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fuser::{Config, INodeNo, Notifier, SessionACL};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};
use tokio::sync::{oneshot, watch};

use super::FuseAdapter;
use crate::mounts::ROOT_INO;

/// How long the kernel's first message may take; it waits in the descriptor since the mount.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// A session that could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The kernel's first message is not what it should be.
    #[error("the kernel does not begin a FUSE session at {mountpoint}")]
    Handshake {
        /// Where.
        mountpoint: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no first message.
    #[error("no FUSE session begins at {mountpoint}: is the descriptor mounted there?")]
    Silent {
        /// Where.
        mountpoint: PathBuf,
    },
}

/// A session that is served by its own threads until its file system is unmounted.
#[derive(Debug)]
pub struct Session {
    mountpoint: PathBuf,
    notifier: Arc<Notifier>,
    ended: watch::Receiver<bool>,
}

impl Session {
    /// Serves the mounted descriptor `device` with `threads` threads.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn start(
        adapter: FuseAdapter,
        device: OwnedFd,
        mountpoint: PathBuf,
        threads: usize,
    ) -> Result<Self, SessionError> {
        let (greet, greeted) = oneshot::channel();
        let (end, ended) = watch::channel(false);
        let failed = |source| SessionError::Handshake { mountpoint: mountpoint.clone(), source };
        std::thread::Builder::new()
            .name("fuse-session".into())
            .spawn(move || {
                serve(adapter, device, threads, greet);
                end.send_replace(true);
            })
            .map_err(failed)?;
        match tokio::time::timeout(HANDSHAKE_PATIENCE, greeted).await {
            Ok(Ok(Ok(notifier))) => Ok(Self { mountpoint, notifier: Arc::new(notifier), ended }),
            Ok(Ok(Err(source))) => Err(failed(source)),
            Ok(Err(_)) => Err(failed(io::Error::other("its thread has ended"))),
            Err(_) => Err(SessionError::Silent { mountpoint }),
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Returns when the file system is unmounted.
    pub async fn ended(&self) {
        // An error means that the thread is gone, which is the same.
        drop(self.ended.clone().wait_for(|ended| *ended).await);
    }

    /// Tells the kernel that names in the root stand for something else now.
    pub async fn forget_names(&self, names: Vec<Vec<u8>>) {
        let notifier = Arc::clone(&self.notifier);
        // The kernel may wait for a request that it has sent to us before it takes the notice.
        let told = tokio::task::spawn_blocking(move || {
            for name in names {
                notifier.inval_entry(INodeNo(ROOT_INO), OsStr::from_bytes(&name)).ok();
            }
            notifier.inval_inode(INodeNo(ROOT_INO), 0, 0).ok();
        });
        if tokio::time::timeout(HANDSHAKE_PATIENCE, told).await.is_err() {
            tracing::warn!("the kernel did not take the notice of a changed root in time");
        }
    }

    /// Unmounts the file system, at least from its place in the tree where it is still in use.
    ///
    /// # Errors
    /// Where the kernel refuses even that.
    pub fn unmount(&self) -> io::Result<()> {
        match umount2(&self.mountpoint, MntFlags::empty()) {
            Err(Errno::EBUSY) => umount2(&self.mountpoint, MntFlags::MNT_DETACH)?,
            other => other?,
        }
        Ok(())
    }
}

fn serve(
    adapter: FuseAdapter,
    device: OwnedFd,
    threads: usize,
    greet: oneshot::Sender<io::Result<Notifier>>,
) {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // One descriptor for all threads: a clone would die with this process and take its requests along.
    config.clone_fd = false;
    let session = match fuser::Session::from_fd(adapter, device, SessionACL::All, config) {
        Ok(session) => session,
        Err(error) => return drop(greet.send(Err(error))),
    };
    drop(greet.send(Ok(session.notifier())));
    if let Err(error) = session.run() {
        tracing::error!("the FUSE session has ended: {error}");
    }
}

/// Sets how far the kernel reads ahead in the file system mounted at `mountpoint`, in KiB.
///
/// # Errors
/// Where it is not in the mount table, or the kernel refuses.
pub fn set_read_ahead(mountpoint: &Path, kib: u32) -> io::Result<()> {
    // The device number from the mount table: asking the file system itself would be a request to ourselves.
    let table = fs::read("/proc/self/mountinfo")?;
    let device = device_of(&table, mountpoint.as_os_str().as_bytes())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the mount is not in the mount table"))?;
    fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string())
}

/// `major:minor` of the topmost mount at `mountpoint`.
fn device_of(table: &[u8], mountpoint: &[u8]) -> Option<String> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.map(|line| line.split(|byte| *byte == b' ').collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.len() > 4 && unescape(fields[4]) == mountpoint);
    let found = found.next_back()?;
    String::from_utf8(found[2].to_vec()).ok()
}

/// Undoes the kernel's `\040` for bytes that would break the table.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_at_a_place_gives_the_device() {
        let table = b"22 1 0:20 / /a\\040b rw - fuse.rafs x ro\n23 1 0:21 / /a\\040b rw - fuse.rafs x ro\n24 1 0:22 / /c rw - x x x\n";
        assert_eq!(device_of(table, b"/a b").as_deref(), Some("0:21"));
        assert_eq!(device_of(table, b"/a"), None);
    }
}
