//! A bootstrap file mapped into memory.
#![allow(unsafe_code, reason = "mapping a file is unsafe by nature; this is the only place")]

use std::{
    fs::File,
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use memmap2::Mmap;

/// Maps `path` read-only.
///
/// # Errors
/// Where it is no regular file, is empty, or may be written by everyone.
pub(super) fn map(path: &Path) -> io::Result<Mmap> {
    // Opening a named pipe must not wait for its other end.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let refuse = |problem: &str| io::Error::new(io::ErrorKind::InvalidInput, problem.to_owned());
    if !metadata.is_file() {
        return Err(refuse("it is no regular file"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(refuse("everyone may write to it"));
    }
    if metadata.len() == 0 {
        return Err(refuse("it is empty"));
    }
    // SAFETY: the mapping is read-only and private. Its bytes change only if someone with the rights of the file's owner
    // writes into it in place; such a writer could replace the image altogether. Every value is checked when it is used,
    // so changed bytes lead to wrong answers, never to wild accesses.
    unsafe { Mmap::map(&file) }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_file_that_everyone_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bootstrap");
        std::fs::write(&path, b"x").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o646)).unwrap();
        assert_eq!(map(&path).unwrap_err().to_string(), "everyone may write to it");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(&map(&path).unwrap()[..], b"x");
    }

    #[test]
    fn directories_and_pipes_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(map(dir.path()).unwrap_err().to_string(), "it is no regular file");
        assert_eq!(map(&pipe).unwrap_err().to_string(), "it is no regular file");
    }
}
