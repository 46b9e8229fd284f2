//! Mounting EROFS from files, without a loop device.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};

/// Longest text that the kernel says about a mount.
const MESSAGE: usize = 1024;

/// Mounts the bootstrap `source` with its blobs' files `devices`, in the order of its table, at `at`. Data is read past
/// the page cache of those files: it would be there twice.
///
/// # Errors
/// What the kernel answers, with its words where it says any.
pub(super) fn mount(source: &Path, devices: &[PathBuf], at: &Path) -> io::Result<()> {
    // Not mount(2): its options end at 4096 bytes, and mount(8) would take a loop device.
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    configure(&context, source, devices).map_err(|error| with_words(error, &context))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn configure(context: &OwnedFd, source: &Path, devices: &[PathBuf]) -> io::Result<()> {
    fsconfig_set_string(context, "source", source)?;
    for device in devices {
        fsconfig_set_string(context, "device", device)?;
    }
    fsconfig_set_flag(context, "directio")?;
    Ok(fsconfig_create(context)?)
}

/// Adds what the kernel has said to the context of a mount.
fn with_words(error: io::Error, context: impl AsFd) -> io::Error {
    let mut message = [0; MESSAGE];
    let words = match rustix::io::read(context, &mut message) {
        Ok(len) => String::from_utf8_lossy(&message[..len]).trim().to_owned(),
        // It says nothing.
        Err(_) => return error,
    };
    io::Error::new(error.kind(), format!("{error} ({words})"))
}
