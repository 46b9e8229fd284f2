//! Figures of images, in the original's JSON.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{error, handlers::Args};
use crate::{daemon::Daemon, mounts::Image};

/// The image that `id` names, or the only one.
fn image(daemon: &Daemon, args: &Args) -> Option<Arc<Image>> {
    match args.get("id") {
        Some(id) => daemon.mounts().get(&id.parse().ok()?).ok(),
        None => {
            let mut all = daemon.mounts().all();
            (all.len() == 1).then(|| all.pop())?
        }
    }
}

fn answer(daemon: &Daemon, args: &Args, figures: impl FnOnce(&Image) -> Value) -> Response {
    match image(daemon, args) {
        Some(image) => Json(figures(&image)).into_response(),
        None => error(StatusCode::NOT_FOUND, "UNDEFINED", "there is no such counter"),
    }
}

pub(super) async fn fs(State(daemon): State<Arc<Daemon>>, args: Args) -> Response {
    answer(&daemon, &args, |image| image.counters().to_json(&image.mountpoint().to_string()))
}

pub(super) async fn blobcache(State(daemon): State<Arc<Daemon>>, args: Args) -> Response {
    answer(&daemon, &args, |image| {
        let reads = image.rafs().reads();
        let ahead = reads.prefetch;
        let (began, ended) = (ahead.began.unwrap_or_default(), ahead.ended.unwrap_or_default());
        let files: Vec<&str> = image.rafs().blobs().iter().map(|blob| blob.id.as_str()).collect();
        json!({
            "id": image.mountpoint().to_string(),
            "underlying_files": files,
            "store_path": image.config().cache_dir,
            "partial_hits": reads.misses,
            "whole_hits": reads.hits,
            "total": reads.hits + reads.misses,
            "entries_count": reads.ready_chunks,
            "prefetch_data_amount": ahead.bytes,
            "prefetch_requests_count": ahead.requests,
            "prefetch_workers": ahead.running,
            "prefetch_unmerged_chunks": ahead.chunks,
            "prefetch_cumulative_time_millis": ahead.took.as_millis(),
            "prefetch_begin_time_secs": began.as_secs(),
            "prefetch_begin_time_millis": began.subsec_millis(),
            "prefetch_end_time_secs": ended.as_secs(),
            "prefetch_end_time_millis": ended.subsec_millis(),
            "buffered_backend_size": reads.fetched_bytes,
            "data_all_ready": reads.ready_chunks == reads.chunks,
        })
    })
}

pub(super) async fn backend(State(daemon): State<Arc<Daemon>>, args: Args) -> Response {
    answer(&daemon, &args, |image| {
        let kind = image.config().backend.to_json()["type"].clone();
        image.backend().counters().to_json(&image.mountpoint().to_string(), kind)
    })
}

/// Reads that wait for bytes; nothing where none does.
pub(super) async fn inflight(State(daemon): State<Arc<Daemon>>) -> Response {
    /// FUSE's number of a read.
    const READ: u32 = 15;
    let reads: Vec<Value> = daemon
        .reads()
        .inflight()
        .into_iter()
        .map(|read| {
            json!({
                "inode": read.inode,
                "opcode": READ,
                "unique": read.unique,
                "timestamp_secs": read.timestamp_secs,
            })
        })
        .collect();
    if reads.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(reads).into_response() }
}
