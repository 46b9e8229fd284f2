//! What can go wrong between a read and its bytes.

use std::{ops::Range, path::PathBuf, time::Duration};

use rafs::{BlobId, ChunkIndex};

use crate::backend::BackendError;

/// An error with its causes, in one line. A cause that says the same as what it caused is told once.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut told: Vec<String> =
        std::iter::successors(Some(error), |cause| cause.source()).map(ToString::to_string).collect();
    told.dedup();
    told.join(": ")
}

/// A read that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The backend failed, after its retries.
    #[error("chunk {chunk} of blob {blob} was not fetched")]
    Fetch {
        /// The blob.
        blob: BlobId,
        /// The first chunk that waited for it.
        chunk: ChunkIndex,
        /// The cause.
        #[source]
        source: std::sync::Arc<BackendError>,
    },
    /// The bytes that came are not those that the image names.
    #[error("chunk {chunk} of blob {blob} does not match its digest")]
    Digest {
        /// The blob.
        blob: BlobId,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// The bytes that came do not decompress.
    #[error("chunk {chunk} of blob {blob} does not decompress")]
    Decode {
        /// The blob.
        blob: BlobId,
        /// The chunk.
        chunk: ChunkIndex,
        /// The cause.
        #[source]
        source: rafs::FormatError,
    },
    /// The blob does not tell where its chunks stand.
    #[error("the table of chunks of blob {blob} is broken")]
    Table {
        /// The blob.
        blob: BlobId,
        /// The cause.
        #[source]
        source: rafs::FormatError,
    },
    /// Nothing came in time.
    #[error("chunk {chunk} of blob {blob} did not come within {deadline:?}")]
    Deadline {
        /// The blob.
        blob: BlobId,
        /// The chunk.
        chunk: ChunkIndex,
        /// How long was waited.
        deadline: Duration,
    },
    /// A range outside the blob, or over bytes that no known chunk holds.
    #[error("blob {blob} has no bytes {range:?}")]
    OutOfRange {
        /// The blob.
        blob: BlobId,
        /// The bytes asked for, in the uncompressed image.
        range: Range<u64>,
    },
    /// The image cannot be served.
    #[error("image not served")]
    Format(#[from] rafs::FormatError),
    /// The cache directory cannot be used at all.
    #[error("cache {path}")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The daemon is going down, or the image is being unmounted.
    #[error("blob {blob} is being closed")]
    Closed {
        /// The blob.
        blob: BlobId,
    },
}
