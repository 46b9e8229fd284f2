//! The backend of a mounted image: it counts, and can be exchanged.

use std::{
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::{FutureExt, future::BoxFuture};
use rafs::BlobId;
use storage::backend::{Backend, BackendError, ByteStream, Priority, Via};

use super::observed::{BackendCounters, observe};

/// A backend that can be exchanged under a mounted image, as when its credentials run out.
#[derive(Debug)]
pub struct SwapBackend {
    current: RwLock<Arc<dyn Backend>>,
    counters: Arc<BackendCounters>,
}

impl SwapBackend {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(backend), counters: Arc::default() })
    }

    /// Reads that begin from now on go to `backend`.
    pub fn swap(&self, backend: Arc<dyn Backend>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = backend;
    }

    /// Counts of its reads.
    pub fn counters(&self) -> &BackendCounters {
        &self.counters
    }

    fn current(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for SwapBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        observe(Arc::clone(&self.counters), self.current().read(blob, range, priority, via)).boxed()
    }

    fn prepare(self: Arc<Self>, blobs: Vec<BlobId>) -> BoxFuture<'static, ()> {
        self.current().prepare(blobs)
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        self.current().distrust(blob, range)
    }

    fn name(&self) -> String {
        self.current().name()
    }
}
