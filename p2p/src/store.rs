//! Pieces on disk.
//!
//! ```text
//! <directory>/lock                            held by the one process that uses it
//! <directory>/<task>/meta.json                what the task is, written whole before anything is in it
//! <directory>/<task>/places                   where its pieces lie, if they are of different sizes
//! <directory>/<task>/data                     the blob, sparse
//! <directory>/<task>/map                      a bit for each good piece, lowest bit first
//! ```
//!
//! A bit is written only after its piece is durable, so that a process or a machine may die at any instant. Pieces whose
//! standing is provisional have no bit: they are gone after a restart. Whole tasks are evicted, the least recently used
//! first, and never one that is in use: [`Stored`] is that use.
//!
//! All calls block on the disk: from async code they belong on threads for that.

mod files;
mod flush;
mod map;
mod meta;
mod space;
mod stored;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs::{self, File, TryLockError},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

pub use meta::Kept;
pub use space::Budget;
pub use stored::{Standing, Stored};

use crate::{NodeId, PieceIndex, PieceLayout, TaskId, Vouch};
use flush::Flusher;
use meta::Meta;
use table::{Removed, Table};

/// Why something is not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("{}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{} is used by another process", .0.display())]
    InUse(PathBuf),
    /// A file of a task.
    #[error("{what} of task {task}")]
    File {
        /// The task.
        task: TaskId,
        /// What was done.
        what: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The disk is full, or would be fuller than allowed; nothing that may be evicted is left.
    #[error(
        "the disk has {free} bytes free, and {keep} are to be left: nothing is stored until there is room"
    )]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are to be left free.
        keep: u64,
    },
    /// All of the budget is in use.
    #[error("all of the {budget} bytes for pieces are in use")]
    BudgetFull {
        /// What of the budget is for pieces.
        budget: u64,
    },
    /// The task is in use with another layout.
    #[error("task {0} is in use with another length or piece size")]
    OtherLayout(TaskId),
    /// Bytes that are not of the piece's length.
    #[error("{found} bytes for a piece of {expected}")]
    Length {
        /// How many were given.
        found: usize,
        /// How many the piece has.
        expected: u32,
    },
    /// A piece that is not there.
    #[error("piece {0} is not there")]
    Missing(u32),
    /// The disk took pieces and did not keep them.
    #[error("the disk did not keep what was written of task {0}")]
    NotKept(TaskId),
    /// So much is to be stored that it does not fit.
    #[error("{needed} bytes more are to be stored, and there is room for {room}")]
    NoRoom {
        /// Bytes that are not here.
        needed: u64,
        /// Bytes that the disk and the budget have room for, with all evicted that may be.
        room: u64,
    },
}

/// The pieces of a node. Dropping it makes everything durable.
#[derive(Debug)]
pub struct Store {
    /// Ends first: the directory is another process's only when everything is durable.
    flusher: Flusher,
    shared: Shared,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    _lock: DirectoryLock,
}

/// Keeps other processes out.
#[derive(Debug)]
struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is being started has the file as well, for a moment.
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "cannot unlock the store");
        }
    }
}

/// A task that the store has something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub task: TaskId,
    /// How it is cut.
    pub layout: PieceLayout,
    /// What vouches for its pieces.
    pub kept: Kept,
    /// How many bytes are there.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in `directory`, which is made where it is not there. What cannot be read again is removed.
    ///
    /// # Errors
    /// [`StoreError`] where the directory cannot be used.
    pub fn open(directory: &Path, budget: Budget) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let lock = File::create(directory.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse(directory.to_owned()),
            TryLockError::Error(error) => failed(error),
        })?;
        let table = Table::read(directory, budget).map_err(failed)?;
        let shared = Shared { table: Mutex::new(table), _lock: DirectoryLock(lock) };
        let flusher = Flusher::start().map_err(failed)?;
        Ok(Self { flusher, shared })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.shared.table().directory().to_owned()
    }

    /// Everything that the store has, the most recently used first.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        self.shared.table().known()
    }

    /// Bytes of pieces, those that are being written among them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.table().usage().bytes
    }

    /// What may be stored.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.shared.table().budget()
    }

    /// Changes what may be stored. What is beyond it is evicted by [`Self::trim`], or when something is stored next.
    pub fn set_budget(&self, budget: Budget) {
        self.shared.table().set_budget(budget);
    }

    /// Bytes of the budget that others take.
    #[must_use]
    pub fn beside(&self) -> u64 {
        self.shared.table().beside()
    }

    /// Others take so many bytes of the budget: pieces may take the rest, and a little where that is less. What is beyond
    /// it is evicted as with [`Self::set_budget`].
    pub fn set_beside(&self, bytes: u64) {
        self.shared.table().set_beside(bytes);
    }

    /// Most bytes of pieces now: what others leave of the budget.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.shared.table().most()
    }

    /// Evicts what is beyond the budget or makes the disk too full, the least recently used first; gives how many tasks.
    /// What is in use stays.
    ///
    /// # Errors
    /// [`StoreError::Directory`] where the disk does not say how full it is.
    pub fn trim(&self) -> Result<usize, StoreError> {
        self.shared.trim()
    }

    /// Uses a task, which is begun where nothing of it is there.
    ///
    /// # Errors
    /// [`StoreError`] where its files cannot be made or read, and where it is in use with another layout.
    pub fn task(&self, vouch: Vouch<'_>, layout: PieceLayout) -> Result<Arc<Stored>, StoreError> {
        let meta = Meta::new(vouch, layout);
        let mut table = self.shared.table();
        if let Some(stored) = table.open(meta.task)? {
            if *stored.layout() == meta.layout {
                return Ok(stored);
            }
            drop(stored);
            let removed = table.take_out(meta.task).ok_or(StoreError::OtherLayout(meta.task))?;
            removed.delete();
        }
        table.create(meta)
    }

    /// Stores a piece with the standing that it has; says whether it was stored. A good one stays as it is, and a
    /// provisional one unless this one is good.
    ///
    /// # Errors
    /// [`StoreError`] where there is no room, or the piece cannot be written.
    pub fn put(
        &self,
        stored: &Stored,
        piece: PieceIndex,
        bytes: &[u8],
        standing: Standing,
    ) -> Result<bool, StoreError> {
        self.write(stored, (piece, bytes), standing, standing == Standing::Good)
    }

    /// Stores a provisional piece in place of another one, whose room it takes, or where there is none; says whether it
    /// was stored. A good one stays as it is.
    ///
    /// # Errors
    /// As [`Self::put`]. The piece that was there may be gone then.
    pub fn replace(
        &self,
        stored: &Stored,
        piece: PieceIndex,
        bytes: &[u8],
        fetcher: NodeId,
    ) -> Result<bool, StoreError> {
        self.write(stored, (piece, bytes), Standing::Provisional(fetcher), true)
    }

    fn write(
        &self,
        stored: &Stored,
        (piece, bytes): (PieceIndex, &[u8]),
        standing: Standing,
        replace: bool,
    ) -> Result<bool, StoreError> {
        let Some(mut place) = stored.files().begin(piece, bytes.len(), replace)? else { return Ok(false) };
        self.shared.reserve(&mut place)?;
        place.write(bytes, standing).map_err(|error| self.explain(error))?;
        stored.touch(SystemTime::now());
        if standing == Standing::Good {
            self.flusher.wrote(stored.files(), bytes.len());
        }
        Ok(true)
    }

    /// Says that the disk is full where that is what `error` means: somebody else has filled it meanwhile.
    fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                StoreError::DiskFull { free: 0, keep: self.budget().keep_free }
            }
            error => error,
        }
    }

    /// Makes all provisional pieces good: the whole has been checked.
    pub fn confirm(&self, stored: &Stored) {
        if stored.files().confirm() {
            self.flusher.wrote(stored.files(), 0);
        }
    }

    /// Takes a piece away: it is not what it should be.
    ///
    /// # Errors
    /// [`StoreError::File`] where the disk does not forget it.
    pub fn forget(&self, stored: &Stored, piece: PieceIndex) -> Result<(), StoreError> {
        stored.files().forget(piece)
    }

    /// Whether what a range of a task misses fits, within the budget and on the disk: what does not had better not be
    /// begun. What is to be stored besides it meanwhile is not counted.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`] where it does not fit, [`StoreError::Directory`] where the disk does not say.
    pub fn fits(&self, stored: &Stored, range: Range<u64>) -> Result<(), StoreError> {
        self.shared.fits(stored.missing(range))
    }

    /// Returns when the disk has not kept pieces since this last returned: [`Stored::lacks`] tells whose. For one listener.
    pub async fn has_lost(&self) {
        self.flusher.failed().await;
    }

    /// Forgets all about a task that is not in use; says whether it did.
    pub fn remove(&self, task: TaskId) -> bool {
        let removed = self.shared.table().take_out(task);
        removed.map(Removed::delete).is_some()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.table().note_uses();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
