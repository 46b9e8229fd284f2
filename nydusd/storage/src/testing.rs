//! Blobs and backends for tests: in memory, faulty, slow.
#![allow(clippy::missing_panics_doc, reason = "a panic here is a failed test")]

mod blob;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use rafs::BlobId;
use tokio::time::Instant;

use crate::{
    backend::{Backend, BackendError, ByteStream, Priority, Via},
    cache::lock,
};

pub use blob::TestBlob;

/// One request that a backend was asked for.
pub type Request = (BlobId, Range<u64>, Priority);

/// Blobs in memory, and a log of the requests for them.
#[derive(Debug, Default)]
pub struct MemBackend {
    blobs: Mutex<HashMap<BlobId, Bytes>>,
    log: Mutex<Vec<Request>>,
}

impl MemBackend {
    /// A backend with these blobs.
    #[must_use]
    pub fn new(blobs: &[&TestBlob]) -> Arc<Self> {
        let backend = Self::default();
        blobs.iter().for_each(|b| backend.put(b.blob.id.clone(), b.file.clone()));
        Arc::new(backend)
    }

    /// Puts or replaces the file of a blob.
    pub fn put(&self, blob: BlobId, file: Bytes) {
        lock(&self.blobs).insert(blob, file);
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.log).clone()
    }
}

fn error(blob: &BlobId, range: &Range<u64>, retryable: bool, kind: io::ErrorKind) -> BackendError {
    let source = Box::new(io::Error::from(kind));
    BackendError { backend: "testing".into(), blob: blob.clone(), range: range.clone(), retryable, source }
}

impl Backend for MemBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        _via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        lock(&self.log).push((blob.clone(), range.clone(), priority));
        let file = lock(&self.blobs).get(&blob).cloned();
        async move {
            let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let found = file.zip(bounds).filter(|(file, (_, end))| *end <= file.len());
            let Some((file, (start, end))) = found else {
                return Err(error(&blob, &range, false, io::ErrorKind::NotFound));
            };
            let pieces =
                (start..end).step_by(16 << 10).map(move |at| Ok(file.slice(at..end.min(at + (16 << 10)))));
            Ok(stream::iter(pieces).boxed())
        }
        .boxed()
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and trying again can or cannot help.
    Refuse {
        /// Whether trying again can help.
        retryable: bool,
    },
    /// The stream ends with an error after its first piece.
    Break,
    /// The stream ends silently after its first piece.
    Short,
    /// A bit of the first piece is flipped.
    Corrupt,
    /// Nothing ever comes.
    Stall,
}

/// A backend whose nth request (from 0) goes wrong.
#[derive(Debug)]
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    faults: Mutex<HashMap<usize, Fault>>,
    calls: AtomicUsize,
}

impl FaultBackend {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, faults: impl IntoIterator<Item = (usize, Fault)>) -> Arc<Self> {
        let faults = Mutex::new(faults.into_iter().collect());
        Arc::new(Self { inner, faults, calls: AtomicUsize::new(0) })
    }
}

impl Backend for FaultBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let fault = lock(&self.faults).get(&call).copied();
        async move {
            let failure = error(&blob, &range, true, io::ErrorKind::ConnectionReset);
            if let Some(Fault::Refuse { retryable }) = fault {
                return Err(BackendError { retryable, ..failure });
            }
            let stream = self.inner.clone().read(blob, range, priority, via).await?;
            Ok(match fault {
                Some(Fault::Break) => stream.take(1).chain(stream::iter([Err(failure)])).boxed(),
                Some(Fault::Short) => stream.take(1).boxed(),
                Some(Fault::Stall) => stream::pending().boxed(),
                Some(Fault::Corrupt) => stream.enumerate().map(|(n, piece)| flip(n, piece)).boxed(),
                _ => stream,
            })
        }
        .boxed()
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        self.inner.distrust(blob, range)
    }

    fn name(&self) -> String {
        "faulty".into()
    }
}

fn flip(n: usize, piece: Result<Bytes, BackendError>) -> Result<Bytes, BackendError> {
    let piece = piece?;
    if n > 0 {
        return Ok(piece);
    }
    let mut bytes = piece.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    Ok(bytes.into())
}

/// Waits, unless it is less than timers are coarse: what is left adds up in [`SlowBackend::free_at`].
async fn wait_until(at: Instant) {
    if at > Instant::now() + Duration::from_millis(2) {
        tokio::time::sleep_until(at).await;
    }
}

/// A backend behind a link with a round trip time and a bandwidth that all requests share.
#[derive(Debug)]
pub struct SlowBackend {
    inner: Arc<dyn Backend>,
    round_trip: Duration,
    bytes_per_second: u32,
    free_at: Mutex<Instant>,
}

impl SlowBackend {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, round_trip: Duration, bytes_per_second: u32) -> Arc<Self> {
        Arc::new(Self { inner, round_trip, bytes_per_second, free_at: Mutex::new(Instant::now()) })
    }

    /// When `len` bytes have passed the link.
    fn passed(&self, len: usize) -> Instant {
        let mut free_at = lock(&self.free_at);
        let time =
            Duration::from_secs(1) * u32::try_from(len).expect("a small piece") / self.bytes_per_second;
        *free_at = (*free_at).max(Instant::now()) + time;
        *free_at
    }
}

impl Backend for SlowBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            tokio::time::sleep(self.round_trip).await;
            let stream = self.inner.clone().read(blob, range, priority, via).await?;
            let delayed = stream.then(move |piece| {
                let passed = self.passed(piece.as_ref().map_or(0, Bytes::len));
                wait_until(passed).map(|()| piece)
            });
            Ok(delayed.boxed())
        }
        .boxed()
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        self.inner.distrust(blob, range)
    }

    fn name(&self) -> String {
        "slow".into()
    }
}
