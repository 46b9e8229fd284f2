//! Taking mounts away whose server may be dead.

use std::{io, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

/// Takes away every mount on `mountpoint`, dead ones too, without asking whoever serves it anything. Those who stand on
/// it keep it.
///
/// # Errors
/// Where the kernel refuses; that nothing is there is fine.
pub fn detach(mountpoint: &Path) -> io::Result<()> {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    loop {
        match umount2(mountpoint, flags) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
