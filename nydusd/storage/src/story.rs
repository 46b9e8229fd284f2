//! For each chunk of an image: where it came from, how long that took and why.

use std::{ops::Range, sync::Arc, time::Duration};

use rafs::{BlobIndex, ChunkIndex};

use crate::{BlobSet, blob::Blob, history::BackendRead};

/// Failed reads that chunks are looked for in: the last ones.
const FAILURES: usize = 1024;

/// One chunk of an image.
#[derive(Debug, Clone)]
pub struct ChunkStory {
    /// Its blob.
    pub blob: BlobIndex,
    /// Its number in it.
    pub chunk: ChunkIndex,
    /// Where it begins in the uncompressed image of the blob.
    pub offset: u64,
    /// Its length there.
    pub size: u32,
    /// The bytes of the blob file that hold it, alone or with others; `None` as long as only the blob could tell.
    pub stored: Option<Range<u64>>,
    /// Whether anybody has read it since the image was mounted.
    pub is_read: bool,
    /// How it came.
    pub came: Came,
}

/// How a chunk came into the cache.
#[derive(Debug, Clone)]
pub enum Came {
    /// It is not there.
    Not {
        /// The last read that was to bring it and failed.
        failed: Option<Arc<BackendRead>>,
    },
    /// It was there when the image was mounted.
    Before,
    /// It has come since, for another image of this daemon.
    ForAnother,
    /// It has come by a read of this image that is forgotten.
    Forgotten {
        /// Time from when it was first asked for to its checked bytes.
        waited: Duration,
    },
    /// It has come by a read of this image.
    By {
        /// The read.
        read: Arc<BackendRead>,
        /// Time from when it was first asked for to its checked bytes.
        waited: Duration,
    },
}

/// All that is remembered of an image's reads.
#[derive(Debug)]
pub struct Stories<'a> {
    set: &'a BlobSet,
    /// Time since the image was mounted.
    pub age: Duration,
    /// Reads that are not remembered any more.
    pub forgotten: u32,
    /// The others, in their order.
    pub reads: Vec<Arc<BackendRead>>,
    failed: Vec<Arc<BackendRead>>,
}

impl BlobSet {
    /// What is remembered of the image's reads, and what became of its chunks.
    pub fn stories(&self) -> Stories<'_> {
        let history = &self.fetcher.history;
        let (forgotten, reads) = history.all();
        let failures = reads.iter().rev().filter(|read| read.progress().error.is_some());
        let failed = failures.take(FAILURES).cloned().collect();
        Stories { set: self, age: history.age(), forgotten, reads, failed }
    }
}

impl Stories<'_> {
    /// Every chunk, blob after blob.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkStory> {
        self.set
            .blobs
            .iter()
            .flat_map(move |blob| (0..blob.table.entries.len()).map(move |place| self.chunk(blob, place)))
    }

    /// The chunks that hold bytes of a range of the uncompressed image of a blob.
    pub fn touching(&self, blob: BlobIndex, range: &Range<u64>) -> Vec<ChunkStory> {
        let Some(blob) = self.set.blobs.get(usize::from(blob.0)) else { return Vec::new() };
        blob.table.touching(range).map(|place| self.chunk(blob, place)).collect()
    }

    fn chunk(&self, blob: &Blob, place: usize) -> ChunkStory {
        let entry = &blob.table.entries[place];
        let stored = blob.stands(place).map(|at| at.unit.stored());
        let came = match blob.arrivals.get(place) {
            Some(arrival) => match self.read(arrival.read) {
                Some(read) => Came::By { read, waited: arrival.waited },
                None => Came::Forgotten { waited: arrival.waited },
            },
            None if !blob.is_ready(place) => Came::Not { failed: self.failed(blob.index, stored.as_ref()) },
            None if blob.was_ready(place) => Came::Before,
            None => Came::ForAnother,
        };
        let is_read = blob.is_touched(place);
        let (offset, size, chunk) = (entry.offset(), entry.size, entry.index());
        ChunkStory { blob: blob.index, chunk, offset, size, stored, is_read, came }
    }

    fn read(&self, number: u32) -> Option<Arc<BackendRead>> {
        let place = number.checked_sub(self.forgotten)?.checked_sub(1)?;
        self.reads.get(place as usize).cloned()
    }

    fn failed(&self, blob: BlobIndex, stored: Option<&Range<u64>>) -> Option<Arc<BackendRead>> {
        let stored = stored?;
        let holds = |read: &&Arc<BackendRead>| {
            read.blob == blob && read.range.start <= stored.start && stored.end <= read.range.end
        };
        self.failed.iter().find(holds).cloned()
    }
}

#[cfg(test)]
mod tests;
