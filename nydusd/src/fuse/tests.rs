//! Bugs of ours, in a session that the kernel talks to. Needs root and FUSE.

#[allow(dead_code, reason = "shared with the tests of the whole daemon")]
#[path = "../../../tests/nydusd/image.rs"]
mod image;

use std::{
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use nix::mount::{MntFlags, umount2};
use nydusd_api::{FsType, MountRequest, mount_fuse};
use rafs::{BlobId, Kind, Nid};
use storage::backend::{Backend, BackendError, ByteStream, Priority, Via};
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{FuseAdapter, Session};
use crate::{
    backends::Backends,
    daemon::{Daemon, Identity},
    mounts::Mountpoint,
};

const THREADS: usize = 2;

/// The inode whose requests meet a bug; zero for none.
static BROKEN: AtomicU64 = AtomicU64::new(0);

/// The bug. Stands in the code that answers requests, where a real one would be.
pub(super) fn strike(nid: Nid) {
    assert!(nid.0 == 0 || nid.0 != BROKEN.load(Ordering::Relaxed), "a bug in the answer for {nid}");
}

/// A backend with a bug.
#[derive(Debug)]
struct Buggy;

impl Backend for Buggy {
    fn read(
        self: Arc<Self>,
        _: BlobId,
        _: Range<u64>,
        _: Priority,
        _: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        panic!("a bug in the backend")
    }

    fn name(&self) -> String {
        "buggy".into()
    }
}

/// Unmounts when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Errno of a read of the whole file, more often than there are threads.
async fn read(path: PathBuf) -> Vec<Option<i32>> {
    let all =
        move || (0..2 * THREADS).map(|_| fs::read(&path).err().and_then(|e| e.raw_os_error())).collect();
    spawn_blocking(all).await.unwrap()
}

fn configuration(dir: &Path) -> String {
    serde_json::json!({ "device": {
        "backend": { "type": "localfs", "config": { "dir": dir } },
        "cache": { "config": { "work_dir": dir.join("cache") } },
    }})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_its_request_and_the_session_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = image::Image::new();
    image.file("/file", 0o644, &[1; 5000]);
    image.file("/other", 0o644, &[2; 5000]);
    // Farther away than a miss is widened to.
    image.file("/between", 0o644, &[0; 1 << 20]);
    image.file("/third", 0o644, &[3; 5000]);
    image.add("/link", image::meta(0o777), Kind::Symlink(b"file".to_vec()));
    let (bootstrap, _) = image.write(dir.path());
    let daemon = Daemon::new(Identity::default(), Handle::current(), CancellationToken::new());
    let request = MountRequest {
        fs_type: FsType::Rafs,
        source: bootstrap.display().to_string(),
        config: configuration(dir.path()),
        prefetch_files: None,
        kernel_mountpoint: None,
    };
    daemon.mount(Mountpoint::root(), request).await.unwrap();
    let at = dir.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mounted = Mounted(at.clone());
    let adapter = FuseAdapter::new(Arc::clone(daemon.mounts()), Arc::clone(daemon.reads()));
    let device = mount_fuse(&at, "test").unwrap();
    let session = Session::start(adapter, device, at.clone(), THREADS).await.unwrap();

    let number = |name: &'static str| {
        let path = at.join(name);
        async move { spawn_blocking(move || fs::symlink_metadata(path).unwrap().ino()).await.unwrap() }
    };
    let in_image = (1 << 40) - 1;
    for name in ["file", "link"] {
        BROKEN.store(number(name).await & in_image, Ordering::Relaxed);
        assert_eq!(read(at.join(name)).await, [Some(libc::EIO); 2 * THREADS], "{name}");
        assert_eq!(read(at.join("other")).await, [None; 2 * THREADS]);
    }
    BROKEN.store(0, Ordering::Relaxed);
    assert_eq!(read(at.join("link")).await, [None; 2 * THREADS]);

    let image = daemon.mounts().get(&Mountpoint::root()).unwrap();
    image.backend().swap(Arc::new(Buggy));
    assert_eq!(read(at.join("third")).await, [Some(libc::EIO); 2 * THREADS]);
    let sound = Backends::default().open(&image.config().backend, image.source()).unwrap();
    image.backend().swap(sound);
    assert_eq!(read(at.join("third")).await, [None; 2 * THREADS]);
    drop(mounted);
    session.ended().await;
    daemon.close_all().await;
}
