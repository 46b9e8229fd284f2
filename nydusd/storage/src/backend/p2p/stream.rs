//! A range from the network, gone on with by the image's own backend where it breaks off.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rafs::BlobId;
use reqwest::Response;
use tokio::time::timeout;

use super::{BackendError, ByteStream, P2pBackend, Priority, Via, Why};
use crate::error::in_one_line;

/// Longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(3);

enum From {
    Network(Response),
    Inner(ByteStream),
}

/// What of a read is still to come.
pub(super) struct Rest {
    pub(super) blob: BlobId,
    pub(super) range: Range<u64>,
    pub(super) priority: Priority,
    pub(super) via: Via,
}

/// A read whose answer has begun.
pub(super) struct Reading {
    backend: Arc<P2pBackend>,
    rest: Rest,
    from: From,
}

impl Reading {
    /// Out of `answer`, as far as that goes.
    pub(super) fn new(backend: Arc<P2pBackend>, answer: Response, rest: Rest) -> Self {
        Self { backend, rest, from: From::Network(answer) }
    }

    /// Its bytes.
    pub(super) fn into_stream(self) -> ByteStream {
        stream::try_unfold(self, |mut reading| async move {
            Ok(reading.next().await?.map(|bytes| (bytes, reading)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BackendError> {
        let range = &mut self.rest.range;
        if range.is_empty() {
            return Ok(None);
        }
        let cause = match &mut self.from {
            From::Inner(stream) => return stream.next().await.transpose(),
            From::Network(answer) => match timeout(SILENCE, answer.chunk()).await {
                Ok(Ok(Some(bytes))) if bytes.len() as u64 <= range.end - range.start => {
                    range.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Ok(Some(_))) => "more bytes than asked for".to_owned(),
                Ok(Ok(None)) => "a short answer".to_owned(),
                Ok(Err(error)) => in_one_line(&error.without_url()),
                Err(_) => format!("silent for {SILENCE:?}"),
            },
        };
        let why = Why::BrokeOff(cause.into());
        self.backend.note(&self.rest.blob, &why);
        let Rest { blob, range, priority, via } = &self.rest;
        via.detour(range.start, why);
        let inner = Arc::clone(&self.backend.inner);
        let mut stream = inner.read(blob.clone(), range.clone(), *priority, via.clone()).await?;
        let first = stream.next().await.transpose();
        self.from = From::Inner(stream);
        first
    }
}
