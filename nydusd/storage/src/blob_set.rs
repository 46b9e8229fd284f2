//! All blobs of one image.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use rafs::{BlobIndex, Bootstrap, Nid};

use crate::{StorageError, backend::Backend};

/// A directory of blob caches, shared by all images of a daemon: one cache per blob, however many images use it,
/// as long as they agree on every chunk they have in common.
#[derive(Debug)]
pub struct CacheDir {}

impl CacheDir {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`StorageError::Cache`] where it cannot be made.
    pub fn open(path: &Path) -> Result<Arc<Self>, StorageError> {
        let _ = path;
        todo!()
    }
}

/// How reads of one image behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPolicy {
    /// How long a read waits for its bytes before it fails.
    pub deadline: Duration,
    /// Merge wanted chunks whose gap in the blob file is at most this many bytes.
    pub merge_gap: u64,
    /// Largest request to a backend, in bytes.
    pub max_request: u64,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(60), merge_gap: 64 << 10, max_request: 4 << 20 }
    }
}

/// All blobs of one mounted image.
#[derive(Debug)]
pub struct BlobSet {}

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
        let _ = (bootstrap, cache, backend, policy);
        todo!()
    }

    /// Fills `buf` from the uncompressed image of a blob, if all of it is in the cache: `Ok(false)` where a chunk is
    /// missing, and `buf` is then undefined. Never blocks on the network, never allocates.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`].
    pub fn try_read(&self, blob: BlobIndex, offset: u64, buf: &mut [u8]) -> Result<bool, StorageError> {
        let _ = (blob, offset, buf);
        todo!()
    }

    /// The same bytes, fetched where they are missing. Ends within the policy's deadline.
    ///
    /// # Errors
    /// [`StorageError`]; the next read tries again.
    pub async fn read(self: Arc<Self>, blob: BlobIndex, offset: u64, len: u32) -> Result<Bytes, StorageError> {
        let _ = (blob, offset, len);
        todo!()
    }

    /// Fetches chunks in the background, below demand reads: first those of the files in `files` (from the image's
    /// prefetch table, directories already walked), in order.
    pub fn prefetch(self: &Arc<Self>, ranges: Vec<(BlobIndex, std::ops::Range<u64>)>) {
        let _ = (ranges, std::marker::PhantomData::<Nid>);
        todo!()
    }

    /// Figures of the image.
    pub fn reads(&self) -> BlobReads {
        todo!()
    }

    /// Ends all tasks, fails waiting reads, and makes the cache durable.
    pub async fn close(&self) {
        todo!()
    }
}
