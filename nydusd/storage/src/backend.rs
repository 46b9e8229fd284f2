//! Where blobs come from.

pub mod http;
pub mod localfs;
pub mod p2p;
pub mod registry;
mod via;

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use rafs::BlobId;

pub use via::{Detour, Supply, Via, Way, Why};

/// How urgent a read is. Lower ones wait while higher ones need the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Whole blobs, when nothing else is to do.
    Background,
    /// The image's prefetch list.
    Prefetch,
    /// Guessed from what was read before.
    ReadAhead,
    /// A process waits for it.
    Demand,
}

impl Priority {
    /// Its name, as the piece network has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::ReadAhead => "read-ahead",
            Self::Prefetch => "trace",
            Self::Background => "background",
        }
    }
}

/// Why a backend could not give bytes.
#[derive(Debug, thiserror::Error)]
#[error("{backend} has not given bytes {range:?} of blob {blob}")]
pub struct BackendError {
    /// Which backend: `registry example.com/app`, `localfs /blobs`.
    pub backend: String,
    /// Which blob.
    pub blob: BlobId,
    /// Which bytes of its file.
    pub range: Range<u64>,
    /// Whether trying again can help.
    pub retryable: bool,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Bytes of one range as they come. A stream that ends early is an error of the backend, never a short end.
pub type ByteStream = BoxStream<'static, Result<Bytes, BackendError>>;

/// A place that holds blobs.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Begins to read `range` of the file of `blob`. Streams exactly that many bytes, in order. Bounds its waits itself,
    /// so that it can go from a silent source to another. One with several sources tells `via` which of them gives what.
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>>;

    /// Does what has to be done before blobs of an image are read, as the image is mounted. Reads do not wait for it, and
    /// do themselves what it did not. Ends within a minute or so; may be dropped before.
    fn prepare(self: Arc<Self>, _blobs: Vec<BlobId>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Bytes of `range`, as they were streamed, were not those of `blob`, or did not come in time: another source is to
    /// be preferred for it, for a while. Says whether there is one, so that reading it anew can help more than a
    /// repetition would.
    fn distrust(&self, _blob: &BlobId, _range: Range<u64>) -> bool {
        false
    }

    /// Name for messages.
    fn name(&self) -> String;
}

#[cfg(test)]
mod tests;
