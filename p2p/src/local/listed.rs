//! Blobs whose parts can be checked as they come: by a list of their pieces, or of their chunks.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use registry::Repository;
use serde_json::json;
use tokio::time::timeout;

use super::{
    DEADLINE, Local, Opened,
    handlers::{self, Origin, Refusal, parse_digest, refuse},
};
use crate::{ChunkList, PieceList, engine::Content, source::RegistryOrigin};

/// A list's own name, and what is shared by it.
type Read = Result<([u8; 32], Content), String>;

/// Takes the list of a blob's pieces: from now on its ranges can be read.
pub(super) async fn pieces(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    Query(origin): Query<Origin>,
    body: Bytes,
) -> Response {
    introduce(&local, digest, &origin, body, |blob, bytes| {
        let list = PieceList::decode(bytes).map_err(|error| error.to_string())?;
        Ok((list.digest(), Content::Listed { blob, list: Arc::new(list) }))
    })
    .await
}

/// Takes the list of a blob's chunks: the same.
pub(super) async fn chunks(
    State(local): State<Arc<Local>>,
    Path(digest): Path<String>,
    Query(origin): Query<Origin>,
    body: Bytes,
) -> Response {
    introduce(&local, digest, &origin, body, |blob, bytes| {
        let list = ChunkList::decode(bytes).map_err(|error| error.to_string())?;
        Ok((*list.digest(), Content::Chunks { blob, list: Arc::new(list) }))
    })
    .await
}

async fn introduce(
    local: &Local,
    digest: String,
    origin: &Origin,
    body: Bytes,
    read: fn([u8; 32], &[u8]) -> Read,
) -> Response {
    let Some(blob) = parse_digest(&digest) else {
        return refuse(StatusCode::BAD_REQUEST, "not a sha256 digest");
    };
    let repository = match Repository::parse(&origin.repository) {
        Ok(repository) => repository,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Err(refusal) = handlers::may_read(local, &repository, &digest) {
        return refusal.into_response();
    }
    // A long one takes a while.
    let (name, content) = match tokio::task::spawn_blocking(move || read(blob, &body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(reason)) => return refuse(StatusCode::BAD_REQUEST, reason),
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let origin = Arc::new(RegistryOrigin::new(local.client.clone(), repository, digest));
    match open(local, (blob, name), content, origin).await {
        Ok(()) => Json(json!({ "list": hex::encode(name) })).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn open(
    local: &Local,
    (blob, name): ([u8; 32], [u8; 32]),
    content: Content,
    origin: Arc<RegistryOrigin>,
) -> Result<(), Refusal> {
    let opened = match timeout(DEADLINE, local.engine.open(content, origin.clone())).await {
        Ok(opened) => opened.map_err(|error| Refusal::of(&error))?,
        Err(_) => return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, "not in time".to_owned())),
    };
    Ok(local.blobs().insert((blob, Some(name)), Opened { blob: opened, origin })?)
}

#[cfg(test)]
mod tests;
