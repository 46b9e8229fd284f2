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
        let images = self.detach_images();
        detach(&self.fuse).and(images)
    }

    /// One that stays keeps the others from nothing.
    fn detach_images(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        for image in fs::read_dir(&self.kernel)? {
            let image = image?.path();
            match detach(&image) {
                // A probe that was killed has files in it. What cannot be removed is in nobody's way.
                Ok(()) => drop(fs::remove_dir_all(&image)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// The directory to mount FUSE on. One that is there is not looked at: its daemon may be dead.
    pub(super) fn make_mountpoint(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.fuse) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};

    use super::*;

    #[test]
    fn what_a_killed_probe_left_goes_too() {
        let root = tempfile::tempdir().unwrap();
        let (kernel, fuse) = (root.path().join("erofs"), root.path().join("mnt"));
        let (probe, lower) = (kernel.join(".probe-x"), kernel.join(".probe-x/lower"));
        fs::create_dir_all(&fuse).unwrap();
        fs::create_dir_all(&lower).unwrap();
        fs::write(probe.join("bootstrap"), "x").unwrap();
        let nothing: Option<&str> = None;
        mount(Some(&probe), &probe, nothing, MsFlags::MS_BIND, nothing).unwrap();
        mount(nothing, &probe, nothing, MsFlags::MS_PRIVATE, nothing).unwrap();
        mount(Some("tmpfs"), &lower, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        mount(Some("tmpfs"), &fuse, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        Places { fuse, kernel: kernel.clone() }.detach().unwrap();
        assert_eq!(fs::read_dir(&kernel).unwrap().count(), 0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(root.path().to_str().unwrap()), "{mounts}");
    }
}
