//! Directories that images are mounted on.

use std::{fs, io, path::Path};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statfs, statx};

/// `EROFS_SUPER_MAGIC_V1` of linux/magic.h.
const EROFS: u32 = 0xe0f5_e1e2;

/// Makes `at` an empty directory on which nothing is mounted, if it can be one: what others have there stays. An image that
/// a dead daemon left is taken away, without asking that daemon anything.
pub(super) fn prepare(at: &Path) -> io::Result<()> {
    match fs::create_dir(at) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    while is_mounted_on(at)? {
        umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    match fs::read_dir(at)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "it is not empty")),
    }
}

/// Whether one of our images is mounted on `at`; an error where it is something else.
fn is_mounted_on(at: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, at, flags, StatxFlags::TYPE)?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(false);
    }
    // EROFS over a file has no device of its own.
    let is_ours = found.stx_dev_major == 0 && u32::try_from(statfs(at)?.f_type) == Ok(EROFS);
    match is_ours {
        true => Ok(true),
        false => Err(io::Error::new(io::ErrorKind::ResourceBusy, "something else is mounted there")),
    }
}
