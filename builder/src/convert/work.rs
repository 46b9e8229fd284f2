//! Temporary files and directories, and what killed conversions left of theirs.
//!
//! Whoever makes one holds a lock on it, which the kernel takes away with the process. One without is nobody's. The lock
//! on the directory around them keeps the moment apart in which a new one is not locked yet.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile, TempDir};

/// How names of all temporary files and directories begin.
const PREFIX: &str = ".shoal-";

/// A directory for what is not finished; goes with all that is in it.
#[derive(Debug)]
pub(super) struct Work {
    directory: TempDir,
    _lock: File,
}

impl Work {
    /// Makes one in `parent`, after it has removed those that killed conversions left there.
    pub(super) fn create_in(parent: &Path) -> io::Result<Self> {
        let around = File::open(parent)?;
        around.lock()?;
        remove_left(parent)?;
        let directory = Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::open(directory.path())?;
        lock.lock()?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A temporary file in `parent`, to be renamed to its place.
pub(super) fn file_in(parent: &Path) -> io::Result<NamedTempFile> {
    let around = File::open(parent)?;
    around.lock_shared()?;
    let file = Builder::new().prefix(PREFIX).tempfile_in(parent)?;
    file.as_file().lock()?;
    Ok(file)
}

/// Removes what nobody holds a lock on.
fn remove_left(parent: &Path) -> io::Result<()> {
    for entry in parent.read_dir()? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Err(error) = remove_unlocked(&entry.path())
        {
            // It may be another user's. It is in nobody's way.
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a conversion left");
        }
    }
    Ok(())
}

fn remove_unlocked(path: &PathBuf) -> io::Result<()> {
    let kind = path.symlink_metadata()?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Ok(());
    }
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) if kind.is_dir() => std::fs::remove_dir_all(path),
        Ok(()) => std::fs::remove_file(path),
        Err(std::fs::TryLockError::WouldBlock) => Ok(()),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_what_somebody_holds_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (left, other) = (parent.path().join(".shoal-left"), parent.path().join("blobs"));
        std::fs::create_dir_all(left.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(parent.path().join(".shoal-file"), "x").unwrap();
        let held = Work::create_in(parent.path()).unwrap();
        let file = file_in(parent.path()).unwrap();
        let next = Work::create_in(parent.path()).unwrap();
        assert!(!left.exists() && !parent.path().join(".shoal-file").exists() && other.exists());
        assert!(held.path().exists() && file.path().exists() && next.path().exists());
        let gone = held.path().to_owned();
        drop(held);
        assert!(!gone.exists());
    }
}
