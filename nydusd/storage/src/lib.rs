//! Bytes of image blobs, local or remote: plan, fetch, verify, cache, serve.
//!
//! A read names a blob, an offset in its uncompressed image and a length. What is in the cache is read from there;
//! what is not is planned ([`plan`]: wanted chunks to merged ranges), fetched from a [`backend`], decompressed and
//! checked against its digest, answered, stored, and made known to everyone who waits for it.

pub mod backend;
mod blob;
mod blob_set;
mod cache;
mod chunks;
mod error;
mod fetch;
mod history;
pub mod plan;
mod policy;
mod prefetch;
mod read_ahead;
mod story;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod units;
mod verify;

pub use blob_set::{BlobReads, BlobSet};
pub use cache::CacheDir;
pub use error::StorageError;
pub use history::{BackendRead, Progress};
pub use policy::ReadPolicy;
pub use prefetch::Prefetched;
pub use story::{Came, ChunkStory, Stories};
