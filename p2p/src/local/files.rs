//! Files of web servers, through this network.
//!
//! One whose digest the caller knows is shared by that digest: nothing of it is handed out whole before it is right. Of
//! another nothing but its server says what it is: it is shared where the operator has listed the server's address, by
//! what the node says that had a piece from there, and only in one version. Whatever is not shared is refused (403), and
//! the caller goes to the server by itself.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
    },
    response::{IntoResponse as _, Response},
};
use registry::{FileFacts, FileUrl};
use serde::Deserialize;
use tokio::time::{Duration, timeout};

use super::{
    DEADLINE, Local,
    bounded::Readable,
    handlers::{Refusal, parse_digest, refuse, stated_priority},
    sending::{Sending, parse_range},
};
use crate::{
    PieceLayout, Priority,
    engine::{Blob, Content},
    source::FileOrigin,
};

/// Longest wait for a server to say how long a file is.
const FACTS: Duration = Duration::from_secs(10);

/// A file that programs read.
#[derive(Debug, Clone)]
pub(super) struct File {
    blob: Blob,
    origin: Arc<FileOrigin>,
}

impl Readable for File {
    fn idle(&self) -> Option<Duration> {
        self.origin.idle()
    }
}

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    pub(super) url: String,
    pub(super) digest: Option<String>,
}

/// Reads a file, or a range of it.
pub(super) async fn read(
    State(local): State<Arc<Local>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    answer(&local, &asked, &headers).await
}

/// Reads a file, or a range of it.
pub(super) async fn answer(local: &Local, asked: &Asked, headers: &HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&local.streams).try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many are served");
    };
    let digest = match asked.digest.as_deref().map(|text| parse_digest(text).ok_or(())).transpose() {
        Ok(digest) => digest,
        Err(()) => return refuse(StatusCode::BAD_REQUEST, "not a sha256 digest"),
    };
    let File { blob, origin } = match open(local, &asked.url, digest).await {
        Ok(file) => file,
        Err(refusal) => return refusal.into_response(),
    };
    let len = blob.layout().len();
    let range = match headers.get(RANGE) {
        Some(range) => match range.to_str().ok().and_then(|text| parse_range(text, len)) {
            Some(range) => range,
            None => return refuse(StatusCode::RANGE_NOT_SATISFIABLE, format!("a range of {len} bytes")),
        },
        None => 0..len,
    };
    if let Err(error) = local.engine.fits(&blob, range.clone()).await {
        return Refusal::of(&error).into_response();
    }
    let priority = stated_priority(headers).unwrap_or(Priority::Trace);
    let sending = match digest.filter(|_| range == (0..len)) {
        Some(digest) => Sending::whole(blob, digest, priority),
        None => Sending::part(blob, range.clone(), priority),
    };
    match sending.begin((place, origin.read_by_somebody())).await {
        Ok(body) => respond(&range, len, body),
        Err((error, _)) => refuse(StatusCode::BAD_GATEWAY, crate::error::in_one_line(&error)),
    }
}

fn respond(range: &Range<u64>, len: u64, body: Body) -> Response {
    let about = [
        (CONTENT_LENGTH, (range.end - range.start).to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    if *range == (0..len) {
        return (StatusCode::OK, about, body).into_response();
    }
    let content = format!("bytes {}-{}/{len}", range.start, range.end - 1);
    (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, content)], about, body).into_response()
}

/// Takes part in the swarm of a file.
async fn open(local: &Local, url: &str, digest: Option<[u8; 32]>) -> Result<File, Refusal> {
    let url = FileUrl::parse(url).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    if url.has_credential() {
        let reason = format!("{url} is for who knows its password");
        return Err(Refusal(StatusCode::FORBIDDEN, reason));
    }
    if digest.is_none() && !local.rights.share_list().contains_file(&url) {
        return Err(Refusal(StatusCode::FORBIDDEN, format!("{url} is not shared without a digest")));
    }
    let facts = match timeout(FACTS, local.upstream.file_facts(&url)).await {
        Ok(Ok(Some(facts))) => facts,
        Ok(Ok(None)) => {
            let reason = format!("the server of {url} gives no parts of it");
            return Err(Refusal(StatusCode::FORBIDDEN, reason));
        }
        Ok(Err(error)) => return Err(Refusal(StatusCode::BAD_GATEWAY, crate::error::in_one_line(&error))),
        Err(_) => {
            let reason = format!("{url}: nothing within {FACTS:?}");
            return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, reason));
        }
    };
    let content = content(&url, &facts, digest, local.node.piece_size)?;
    let task = content.task();
    if let Some(file) = local.files().get(&task).filter(|file| file.blob.layout() == content.layout()) {
        return Ok(file.clone());
    }
    let origin = Arc::new(FileOrigin::new(local.upstream.clone(), url, facts.version));
    let blob = match timeout(DEADLINE, local.engine.open(content, origin.clone())).await {
        Ok(opened) => opened.map_err(|error| Refusal::of(&error))?,
        Err(_) => return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, "not in time".to_owned())),
    };
    let file = File { blob, origin };
    // Kept, so that it is passed on when the caller has it.
    local.files().insert(task, file.clone())?;
    Ok(file)
}

/// What is shared of a file.
fn content(
    url: &FileUrl,
    facts: &FileFacts,
    digest: Option<[u8; 32]>,
    piece_size: u32,
) -> Result<Content, Refusal> {
    let layout = PieceLayout::for_len(facts.len, piece_size);
    let layout = layout.map_err(|error| Refusal(StatusCode::BAD_GATEWAY, error.to_string()))?;
    if let Some(blob) = digest {
        return Ok(Content::Whole { blob, layout });
    }
    let Some(version) = &facts.version else {
        let reason = format!("the server of {url} does not say which version of it it has");
        return Err(Refusal(StatusCode::FORBIDDEN, reason));
    };
    let name = format!("{} {} {version}", url.as_str(), facts.len);
    Ok(Content::Unsaid { name: name.into(), layout })
}

#[cfg(test)]
mod tests;
