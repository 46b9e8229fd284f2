//! One blob as one image sees it.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use rafs::BlobId;

use crate::{
    CacheDir, StorageError,
    cache::{BlobCache, chunk_map::Bits},
    chunks::ChunkTable,
    plan::Neighbours,
    read_ahead::Streams,
};

/// One blob as one image sees it.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) id: BlobId,
    pub(crate) table: ChunkTable,
    pub(crate) cache: Arc<BlobCache>,
    pub(crate) streams: Mutex<Streams>,
    /// Chunks that were read, not only fetched; by place in the table.
    touched: Bits,
}

impl Blob {
    pub(crate) fn open(blob: &rafs::Blob, cache: &CacheDir) -> Result<Self, StorageError> {
        let mut table = ChunkTable::new(blob)?;
        let cache = cache.attach(&blob.id, &mut table);
        let touched = Bits::new(u32::try_from(table.entries.len()).expect("at most 2^24 chunks"));
        Ok(Self { id: blob.id.clone(), table, cache, streams: Mutex::default(), touched })
    }

    /// The `len` bytes from `offset` on, and the places of the chunks that hold them.
    pub(crate) fn covering(&self, offset: u64, len: u64) -> Result<(Range<u64>, Range<usize>), StorageError> {
        let range = offset..offset.saturating_add(len);
        let is_whole = range.end - offset == len;
        match self.table.covering(&range).filter(|_| is_whole) {
            Some(places) => Ok((range, places)),
            None => Err(StorageError::OutOfRange { blob: self.id.clone(), range }),
        }
    }

    pub(crate) fn is_ready(&self, place: usize) -> bool {
        self.cache.is_ready(self.table.entries[place].number())
    }

    /// Remembers that a reader wanted the chunks.
    pub(crate) fn touch(&self, places: Range<usize>) {
        for place in places.filter_map(|place| u32::try_from(place).ok()) {
            if !self.touched.get(place) {
                self.touched.set(place);
            }
        }
    }

    pub(crate) fn is_touched(&self, place: usize) -> bool {
        u32::try_from(place).is_ok_and(|place| self.touched.get(place))
    }

    /// Reads from the cache; all of `places`, which hold `offset` and what follows, are ready. `false`: the disk has
    /// failed, and the chunks are to be fetched again.
    pub(crate) fn read_cached(&self, places: Range<usize>, buf: &mut [u8], offset: u64) -> bool {
        let entries = &self.table.entries[places];
        let end = entries.last().map_or(0, |last| last.end());
        // Behind the last chunk's bytes are zeros, up to the end of its block.
        let stored = usize::try_from(end.saturating_sub(offset)).map_or(buf.len(), |len| len.min(buf.len()));
        let (stored, padding) = buf.split_at_mut(stored);
        padding.fill(0);
        match self.cache.read(stored, offset) {
            Ok(()) => true,
            Err(e) => {
                entries.iter().for_each(|entry| self.cache.forget(entry.number(), &e));
                false
            }
        }
    }
}

impl Neighbours for Blob {
    fn stored(&self, place: usize) -> Option<Range<u64>> {
        Some(self.table.entries.get(place)?.stored())
    }

    fn is_missing(&self, place: usize) -> bool {
        !self.is_ready(place) && !self.cache.inflight.contains(self.table.entries[place].number())
    }
}
