//! One blob as one image sees it.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use rafs::{BlobId, BlobIndex, blob::feature};

use crate::{
    CacheDir, StorageError,
    backend::Priority,
    cache::{
        BlobCache,
        chunk_map::Bits,
        inflight::{Joined, Joining, Owner},
        lock,
    },
    chunks::ChunkTable,
    history::Arrivals,
    plan::Neighbours,
    read_ahead::Streams,
    units::{Place, UnitTable, Units},
};

/// One blob as one image sees it.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) id: BlobId,
    /// Its place in the image's blob table.
    pub(crate) index: BlobIndex,
    pub(crate) table: ChunkTable,
    pub(crate) cache: Arc<BlobCache>,
    pub(crate) streams: Mutex<Streams>,
    /// Chunks that were read, not only fetched; by place in the table.
    touched: Bits,
    /// Chunks that were ready when the image was mounted; by place in the table.
    before: Bits,
    /// By which reads chunks came.
    pub(crate) arrivals: Arrivals,
    /// Of a blob some of whose chunks share units.
    pub(crate) batch: Option<Batch>,
    pub(crate) owner: Owner,
}

/// The units of a batch blob.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) table: UnitTable,
    /// Read from the blob when a chunk is first missed.
    units: Mutex<Option<Arc<Units>>>,
    /// Held by the one that reads it.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Batch {
    pub(crate) fn units(&self) -> Option<Arc<Units>> {
        lock(&self.units).clone()
    }

    pub(crate) fn learn(&self, units: Units) {
        *lock(&self.units) = Some(Arc::new(units));
    }

    /// Units have not held the chunks that they were said to: the table is read again when it is next needed.
    pub(crate) fn forget(&self) {
        *lock(&self.units) = None;
    }
}

impl Blob {
    pub(crate) fn open(
        index: BlobIndex,
        blob: &rafs::Blob,
        mut table: ChunkTable,
        cache: &CacheDir,
    ) -> Result<Self, StorageError> {
        let cache = cache.attach(&blob.id, &mut table);
        Self::with_cache(index, blob, table, cache)
    }

    /// Over a cache that knows the chunks of `table`.
    pub(crate) fn with_cache(
        index: BlobIndex,
        blob: &rafs::Blob,
        table: ChunkTable,
        cache: Arc<BlobCache>,
    ) -> Result<Self, StorageError> {
        let batch = match blob.features & feature::BATCH {
            0 => None,
            _ => Some(Batch {
                table: UnitTable::new(blob)?,
                units: Mutex::default(),
                turn: Default::default(),
            }),
        };
        let count = u32::try_from(table.entries.len()).expect("at most 2^24 chunks");
        let (touched, before) = (Bits::new(count), Bits::new(count));
        let is_ready = |place: &u32| cache.is_ready(table.entries[*place as usize].number());
        (0..count).filter(is_ready).for_each(|place| before.set(place));
        let (id, owner, streams) = (blob.id.clone(), Owner::new(), Mutex::default());
        let arrivals = Arrivals::new(table.entries.len());
        Ok(Self { id, index, table, cache, streams, touched, before, arrivals, batch, owner })
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

    /// Whether it was ready when the image was mounted.
    pub(crate) fn was_ready(&self, place: usize) -> bool {
        u32::try_from(place).is_ok_and(|place| self.before.get(place))
    }

    /// Where the chunk at `place` stands in the blob file; `None` as long as only the blob could tell.
    pub(crate) fn stands(&self, place: usize) -> Option<Place> {
        match self.table.entries.get(place)?.own_unit() {
            Some(unit) => Some(Place { unit, begin: 0 }),
            None => self.batch.as_ref()?.units()?.place(place),
        }
    }

    /// Joins the readers of the chunk at `place`; `impatient` does not wait for another image's fetch.
    pub(crate) fn join(&self, place: usize, priority: Priority, patience: u64, impatient: bool) -> Joined {
        let number = self.table.entries[place].number();
        let end = self.stands(place).map_or(0, |at| at.unit.stored().end);
        let is_ready = || self.cache.is_ready(number);
        let chunk = Joining { number, end, owner: self.owner, impatient };
        self.cache.inflight.join(chunk, priority, patience, is_ready)
    }

    /// `places` and those next to them that come in the same units.
    pub(crate) fn with_siblings(&self, places: Range<usize>) -> Range<usize> {
        match self.batch.as_ref().and_then(Batch::units) {
            Some(units) => units.with_siblings(places),
            None => places,
        }
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
        Some(self.stands(place)?.unit.stored())
    }

    fn is_missing(&self, place: usize) -> bool {
        !self.is_ready(place) && !self.cache.inflight.contains(self.table.entries[place].number())
    }
}
