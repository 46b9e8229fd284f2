//! Small disks, for tests. They need root.

use std::{path::Path, process::Command};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

/// A disk that only the thread that made it sees, and those that it starts: none is left behind, however a test ends.
#[derive(Debug)]
pub(crate) struct Disk(TempDir);

impl Disk {
    /// One of so many bytes, in memory.
    pub(crate) fn new(bytes: u64) -> Self {
        let (dir, none) = (tempfile::tempdir().unwrap(), None::<&str>);
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        Self(dir)
    }

    /// The file system in a file.
    pub(crate) fn of_image(image: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = "loop,errors=continue,noinit_itable";
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(image).arg(dir.path()));
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever has a file open still, has it until it is closed.
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// Runs a program, which must end well.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
