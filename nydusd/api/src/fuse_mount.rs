//! Mounting a FUSE file system without serving it: one place for the options.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

/// Mounts a read-only FUSE file system at `mountpoint`, shown as `fs_name` in mount tables, and returns the descriptor
/// by which it is served. Nothing can be read from it until a daemon serves the descriptor; it lives as long as any copy
/// of the descriptor is open.
///
/// A mount that a dead daemon left there is taken away first. Set-user-id programs and device nodes work in it, and every user may read what the modes allow.
///
/// # Errors
/// Where `/dev/fuse` cannot be opened or the kernel refuses the mount.
pub fn mount_fuse(mountpoint: &Path, fs_name: &str) -> io::Result<OwnedFd> {
    if std::fs::metadata(mountpoint).is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32))
    {
        umount2(mountpoint, MntFlags::MNT_DETACH)?;
    }
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| io::Error::new(error.kind(), format!("/dev/fuse cannot be opened: {error}")))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some(fs_name),
        mountpoint,
        Some("fuse.rafs"),
        MsFlags::MS_RDONLY | MsFlags::MS_NOATIME,
        Some(options.as_str()),
    )
    .map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("FUSE cannot be mounted at {}: {error}", mountpoint.display()))
    })?;
    Ok(device.into())
}
