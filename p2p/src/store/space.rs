//! Room: within a budget, and on the disk.

use nix::{errno::Errno, sys::statvfs::statvfs};

use super::{
    Shared, StoreError,
    files::Place,
    table::{Removed, Table},
};

/// What may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of pieces, and of what others keep beside them.
    pub bytes: u64,
    /// Bytes of the disk that stay free.
    pub keep_free: u64,
}

/// Least that pieces may take, however much others do: less would end the sharing.
const FLOOR: u64 = 256 << 20;

impl Budget {
    /// What others who take so many bytes of it leave to pieces.
    #[must_use]
    pub(super) fn beside(&self, taken: u64) -> u64 {
        self.bytes.saturating_sub(taken).max(FLOOR.min(self.bytes / 16))
    }
}

impl Shared {
    /// Makes room for a piece, at the cost of tasks that were not used for a long time.
    pub(super) fn reserve(&self, place: &mut Place<'_>) -> Result<(), StoreError> {
        while let Some(removed) = self.try_reserve(place)? {
            removed.delete();
        }
        Ok(())
    }

    /// Reserves, or takes out a task whose room is needed.
    fn try_reserve(&self, place: &mut Place<'_>) -> Result<Option<Removed>, StoreError> {
        let more = place.more();
        if more == 0 {
            return Ok(None);
        }
        let mut table = self.table();
        let (usage, most, keep) = (table.usage(), table.most(), table.budget().keep_free);
        if usage.bytes.saturating_add(more) > most {
            // Where the room of all who may go is not enough none goes in vain.
            let helps = usage.in_use.saturating_add(more) <= most;
            let removed = if helps { table.take_out_oldest() } else { None };
            return removed.map(Some).ok_or(StoreError::BudgetFull { budget: most });
        }
        let (free, needed) = (table.free()?, keep.saturating_add(more));
        if free < needed.saturating_add(usage.reserved)
            && let Some(removed) = table.take_out_oldest()
        {
            return Ok(Some(removed));
        }
        // What others are writing may have its room already: for that alone nobody is refused.
        if free < needed {
            return Err(StoreError::DiskFull { free, keep });
        }
        place.reserve();
        Ok(None)
    }

    /// Whether so many bytes more fit, if all that may be evicted is.
    pub(super) fn fits(&self, needed: u64) -> Result<(), StoreError> {
        if needed == 0 {
            return Ok(());
        }
        let table = self.table();
        let (usage, keep) = (table.usage(), table.budget().keep_free);
        let may_go = usage.bytes - usage.in_use;
        let on_disk = table.free()?.saturating_add(may_go).saturating_sub(keep);
        let room = on_disk.min(table.most().saturating_sub(usage.in_use));
        if needed <= room { Ok(()) } else { Err(StoreError::NoRoom { needed, room }) }
    }

    /// Evicts what is beyond the budget, and for a disk that is too full; gives how many tasks.
    pub(super) fn trim(&self) -> Result<usize, StoreError> {
        // Looked at once: a disk may take a while to have the room of what was deleted.
        let (free, keep) = {
            let table = self.table();
            (table.free()?, table.budget().keep_free)
        };
        let (mut missing, mut tasks) = (keep.saturating_sub(free), 0);
        while let Some(removed) = self.take_out_beyond(missing) {
            missing = missing.saturating_sub(removed.bytes);
            removed.delete();
            tasks += 1;
        }
        Ok(tasks)
    }

    /// The next task to go where pieces are beyond the budget, or the disk misses so many bytes.
    fn take_out_beyond(&self, missing: u64) -> Option<Removed> {
        let mut table = self.table();
        let is_beyond = missing > 0 || table.usage().bytes > table.most();
        if is_beyond { table.take_out_oldest() } else { None }
    }
}

impl Table {
    /// Bytes that the disk has for us.
    fn free(&self) -> Result<u64, StoreError> {
        let failed = |source: Errno| StoreError::Directory {
            path: self.directory().to_owned(),
            source: source.into(),
        };
        let found = statvfs(self.directory()).map_err(failed)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }
}
