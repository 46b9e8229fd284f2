//! Room: within a budget, and on the disk.

use std::io;

use nix::sys::statvfs::statvfs;

use super::{Shared, StoreError, table::Removed};

/// What may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of pieces.
    pub bytes: u64,
    /// Bytes of the disk that stay free.
    pub keep_free: u64,
}

/// Room for a piece that is being written.
#[derive(Debug)]
pub(super) struct Room<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Room<'_> {
    /// Says that the disk is full where that is what `error` means: somebody else has filled it meanwhile.
    pub(super) fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                StoreError::DiskFull { free: 0, keep: self.shared.table().budget().keep_free }
            }
            error => error,
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.shared.table().unreserve(self.bytes);
    }
}

impl Shared {
    /// Makes room for so many bytes, at the cost of tasks that were not used for a long time.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Room<'_>, StoreError> {
        loop {
            match self.try_reserve(bytes)? {
                Ok(room) => return Ok(room),
                Err(removed) => removed.delete(),
            }
        }
    }

    /// Reserves, or takes out a task whose room is needed.
    fn try_reserve(&self, bytes: u64) -> Result<Result<Room<'_>, Removed>, StoreError> {
        let mut table = self.table();
        let (budget, within) = (table.budget(), table.bytes().saturating_add(bytes) <= table.budget().bytes);
        let full = if !within && bytes > 0 {
            StoreError::BudgetFull { budget: budget.bytes }
        } else {
            let free = free(table.directory())
                .map_err(|source| StoreError::Directory { path: table.directory().to_owned(), source })?;
            if free >= budget.keep_free.saturating_add(bytes) {
                table.reserve(bytes);
                return Ok(Ok(Room { shared: self, bytes }));
            }
            StoreError::DiskFull { free, keep: budget.keep_free }
        };
        table.take_out_oldest().map(Err).ok_or(full)
    }
}

/// Bytes that the disk has for us.
fn free(directory: &std::path::Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}
