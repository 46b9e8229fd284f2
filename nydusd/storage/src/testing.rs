//! Blobs and backends for tests: in memory, faulty, slow.
#![allow(clippy::missing_panics_doc, reason = "a panic here is a failed test")]

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
use rafs::{Blob, BlobId, Chunk, Compressor, DigestAlgorithm, Encoder};
use tokio::time::Instant;

use crate::{
    backend::{Backend, BackendError, ByteStream, Priority},
    cache::lock,
};

/// A blob of made-up chunks.
#[derive(Debug, Clone)]
pub struct TestBlob {
    /// As a bootstrap tells of it.
    pub blob: Blob,
    /// The blob file.
    pub file: Bytes,
    /// The uncompressed image, padding included.
    pub image: Vec<u8>,
}

impl TestBlob {
    /// Chunks of the given sizes, with bytes that follow from `seed`; about half of each compresses away.
    #[must_use]
    pub fn new(seed: u64, sizes: &[u32]) -> Self {
        let mut state = seed;
        let mut plain = |i| if i % 64 < 32 { 7 } else { next_byte(&mut state) };
        Self::from_chunks(sizes.iter().map(|size| (0..*size).map(&mut plain).collect()))
    }

    /// The given chunks, each compressed where that helps.
    #[must_use]
    pub fn from_chunks(plain: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut encoder = Encoder::new(Compressor::Zstd).expect("zstd is written");
        let (mut file, mut image, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        for plain in plain {
            let stored = encoder.encode(&plain);
            let bytes = stored.unwrap_or(&plain);
            chunks.push(Some(Chunk {
                digest: DigestAlgorithm::Blake3.digest(&plain),
                compressed_offset: file.len() as u64,
                compressed_size: u32::try_from(bytes.len()).expect("a small chunk"),
                uncompressed_offset: image.len() as u64,
                uncompressed_size: u32::try_from(plain.len()).expect("a small chunk"),
                is_compressed: stored.is_some(),
                crc32c: None,
            }));
            file.extend_from_slice(bytes);
            image.extend_from_slice(&plain);
            image.resize(image.len().next_multiple_of(4096), 0);
        }
        let blob = Blob {
            id: BlobId::from_sha256(&DigestAlgorithm::Sha256.digest(&file).0),
            compressor: Compressor::Zstd,
            digest_algorithm: DigestAlgorithm::Blake3,
            features: 0,
            compressed_size: file.len() as u64,
            uncompressed_size: image.len() as u64,
            chunk_count: u32::try_from(chunks.len()).expect("few chunks"),
            ci: rafs::blob::CiLocation::default(),
            toc_size: 0,
            toc_digest: [0; 32],
            chunks,
        };
        Self { blob, file: file.into(), image }
    }

    /// The plain bytes of one chunk.
    #[must_use]
    pub fn plain(&self, number: usize) -> &[u8] {
        let chunk = self.blob.chunks[number].expect("every chunk is known");
        let begin = usize::try_from(chunk.uncompressed_offset).expect("it is in memory");
        &self.image[begin..begin + chunk.uncompressed_size as usize]
    }
}

fn next_byte(state: &mut u64) -> u8 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    state.to_be_bytes()[0]
}

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
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let fault = lock(&self.faults).get(&call).copied();
        async move {
            let failure = error(&blob, &range, true, io::ErrorKind::ConnectionReset);
            match fault {
                Some(Fault::Refuse { retryable }) => return Err(BackendError { retryable, ..failure }),
                Some(Fault::Stall) => std::future::pending::<()>().await,
                _ => {}
            }
            let stream = self.inner.clone().read(blob, range, priority).await?;
            Ok(match fault {
                Some(Fault::Break) => stream.take(1).chain(stream::iter([Err(failure)])).boxed(),
                Some(Fault::Short) => stream.take(1).boxed(),
                Some(Fault::Corrupt) => stream.enumerate().map(|(n, piece)| flip(n, piece)).boxed(),
                _ => stream,
            })
        }
        .boxed()
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
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            tokio::time::sleep(self.round_trip).await;
            let stream = self.inner.clone().read(blob, range, priority).await?;
            let delayed = stream.then(move |piece| {
                let passed = self.passed(piece.as_ref().map_or(0, Bytes::len));
                wait_until(passed).map(|()| piece)
            });
            Ok(delayed.boxed())
        }
        .boxed()
    }

    fn name(&self) -> String {
        "slow".into()
    }
}
