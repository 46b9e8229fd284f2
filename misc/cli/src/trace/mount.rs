//! A writable root over the image, gone with its guard.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// overlayfs over an image, changes in memory.
#[derive(Debug)]
pub(super) struct Stack {
    scratch: Mounted,
    root: Mounted,
}

/// One mount; dropped, it is taken away.
#[derive(Debug)]
struct Mounted(PathBuf);

impl Stack {
    /// Mounts over `lower`, everything within `work`.
    pub(super) fn over(lower: &Path, work: &Path) -> anyhow::Result<Self> {
        let scratch = Mounted::new("tmpfs", &work.join("scratch"), "mode=0755")?;
        let (upper, temporary) = (scratch.0.join("upper"), scratch.0.join("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&temporary)?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            temporary.display()
        );
        let root = Mounted::new("overlay", &work.join("rootfs"), &options)?;
        Ok(Self { scratch, root })
    }

    /// The root.
    pub(super) fn root(&self) -> &Path {
        &self.root.0
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // overlayfs stands on the tmpfs: the order counts.
        self.root.umount();
        self.scratch.umount();
    }
}

impl Mounted {
    fn new(kind: &str, at: &Path, options: &str) -> anyhow::Result<Self> {
        fs::create_dir(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("cannot mount {kind} at {} (shoal trace needs root)", at.display()))?;
        Ok(Self(at.to_owned()))
    }

    fn umount(&self) {
        // Called twice, the second finds nothing.
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.umount();
    }
}
