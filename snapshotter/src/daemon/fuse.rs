//! The FUSE mount that nydusd serves.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

/// Takes away every mount on `mountpoint`, dead ones too, without asking the daemon behind it anything.
pub(super) fn detach(mountpoint: &Path) -> nix::Result<()> {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    loop {
        match umount2(mountpoint, flags) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// The directory to mount on. One that is there is not looked at: its daemon may be dead.
pub(super) fn make_mountpoint(mountpoint: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(mountpoint) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
