//! Blobs without a list of their pieces, such as plain layers and those of other builders' images.
//!
//! Their pieces are kept by the word of who fetched them until all are here and the whole is right. A program that checks
//! what it reads by itself, as nydusd does by the digests of an image's chunks, need not wait for that: it reads unchecked,
//! and says what was wrong.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use registry::{Credential, Repository};
use serde_json::json;
use tokio::time::{Duration, timeout};

use super::{
    DEADLINE, Local, Opened,
    handlers::{self, Listed, Origin, Refusal, parse_digest, refuse},
};
use crate::{PieceLayout, engine::Content, source::RegistryOrigin};

/// Longest wait for a registry to say how long a blob is.
const SIZE: Duration = Duration::from_secs(5);

/// Makes a blob known: from now on its ranges can be read.
pub(super) async fn introduce(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    Query(origin): Query<Origin>,
    headers: HeaderMap,
) -> Response {
    let repository = match Repository::parse(&origin.repository) {
        Ok(repository) => repository,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Err(refusal) = handlers::may_read(&local, &repository, &digest) {
        return refusal.into_response();
    }
    let Ok(credential) = handlers::credential(&headers) else {
        return refuse(StatusCode::BAD_REQUEST, "the credential is neither basic nor bearer");
    };
    match open(&local, &repository, &digest, credential.as_ref()).await {
        Ok(Opened { blob, .. }) => {
            let layout = blob.layout();
            Json(json!({ "bytes": layout.len(), "pieces": layout.count().get() })).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Hears that what was read unchecked of a range is wrong; answers when its pieces have come from the registry again.
pub(super) async fn doubt(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Opened { blob, origin } = match handlers::known(&local, &digest, &Listed::default()) {
        Ok(opened) => opened,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(range) = handlers::parse_range(&headers, blob.layout().len()) else {
        return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "which bytes are wrong is not said");
    };
    let Ok(credential) = handlers::credential(&headers) else {
        return refuse(StatusCode::BAD_REQUEST, "the credential is neither basic nor bearer");
    };
    let _reading = origin.on_behalf_of(credential);
    match timeout(DEADLINE, blob.doubt(range)).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(error)) => handlers::fail(&error),
        Err(_) => refuse(StatusCode::GATEWAY_TIMEOUT, "not in time"),
    }
}

/// Takes part in the swarm of a blob. How long it is its registry says, asked by `credential` where there is one.
pub(super) async fn open(
    local: &Local,
    repository: &Repository,
    digest: &str,
    credential: Option<&Credential>,
) -> Result<Opened, Refusal> {
    let blob = parse_digest(digest)
        .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "not a sha256 digest".to_owned()))?;
    if let Some(opened) = local.blobs().get(&(blob, None)) {
        return Ok(opened.clone());
    }
    let client = match credential {
        Some(credential) => local.client.with_credential(credential.clone()),
        None => local.client.clone(),
    };
    let len = match timeout(SIZE, client.readable_size(repository, digest)).await {
        Ok(Ok(Some(len))) => len,
        Ok(Ok(None)) => return Err(Refusal(StatusCode::NOT_FOUND, format!("{repository} has no such blob"))),
        Ok(Err(error)) if error.is_unauthorized() => {
            return Err(Refusal(StatusCode::UNAUTHORIZED, crate::error::in_one_line(&error)));
        }
        Ok(Err(error)) => return Err(Refusal(StatusCode::BAD_GATEWAY, crate::error::in_one_line(&error))),
        Err(_) => {
            let reason = format!("{repository} does not say how long the blob is within {SIZE:?}");
            return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, reason));
        }
    };
    let layout = PieceLayout::for_len(len, local.node.piece_size);
    let layout = layout.map_err(|error| Refusal(StatusCode::BAD_GATEWAY, error.to_string()))?;
    let origin = RegistryOrigin::new(local.client.clone(), repository.clone(), digest.to_owned());
    let origin = Arc::new(origin);
    let content = Content::Whole { blob, layout };
    let opened = match timeout(DEADLINE, local.engine.open(content, origin.clone())).await {
        Ok(opened) => opened.map_err(|error| Refusal::of(&error))?,
        Err(_) => return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, "not in time".to_owned())),
    };
    let opened = Opened { blob: opened, origin };
    // Kept, so that it is passed on when the caller has it.
    local.blobs().insert((blob, None), opened.clone())?;
    Ok(opened)
}

#[cfg(test)]
mod tests;
