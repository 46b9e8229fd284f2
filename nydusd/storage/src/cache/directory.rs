//! The file operations that a cache is made of, so that tests can record them, cut the power, or fill the disk.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One file of a cache.
pub(crate) trait CacheFile: fmt::Debug + Send + Sync {
    /// Fills `buf`; a short file is an error.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to nothing.
    fn clear(&self) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// The directory of one cache, held by one process at a time.
pub(crate) trait Directory: fmt::Debug + Send + Sync {
    /// Opens a file, made where it is missing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn CacheFile>>;
    /// A whole file of at most `max` bytes, `None` where it is missing. A longer one is cut.
    fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a whole file in one step that survives a power cut, and makes the names of all files durable.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// A directory of the node, locked against other processes.
#[derive(Debug)]
pub(crate) struct DiskDirectory {
    path: PathBuf,
    /// Holds the lock.
    handle: File,
}

impl DiskDirectory {
    /// Makes and locks the directory; `None` where another process holds it.
    pub(crate) fn lock(path: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), handle })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(source),
        }
    }
}

impl Directory for DiskDirectory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn CacheFile>> {
        let path = self.path.join(name);
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?))
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(name))?;
        self.handle.sync_all()?;
        // The directory itself may be new.
        self.path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }
}

impl CacheFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn clear(&self) -> io::Result<()> {
        self.set_len(0)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = DiskDirectory::lock(dir.path()).unwrap().unwrap();
        assert!(DiskDirectory::lock(dir.path()).unwrap().is_none());
        drop(held);
        assert!(DiskDirectory::lock(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_replaced_file_has_the_new_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let held = DiskDirectory::lock(dir.path()).unwrap().unwrap();
        assert_eq!(held.read("x", 9).unwrap(), None);
        held.replace("x", b"one").unwrap();
        held.replace("x", b"two").unwrap();
        assert_eq!(held.read("x", 9).unwrap().unwrap(), b"two");
        assert_eq!(held.read("x", 2).unwrap().unwrap(), b"tw");
    }
}
