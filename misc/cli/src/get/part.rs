//! The file while it is not whole: `FILE.part` beside it, which takes its name in the end.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statvfs::fstatvfs,
};
use service::exit::UsageError;
use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const STEP: usize = 1 << 20;
/// Tries to lock a part that others take away meanwhile.
const TRIES: usize = 10;

/// What comes cannot be kept; no other source can help.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// All of it will not fit.
    #[error("{} needs {needed} bytes more, and its disk has {free}", path.display())]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    /// It did not fit.
    #[error("the disk is full; what came is kept in {}", path.display())]
    Full { path: PathBuf, source: std::io::Error },
    /// Another failure.
    #[error("write {}", path.display())]
    Other { path: PathBuf, source: std::io::Error },
}

impl WriteError {
    fn new(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Other { path, source },
        }
    }
}

/// A file that is being downloaded. While it lives no other process writes it.
#[derive(Debug)]
pub(super) struct Part {
    file: Flock<File>,
    path: PathBuf,
    target: PathBuf,
    len: u64,
    hash: Sha256,
}

impl Part {
    /// The part of `target` that is here. Where nobody can check it in the end (`resumes` is false), it begins anew.
    pub(super) async fn open(target: &Path, resumes: bool) -> anyhow::Result<Self> {
        if target.is_dir() || target.file_name().is_none() {
            bail!(UsageError(format!("{} is a directory: name a file", target.display())));
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let (path, target) = (PathBuf::from(name), target.to_owned());
        blocking(move || {
            let file = lock(&path, &target)?;
            let mut part = Self { file, path, target, len: 0, hash: Sha256::new() };
            if resumes {
                part.read_what_is_here()?;
            } else {
                part.file.set_len(0)?;
            }
            Ok(part)
        })
        .await
    }

    fn read_what_is_here(&mut self) -> anyhow::Result<()> {
        let mut bytes = vec![0; STEP];
        loop {
            let read = self.file.read(&mut bytes).with_context(|| format!("read {}", self.path.display()))?;
            if read == 0 {
                return Ok(());
            }
            self.hash.update(&bytes[..read]);
            self.len += read as u64;
        }
    }

    /// Bytes that are here.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Digest of what is here.
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }

    /// Whether its disk can hold so many bytes of it, as far as is known now.
    pub(super) fn expect(&self, total: u64) -> Result<(), WriteError> {
        let needed = total.saturating_sub(self.len);
        // Where nobody knows, writing tells.
        let Ok(disk) = fstatvfs(&*self.file) else { return Ok(()) };
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        match free < needed {
            true => Err(WriteError::NoRoom { path: self.target.clone(), needed, free }),
            false => Ok(()),
        }
    }

    /// Adds bytes at the end.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let written = tokio::task::block_in_place(|| self.file.write_all(bytes));
        written.map_err(|source| WriteError::new(&self.path, source))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.len, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Removes it.
    pub(super) fn discard(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }

    /// Gives it its name, with all its bytes on the disk.
    pub(super) async fn keep(self) -> anyhow::Result<()> {
        blocking(move || {
            self.file.sync_all().map_err(|source| WriteError::new(&self.path, source))?;
            std::fs::rename(&self.path, &self.target)
                .with_context(|| format!("rename {}", self.path.display()))?;
            let dir = self.target.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.unwrap_or_else(|| Path::new("."));
            File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("write {}", dir.display()))
        })
        .await
    }
}

/// Opens a part and locks it, as the file that still has its name then: who had it before may have finished it.
fn lock(path: &Path, target: &Path) -> anyhow::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    // A link here would lead what comes to another file.
    options.create(true).truncate(false).read(true).write(true).custom_flags(libc::O_NOFOLLOW);
    for _ in 0..TRIES {
        let opened = options.open(path).with_context(|| format!("open {}", path.display()))?;
        if let Some(file) = lock_opened(opened, path, target)? {
            return Ok(file);
        }
    }
    bail!("{} is taken away again and again", path.display())
}

/// Locks a part that was opened; `None` where it has lost its name since.
pub(super) fn lock_opened(opened: File, path: &Path, target: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let Ok(file) = Flock::lock(opened, FlockArg::LockExclusiveNonblock) else {
        bail!("{} is being downloaded by another process", target.display());
    };
    let own = file.metadata().with_context(|| format!("look at {}", path.display()))?;
    if !own.is_file() {
        bail!("{} is no file", path.display());
    }
    let named = std::fs::symlink_metadata(path);
    let is_named = named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()));
    Ok(is_named.then_some(file))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the disk's thread has ended badly")?
}
