//! Where pieces come from that no node has.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::Priority;

/// An origin did not give bytes.
#[derive(Debug, thiserror::Error)]
#[error("{origin} has not given bytes {range:?}")]
pub struct OriginError {
    /// Which origin, as a person knows it.
    pub origin: String,
    /// Which bytes.
    pub range: Range<u64>,
    /// It will not, to those for whom it was asked.
    pub refused: bool,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A place that has the whole blob, such as a registry.
pub trait Origin: fmt::Debug + Send + Sync + 'static {
    /// Fetches exactly the bytes of `range`, or fails within a time of its own.
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>>;
}
