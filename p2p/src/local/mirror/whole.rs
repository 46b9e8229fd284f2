//! Blobs of shared repositories: through this network, and each byte hashed on its way to the caller.

use std::{ops::Range, pin::Pin, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use ring::digest::{Context, SHA256};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Duration, timeout},
};

use super::{
    super::{
        DEADLINE, LARGEST_RANGE, Opened,
        handlers::{credential, parse_digest},
        unlisted,
    },
    Local, Wanted, refuse,
};
use crate::{P2pError, Priority, engine::Blob, source::Reading};

/// Longest wait for the first bytes; after it the registry is asked itself.
const FIRST: Duration = Duration::from_secs(20);

/// A caller's place, given back where the registry is to answer instead.
type Instead = Option<OwnedSemaphorePermit>;

/// All of a blob. Its first bytes are there when this returns.
pub(super) async fn stream(
    local: &Arc<Local>,
    wanted: &Wanted,
    headers: &HeaderMap,
    place: OwnedSemaphorePermit,
) -> Result<Response, Instead> {
    let (Ok(credential), Some(digest)) = (credential(headers), parse_digest(&wanted.reference)) else {
        return Err(Some(place));
    };
    let opened = unlisted::open(local, &wanted.repository, &wanted.reference, credential.as_ref()).await;
    // The registry has to say why not.
    let Ok(Opened { blob, origin }) = opened else { return Err(Some(place)) };
    let len = blob.layout().len();
    let mut sending = Sending::new(blob, origin.on_behalf_of(credential), digest);
    let first = match timeout(FIRST, sending.next()).await {
        Ok(Ok(Some(first))) => first,
        // The registry has been asked twice for what is wrong: it has nothing else.
        Ok(Err(error)) if error.is_wrong() => {
            return Ok(refuse(StatusCode::BAD_GATEWAY, crate::error::in_one_line(&error)));
        }
        outcome => {
            let reason = match outcome {
                Ok(Err(error)) => crate::error::in_one_line(&error),
                _ => format!("nothing within {FIRST:?}"),
            };
            tracing::info!(repository = %wanted.repository, digest = wanted.reference, reason, "the registry is asked instead");
            return Err(Some(place));
        }
    };
    let rest = stream::try_unfold((sending, place), |(mut sending, place)| async move {
        let bytes = timeout(DEADLINE, sending.next()).await.map_err(|_| SendError::Late)??;
        Ok::<_, SendError>(bytes.map(|bytes| (bytes, (sending, place))))
    });
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(rest));
    Ok((StatusCode::OK, about(wanted, len), body).into_response())
}

/// Part of a blob of which all is here.
pub(super) async fn part(local: &Local, wanted: &Wanted, range: &HeaderValue) -> Result<Response, Instead> {
    let known =
        parse_digest(&wanted.reference).and_then(|digest| local.blobs().get(&(digest, None)).cloned());
    let Some(Opened { blob, origin }) = known.filter(|opened| opened.blob.is_complete()) else {
        return Err(None);
    };
    let len = blob.layout().len();
    let range = range.to_str().ok().and_then(|text| parse_range(text, len)).ok_or(None)?;
    let _reading = origin.on_behalf_of(None);
    let read = timeout(DEADLINE, blob.read(range.clone(), Priority::Demand)).await;
    let Ok(Ok(bytes)) = read else { return Err(None) };
    let content = format!("bytes {}-{}/{len}", range.start, range.end - 1);
    let about = about(wanted, range.end - range.start);
    Ok((StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, content)], about, bytes).into_response())
}

/// `bytes=A-B` or `bytes=A-`, of a length that fits memory.
fn parse_range(text: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = first.parse().ok()?;
    let end = if last.is_empty() { len } else { last.parse::<u64>().ok()?.checked_add(1)?.min(len) };
    (start < end && end - start <= LARGEST_RANGE).then_some(start..end)
}

fn about(wanted: &Wanted, len: u64) -> [(HeaderName, String); 4] {
    [
        (CONTENT_LENGTH, len.to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (HeaderName::from_static("docker-content-digest"), wanted.reference.clone()),
    ]
}

/// Why a caller does not get all of a blob.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Engine(#[from] P2pError),
    #[error("bytes that were sent have turned out to be wrong")]
    Wrong,
    #[error("nothing within {DEADLINE:?}")]
    Late,
}

impl SendError {
    /// Whether the blob is not what its digest says, wherever it comes from.
    const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong | Self::Engine(P2pError::Whole { .. }))
    }
}

type Fetched = Pin<Box<dyn Future<Output = Result<(), P2pError>> + Send>>;

/// A blob on its way to a caller. It is sent piece by piece, checked or not; the last piece waits until all were checked
/// together and what was sent has the right digest, so that no caller ever takes a wrong blob for a whole one.
struct Sending {
    blob: Blob,
    _reading: Reading,
    digest: [u8; 32],
    hash: Context,
    at: u64,
    /// All of it; `None` when it is here and right.
    fetched: Option<Fetched>,
}

impl Sending {
    fn new(blob: Blob, reading: Reading, digest: [u8; 32]) -> Self {
        let all = blob.clone();
        let fetched = async move { all.fetch(0..all.layout().len(), Priority::Trace).await };
        Self {
            blob,
            _reading: reading,
            digest,
            hash: Context::new(&SHA256),
            at: 0,
            fetched: Some(Box::pin(fetched)),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SendError> {
        let layout = self.blob.layout();
        if self.at == layout.len() {
            return Ok(None);
        }
        let end = layout.len().min(self.at + u64::from(layout.piece_size()));
        let range = self.at..end;
        if end == layout.len()
            && let Some(fetched) = &mut self.fetched
        {
            fetched.await?;
            self.fetched = None;
        }
        let bytes = self.read(range).await?;
        self.hash.update(&bytes);
        self.at = end;
        if end == layout.len() && self.hash.clone().finish().as_ref() != self.digest {
            return Err(SendError::Wrong);
        }
        Ok(Some(bytes))
    }

    /// Reads while the rest is fetched, whichever ends first.
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, P2pError> {
        let Some(fetched) = &mut self.fetched else { return self.blob.read(range, Priority::Trace).await };
        tokio::select! {
            biased;
            fetched = fetched => {
                self.fetched = None;
                fetched?;
            }
            read = self.blob.read_unchecked(range.clone(), Priority::Trace) => return read,
        }
        self.blob.read(range, Priority::Trace).await
    }
}
