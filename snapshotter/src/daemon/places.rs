//! The mounts of one daemon: its FUSE mount, and images that the kernel shows by itself.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

use nydusd_api::detach;

use crate::layout::Layout;

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The FUSE mount.
    pub(super) fuse: PathBuf,
    /// Holds a directory for each image that the kernel shows.
    kernel: PathBuf,
}

impl Places {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { fuse: layout.mnt(), kernel: layout.kernel_mounts() }
    }

    /// Takes all of them away, dead ones too. Running containers keep what they stand on.
    pub(super) fn detach(&self) -> io::Result<()> {
        for image in fs::read_dir(&self.kernel)? {
            let image = image?.path();
            detach(&image)?;
            // A probe that was killed has more in it; nothing is lost where it stays.
            fs::remove_dir(&image).ok();
        }
        detach(&self.fuse)
    }

    /// The directory to mount FUSE on. One that is there is not looked at: its daemon may be dead.
    pub(super) fn make_mountpoint(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.fuse) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}
