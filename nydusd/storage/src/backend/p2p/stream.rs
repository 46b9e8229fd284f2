//! A range from the network, gone on with by the image's own backend where it breaks off.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rafs::BlobId;
use reqwest::Response;
use tokio::time::timeout;

use super::{BackendError, ByteStream, No, P2pBackend, Priority, describe};

/// Longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(3);

enum From {
    Network(Response),
    Inner(ByteStream),
}

struct Reading {
    backend: Arc<P2pBackend>,
    blob: BlobId,
    /// What is still to come.
    range: Range<u64>,
    priority: Priority,
    from: From,
}

/// Streams `range` out of `answer` as far as that goes.
pub(super) fn with_fallback(
    backend: Arc<P2pBackend>,
    answer: Response,
    blob: BlobId,
    range: Range<u64>,
    priority: Priority,
) -> ByteStream {
    let reading = Reading { backend, blob, range, priority, from: From::Network(answer) };
    stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|bytes| (bytes, reading)))
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, BackendError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let reason = match &mut self.from {
            From::Inner(stream) => return stream.next().await.transpose(),
            From::Network(answer) => match timeout(SILENCE, answer.chunk()).await {
                Ok(Ok(Some(bytes))) if bytes.len() as u64 <= self.range.end - self.range.start => {
                    self.range.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Ok(Some(_))) => "more bytes than asked for".to_owned(),
                Ok(Ok(None)) => "a short answer".to_owned(),
                Ok(Err(error)) => describe(&error),
                Err(_) => format!("silent for {SILENCE:?}"),
            },
        };
        self.backend.note(&self.blob, No::Away(reason));
        let inner = Arc::clone(&self.backend.inner);
        let mut stream = inner.read(self.blob.clone(), self.range.clone(), self.priority).await?;
        let first = stream.next().await.transpose();
        self.from = From::Inner(stream);
        first
    }
}
