//! All blobs of one image.

mod demand;

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use rafs::{BlobIndex, Bootstrap};

use crate::{
    CacheDir, ReadPolicy, StorageError,
    backend::Backend,
    blob::Blob,
    chunks::ChunkTable,
    fetch::Fetcher,
    prefetch::{self, Prefetched},
};

/// How long [`BlobSet::close`] waits for running tasks, and then for the disk.
const CLOSE: Duration = Duration::from_secs(5);

/// All blobs of one mounted image.
#[derive(Debug)]
pub struct BlobSet {
    pub(crate) blobs: Vec<Arc<Blob>>,
    pub(crate) fetcher: Arc<Fetcher>,
    cache: Arc<CacheDir>,
}

/// Figures of one image or blob, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobReads {
    /// Bytes of blob files received from backends.
    pub fetched_bytes: u64,
    /// Requests made to backends.
    pub requests: u64,
    /// Reads answered wholly from the cache.
    pub hits: u64,
    /// Reads that waited for at least one chunk.
    pub misses: u64,
    /// Reads that failed.
    pub failures: u64,
    /// Chunks that are in the cache.
    pub ready_chunks: u64,
    /// Chunks of the image.
    pub chunks: u64,
    /// What was fetched ahead by lists.
    pub prefetch: Prefetched,
}

impl BlobSet {
    /// Opens the blobs that `bootstrap` names; nothing is fetched. Spawned tasks run on the current tokio runtime and
    /// end with [`Self::close`].
    ///
    /// # Errors
    /// [`StorageError::Format`] for an image whose chunks cannot be verified, [`StorageError::Cache`] for a broken disk.
    pub fn open<B: AsRef<[u8]>>(
        bootstrap: &Bootstrap<B>,
        cache: &Arc<CacheDir>,
        backend: Arc<dyn Backend>,
        policy: ReadPolicy,
    ) -> Result<Arc<Self>, StorageError> {
        let tables = ChunkTable::all(bootstrap)?;
        let open = |((index, blob), table)| Blob::open(index, blob, table, cache).map(Arc::new);
        let blobs = indexed(bootstrap.blobs()).zip(tables).map(open).collect::<Result<_, _>>()?;
        Ok(Self::with_blobs(blobs, cache, backend, policy))
    }

    /// Opens blobs with the chunks that stand in them, in the order of their indexes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_blobs(
        blobs: &[rafs::Blob],
        cache: &Arc<CacheDir>,
        backend: Arc<dyn Backend>,
        policy: ReadPolicy,
    ) -> Result<Arc<Self>, StorageError> {
        let open = |(index, blob)| Blob::open(index, blob, ChunkTable::new(blob)?, cache).map(Arc::new);
        let blobs = indexed(blobs).map(open).collect::<Result<_, _>>()?;
        Ok(Self::with_blobs(blobs, cache, backend, policy))
    }

    fn with_blobs(
        blobs: Vec<Arc<Blob>>,
        cache: &Arc<CacheDir>,
        backend: Arc<dyn Backend>,
        policy: ReadPolicy,
    ) -> Arc<Self> {
        let fetcher = Arc::new(Fetcher::new(backend, policy));
        Arc::new(Self { blobs, fetcher, cache: cache.clone() })
    }

    /// Fills `buf` from the uncompressed image of a blob, if all of it is in the cache: `Ok(false)` where a chunk is
    /// missing, and `buf` is then undefined. Never blocks on the network, never allocates.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`].
    pub fn try_read(&self, blob: BlobIndex, offset: u64, buf: &mut [u8]) -> Result<bool, StorageError> {
        let blob = self.blob(blob, offset)?;
        let (_, places) = blob.covering(offset, buf.len() as u64)?;
        blob.touch(places.clone());
        let hit = places.clone().all(|place| blob.is_ready(place)) && blob.read_cached(places, buf, offset);
        if hit {
            self.fetcher.counters.hits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(hit)
    }

    /// The same bytes, fetched where they are missing. Ends within the policy's deadline.
    ///
    /// # Errors
    /// [`StorageError`]; the next read tries again.
    pub async fn read(
        self: Arc<Self>,
        blob: BlobIndex,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, StorageError> {
        let blob = self.blob(blob, offset)?.clone();
        let (range, places) = blob.covering(offset, u64::from(len))?;
        blob.touch(places.clone());
        let is_hit = places.clone().all(|place| blob.is_ready(place));
        let counters = &self.fetcher.counters;
        if is_hit { &counters.hits } else { &counters.misses }.fetch_add(1, Ordering::Relaxed);
        let read = demand::read(&self.fetcher, &blob, places, range).await;
        if read.is_err() {
            counters.failures.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    fn blob(&self, index: BlobIndex, offset: u64) -> Result<&Arc<Blob>, StorageError> {
        let unknown = || StorageError::OutOfRange { blob: rafs::BlobId::unknown(), range: offset..offset };
        self.blobs.get(usize::from(index.0)).ok_or_else(unknown)
    }

    /// Fetches chunks in the background, below demand reads: first those of the files in `files` (from the image's
    /// prefetch table, directories already walked), in order.
    pub fn prefetch(self: &Arc<Self>, ranges: Vec<(BlobIndex, Range<u64>)>) {
        let places = |(index, range): (BlobIndex, Range<u64>)| {
            let blob = self.blobs.get(usize::from(index.0))?;
            Some((blob.clone(), blob.table.touching(&range)))
        };
        let list = ranges.into_iter().filter_map(places).collect();
        let run = prefetch::run(self.fetcher.clone(), list);
        let closing = self.fetcher.closing.clone();
        self.fetcher.tasks.spawn(async move { closing.run_until_cancelled(run).await });
    }

    /// Figures of the image.
    pub fn reads(&self) -> BlobReads {
        let counters = &self.fetcher.counters;
        let ready = |blob: &Arc<Blob>| {
            (0..blob.table.entries.len()).filter(|place| blob.is_ready(*place)).count() as u64
        };
        BlobReads {
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            ready_chunks: self.blobs.iter().map(ready).sum(),
            chunks: self.blobs.iter().map(|blob| blob.table.entries.len() as u64).sum(),
            prefetch: self.fetcher.counters.prefetch.figures(),
        }
    }

    /// Ends all tasks, fails waiting reads, and makes the cache durable.
    pub async fn close(&self) {
        self.fetcher.closing.cancel();
        self.fetcher.tasks.close();
        if tokio::time::timeout(CLOSE, self.fetcher.tasks.wait()).await.is_err() {
            tracing::warn!(image = self.fetcher.image(), "fetches still run at the end");
        }
        let caches: Vec<_> = self.blobs.iter().map(|blob| blob.cache.clone()).collect();
        let flush = tokio::task::spawn_blocking(move || caches.iter().for_each(|cache| cache.flush()));
        match tokio::time::timeout(CLOSE, flush).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!(image = self.fetcher.image(), "flushing the cache panicked"),
            Err(_) => tracing::warn!(
                image = self.fetcher.image(),
                "the cache disk is slow; what is not durable is lost"
            ),
        }
    }
}

/// Blobs of an image, by their place in its table.
fn indexed(blobs: &[rafs::Blob]) -> impl Iterator<Item = (BlobIndex, &rafs::Blob)> {
    (0..=u8::MAX).map(BlobIndex).zip(blobs)
}

impl Drop for BlobSet {
    fn drop(&mut self) {
        self.fetcher.closing.cancel();
        self.blobs.clear();
        self.cache.prune();
    }
}
