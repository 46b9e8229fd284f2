//! A disk in memory that records what is done to it, can be cut off at any point, and can fail.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::super::{
    directory::{CacheFile, Directory},
    lock,
};

#[derive(Debug, Clone)]
pub(super) enum Op {
    Write {
        file: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Clear {
        file: String,
    },
    Sync {
        file: String,
    },
    /// Durable when it returns.
    Replace {
        file: String,
        bytes: Vec<u8>,
    },
}

pub(super) type Files = HashMap<String, Vec<u8>>;

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) files: Mutex<Files>,
    pub(super) log: Mutex<Vec<Op>>,
    pub(super) is_full: AtomicBool,
    pub(super) loses_writes: AtomicBool,
    pub(super) is_unreadable: AtomicBool,
}

#[derive(Debug)]
pub(super) struct RecordedDirectory(pub(super) Arc<Disk>);

#[derive(Debug)]
struct RecordedFile(Arc<Disk>, String);

impl Disk {
    pub(super) fn with(files: Files) -> Arc<Self> {
        Arc::new(Self { files: Mutex::new(files), ..Self::default() })
    }

    fn record(&self, op: Op) {
        apply(&mut lock(&self.files), &op);
        lock(&self.log).push(op);
    }
}

fn apply(files: &mut Files, op: &Op) {
    match op {
        Op::Write { file, offset, bytes } => {
            let file = files.entry(file.clone()).or_default();
            file.resize(file.len().max(offset + bytes.len()), 0);
            file[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Op::Clear { file } => files.entry(file.clone()).or_default().clear(),
        Op::Replace { file, bytes } => drop(files.insert(file.clone(), bytes.clone())),
        Op::Sync { .. } => {}
    }
}

/// What is on the disk when the power goes after `log`: all that was flushed, and any part of what was not.
pub(super) fn cut(begin: &Files, log: &[Op], mut coin: impl FnMut() -> bool) -> Files {
    let mut files = begin.clone();
    let flushed_after =
        |at: usize, name: &str| log[at..].iter().any(|op| matches!(op, Op::Sync { file } if file == name));
    for (at, op) in log.iter().enumerate() {
        match op {
            Op::Write { file, .. } | Op::Clear { file } if flushed_after(at, file) => apply(&mut files, op),
            Op::Write { file, offset, bytes } => {
                for (n, sector) in bytes.chunks(512).enumerate().filter(|_| coin()) {
                    let (file, bytes) = (file.clone(), sector.to_vec());
                    apply(&mut files, &Op::Write { file, offset: offset + n * 512, bytes });
                }
            }
            Op::Clear { .. } if coin() => apply(&mut files, op),
            Op::Clear { .. } | Op::Sync { .. } => {}
            Op::Replace { .. } => apply(&mut files, op),
        }
    }
    files
}

impl Directory for RecordedDirectory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn CacheFile>> {
        lock(&self.0.files).entry(name.to_owned()).or_default();
        Ok(Arc::new(RecordedFile(self.0.clone(), name.to_owned())))
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let whole = lock(&self.0.files).get(name).cloned();
        Ok(whole.map(|bytes| bytes.into_iter().take(usize::try_from(max).unwrap()).collect()))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.record(Op::Replace { file: name.to_owned(), bytes: bytes.to_vec() });
        Ok(())
    }
}

impl CacheFile for RecordedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.0.is_unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("unreadable"));
        }
        let files = lock(&self.0.files);
        let at = usize::try_from(offset).unwrap();
        let bytes = files[&self.1].get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.0.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (file, offset) = (self.1.clone(), usize::try_from(offset).unwrap());
        self.0.record(Op::Write { file, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.0.loses_writes.load(Ordering::SeqCst) {
            return Err(io::Error::other("lost"));
        }
        self.0.record(Op::Sync { file: self.1.clone() });
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.0.record(Op::Clear { file: self.1.clone() });
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0.files)[&self.1].len() as u64)
    }
}
