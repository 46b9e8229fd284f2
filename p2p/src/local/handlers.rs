//! One function for each call.

use std::{ops::Range, sync::Arc};

use axum::{
    Json,
    body::HttpBody as _,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use registry::{Credential, Repository};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{DEADLINE, LARGEST_RANGE, Local, Opened, bounded::Full, limits};
use crate::{
    P2pError, PieceLayout, Priority,
    rate::Use,
    rights::Verdict,
    store::{Budget, Store},
};

/// Says where the bytes of an answer came from.
const SOURCE: HeaderName = HeaderName::from_static("x-shoal-source");

#[derive(Debug, Deserialize)]
pub(super) struct Origin {
    pub(super) repository: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Listed {
    /// BLAKE3 of the list of pieces or chunks, where the blob has one.
    list: Option<String>,
    /// The caller checks by itself what it reads of a blob without one.
    #[serde(default)]
    unchecked: bool,
}

/// Tells which pieces of a blob are here, as runs of the first and the last.
pub(super) async fn here(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    Query(listed): Query<Listed>,
) -> Response {
    let Opened { blob, .. } = match known(&local, &digest, &listed) {
        Ok(opened) => opened,
        Err(refusal) => return refusal.into_response(),
    };
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for piece in blob.pieces_here() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == piece => *last = piece,
            _ => runs.push((piece, piece)),
        }
    }
    Json(json!({ "pieces": blob.layout().count().get(), "here": runs })).into_response()
}

/// Reads a range of a blob.
pub(super) async fn read(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    Query(listed): Query<Listed>,
    headers: HeaderMap,
) -> Response {
    let (priority, began) = (stated_priority(&headers).unwrap_or(Priority::Demand), Instant::now());
    let answer = read_range(&local, &digest, &listed, (&headers, priority)).await;
    let bytes = answer.body().size_hint().exact().filter(|_| answer.status().is_success());
    let (status, took) = (answer.status().as_u16(), began.elapsed().as_secs_f64());
    local.node.metrics.read(priority, status, bytes.unwrap_or(0), took);
    answer
}

async fn read_range(
    local: &Local,
    digest: &str,
    listed: &Listed,
    (headers, priority): (&HeaderMap, Priority),
) -> Response {
    let Opened { blob, origin } = match known(local, digest, listed) {
        Ok(opened) => opened,
        Err(refusal) => return refusal.into_response(),
    };
    let len = blob.layout().len();
    let Some(range) = parse_range(headers, len) else {
        return refuse(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("a range of at most {LARGEST_RANGE} bytes of {len}"),
        );
    };
    let Ok(credential) = credential(headers) else {
        return refuse(StatusCode::BAD_REQUEST, "the credential is neither basic nor bearer");
    };
    let _reading = origin.on_behalf_of(credential);
    let missing = blob.missing(range.clone());
    let read = async {
        if priority < Priority::Demand {
            let len = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            local.node.limits.take(Use::Prefetch, blob.task(), len).await;
        }
        if listed.unchecked {
            blob.read_unchecked(range.clone(), priority).await
        } else {
            blob.read(range.clone(), priority).await
        }
    };
    match timeout(DEADLINE, read).await {
        Ok(Ok(bytes)) => {
            let content = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            let source = blob.supply(&missing).name().to_owned();
            let headers = [(header::CONTENT_RANGE, content), (SOURCE, source)];
            (StatusCode::PARTIAL_CONTENT, headers, bytes).into_response()
        }
        Ok(Err(error)) => fail(&error),
        Err(_) => refuse(StatusCode::GATEWAY_TIMEOUT, "not in time"),
    }
}

/// Leaves a blob: its pieces stay, and go when there is no room for them. Reads under way end well.
pub(super) async fn close(State(local): State<Arc<Local>>, Path(digest): Path<String>) -> Response {
    let Some(blob) = parse_digest(&digest) else {
        return refuse(StatusCode::BAD_REQUEST, "not a sha256 digest");
    };
    if local.blobs().close(|(other, _), _| *other == blob) > 0 {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refuse(StatusCode::NOT_FOUND, "no such blob is read here")
    }
}

/// Why a call gets nothing.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Refusal {
    /// Maps errors to HTTP, once.
    pub(super) fn of(error: &P2pError) -> Self {
        let status = match error {
            P2pError::Refused { .. } => StatusCode::UNAUTHORIZED,
            P2pError::Origin { .. } | P2pError::Whole { .. } => StatusCode::BAD_GATEWAY,
            P2pError::Store { .. } => StatusCode::INSUFFICIENT_STORAGE,
            P2pError::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            P2pError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, crate::error::in_one_line(error))
    }
}

impl From<Full> for Refusal {
    fn from(Full: Full) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "all that may be open at a time is being read".to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        refuse(self.0, self.1)
    }
}

/// Whether programs and members may read what is in a repository. Where that is not known, it is asked from now on.
pub(super) fn may_read(local: &Local, repository: &Repository, digest: &str) -> Result<(), Refusal> {
    match local.rights.ask(repository, digest) {
        Verdict::Shared => Ok(()),
        Verdict::Private => Err(Refusal(StatusCode::FORBIDDEN, format!("{repository} is not shared"))),
        Verdict::Unknown => {
            let reason = format!("whether {repository} is shared is not known yet");
            Err(Refusal(StatusCode::TOO_EARLY, reason))
        }
    }
}

/// The blob of these names, as long as it is shared.
pub(super) fn known(local: &Local, digest: &str, listed: &Listed) -> Result<Opened, Refusal> {
    let list = match &listed.list {
        Some(list) => parse_hex(list).map(Some),
        None => Some(None),
    };
    let names = parse_digest(digest).zip(list);
    let names = names.ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "not a digest".into()))?;
    let unknown = || Refusal(StatusCode::NOT_FOUND, "it is not known, or its list is not".into());
    let opened = local.blobs().get(&names).cloned().ok_or_else(unknown)?;
    match may_read(local, opened.origin.repository(), digest) {
        Ok(()) => Ok(opened),
        Err(refusal) => {
            // What is not shared any more is not passed on either.
            if refusal.0 == StatusCode::FORBIDDEN {
                local.blobs().close(|name, _| *name == names);
            }
            Err(refusal)
        }
    }
}

/// This node, the members it sees, and what it shares.
pub(super) async fn status(State(local): State<Arc<Local>>) -> Response {
    let blobs = local.blobs();
    let blobs: Vec<_> = blobs
        .iter()
        .map(|((blob, list), Opened { blob: opened, origin })| {
            let (layout, here) = (opened.layout(), opened.here());
            json!({
                "digest": format!("sha256:{}", hex::encode(blob)),
                "list": list.map(hex::encode),
                "checked_by": checked_by(list.is_some(), layout),
                "repository": origin.repository().to_string(),
                "task": opened.task().to_string(),
                "bytes": layout.len(),
                "pieces": layout.count().get(),
                "pieces_here": here,
            })
        })
        .collect();
    let members = local.node.members.borrow();
    let members: Vec<_> = members
        .iter()
        .map(|(id, address)| json!({ "node": hex::encode(id.0), "address": address.to_string() }))
        .collect();
    let node = hex::encode(local.node.id.0);
    let (limits, store) = (limits::told(&local.node.limits), disk(local.engine.store()));
    Json(json!({ "node": node, "members": members, "blobs": blobs, "limits": limits, "store": store }))
        .into_response()
}

/// What makes a piece of a blob a good one.
fn checked_by(is_listed: bool, layout: &PieceLayout) -> &'static str {
    match (is_listed, layout.piece_size()) {
        (false, _) => "whole",
        (true, 0) => "chunks",
        (true, _) => "pieces",
    }
}

/// What pieces take on disk, and what they may.
fn disk(store: &Store) -> serde_json::Value {
    let Budget { bytes, keep_free } = store.budget();
    json!({
        "bytes": store.bytes(),
        "most": store.most(),
        "budget": bytes,
        "beside": store.beside(),
        "keep_free": keep_free,
    })
}

pub(super) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    parse_hex(text.strip_prefix("sha256:")?)
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// The caller's credential for the registry, if it sent one; an error if that is none.
pub(super) fn credential(headers: &HeaderMap) -> Result<Option<Credential>, ()> {
    let authorization = headers.get(header::AUTHORIZATION);
    authorization.map(|value| Credential::from_authorization(value).ok_or(())).transpose()
}

/// `bytes=A-B`, which must be there: whole blobs are read in parts.
pub(super) fn parse_range(headers: &HeaderMap, len: u64) -> Option<Range<u64>> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let range = first..last.checked_add(1)?;
    (first <= last && range.end <= len && range.end - first <= LARGEST_RANGE).then_some(range)
}

/// How urgent the caller says that it is, if it does.
pub(super) fn stated_priority(headers: &HeaderMap) -> Option<Priority> {
    Priority::named(headers.get("x-shoal-priority")?.to_str().ok()?)
}

pub(super) fn fail(error: &P2pError) -> Response {
    Refusal::of(error).into_response()
}

pub(super) fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "message": message.into() }))).into_response()
}
