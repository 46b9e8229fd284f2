//! Bytes of image blobs, local or remote: plan, fetch, verify, cache, serve.
//!
//! A read names a blob, an offset in its uncompressed image and a length. What is in the cache is read from there;
//! what is not is planned ([`plan`]: wanted chunks to merged ranges), fetched from a [`backend`], decompressed and
//! checked against its digest, answered, stored, and made known to everyone who waits for it.
#![allow(clippy::todo, reason = "interfaces stand before their bodies")]

pub mod backend;
mod blob_set;
mod error;

pub use blob_set::{BlobReads, BlobSet, CacheDir, ReadPolicy};
pub use error::StorageError;
