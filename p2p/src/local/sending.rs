//! Blobs and files on their way to a caller, piece by piece.

use std::{ops::Range, pin::Pin};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use ring::digest::{Context, SHA256};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Duration, timeout},
};

use super::DEADLINE;
use crate::{P2pError, Priority, engine::Blob};

/// Longest wait for the first bytes.
const FIRST: Duration = Duration::from_secs(20);

/// Why a caller does not get all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Engine(#[from] P2pError),
    #[error("bytes that were sent have turned out to be wrong")]
    Wrong,
    #[error("nothing within {0:?}")]
    Late(Duration),
}

impl SendError {
    /// Whether the blob is not what its digest says, wherever it comes from.
    pub(super) const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong | Self::Engine(P2pError::Whole { .. }))
    }
}

type Fetched = Pin<Box<dyn Future<Output = Result<(), P2pError>> + Send>>;

/// Bytes on their way to a caller. A whole blob is sent piece by piece, checked or not; the last piece waits until all
/// were checked together and what was sent has the right digest, so that no caller ever takes a wrong blob for a whole
/// one. Of a part only what was checked is sent.
pub(super) struct Sending {
    blob: Blob,
    /// What is to be sent still.
    range: Range<u64>,
    priority: Priority,
    check: Option<Check>,
    /// All of it; `None` when it is here and right.
    fetched: Option<Fetched>,
}

struct Check {
    hash: Context,
    digest: [u8; 32],
}

impl Sending {
    /// All of a blob of this SHA-256.
    pub(super) fn whole(blob: Blob, digest: [u8; 32], priority: Priority) -> Self {
        let range = 0..blob.layout().len();
        let check = Check { hash: Context::new(&SHA256), digest };
        Self { check: Some(check), ..Self::part(blob, range, priority) }
    }

    /// A range that the blob has.
    pub(super) fn part(blob: Blob, range: Range<u64>, priority: Priority) -> Self {
        let (all, wanted) = (blob.clone(), range.clone());
        let fetched = async move { all.fetch(wanted, priority).await };
        Self { blob, range, priority, check: None, fetched: Some(Box::pin(fetched)) }
    }

    /// Begins; the first bytes are there when this returns. `held` is held until the last have gone.
    pub(super) async fn begin<H: Send + 'static>(mut self, held: H) -> Result<Body, (SendError, H)> {
        let first = match timeout(FIRST, self.next()).await {
            Ok(Ok(first)) => first.unwrap_or_default(),
            Ok(Err(error)) => return Err((error, held)),
            Err(_) => return Err((SendError::Late(FIRST), held)),
        };
        let rest = stream::try_unfold((self, held), |(mut sending, held)| async move {
            let bytes = timeout(DEADLINE, sending.next()).await.map_err(|_| SendError::Late(DEADLINE))??;
            Ok::<_, SendError>(bytes.map(|bytes| (bytes, (sending, held))))
        });
        Ok(Body::from_stream(stream::once(async { Ok(first) }).chain(rest)))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SendError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let layout = self.blob.layout();
        let border =
            layout.touched(self.range.clone()).next().map_or(u64::MAX, |piece| layout.range(piece).end);
        let range = self.range.start..border.min(self.range.end);
        let is_last = range.end == self.range.end;
        if is_last
            && self.check.is_some()
            && let Some(fetched) = &mut self.fetched
        {
            fetched.await?;
            self.fetched = None;
        }
        let bytes = self.read(range.clone()).await?;
        if let Some(check) = &mut self.check {
            check.hash.update(&bytes);
            if is_last && check.hash.clone().finish().as_ref() != check.digest {
                return Err(SendError::Wrong);
            }
        }
        self.range.start = range.end;
        Ok(Some(bytes))
    }

    /// Reads while the rest is fetched, whichever ends first.
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, P2pError> {
        let Some(fetched) = &mut self.fetched else { return self.blob.read(range, self.priority).await };
        let unchecked = self.check.is_some();
        let read = async {
            if unchecked {
                self.blob.read_unchecked(range.clone(), self.priority).await
            } else {
                self.blob.read(range.clone(), self.priority).await
            }
        };
        tokio::select! {
            biased;
            fetched = fetched => {
                self.fetched = None;
                fetched?;
            }
            read = read => return read,
        }
        self.blob.read(range, self.priority).await
    }
}

/// A caller's place among those that are served.
pub(super) type Place = OwnedSemaphorePermit;

/// `bytes=A-B` or `bytes=A-` of a blob of `len` bytes.
pub(super) fn parse_range(text: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = first.parse().ok()?;
    let end = if last.is_empty() { len } else { last.parse::<u64>().ok()?.checked_add(1)?.min(len) };
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_be_open_and_is_within_the_blob() {
        assert_eq!(parse_range("bytes=0-9", 20), Some(0..10));
        assert_eq!(parse_range("bytes=5-", 20), Some(5..20));
        assert_eq!(parse_range("bytes=5-99", 20), Some(5..20));
        for wrong in
            ["bytes=20-", "bytes=9-8", "bytes=-5", "bytes=a-b", "5-9", "bytes=0-18446744073709551615x"]
        {
            assert_eq!(parse_range(wrong, 20), None, "{wrong}");
        }
    }
}
