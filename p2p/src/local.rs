//! What programs of this node ask for: HTTP on a unix socket.
//!
//! ```text
//! PUT  /v1/blobs/{digest}/pieces?repository=HOST/NAME     the list of the blob's pieces: {"list": "<its BLAKE3>"}
//! PUT  /v1/blobs/{digest}/chunks?repository=HOST/NAME     the same with the list of its chunks
//! PUT  /v1/blobs/{digest}?repository=HOST/NAME            a blob without a list
//! GET  /v1/blobs/{digest}?list=BLAKE3                     a range of the blob (Range, X-Shoal-Priority)
//! GET  /v1/blobs/{digest}?unchecked=true                  the same of one without a list, for who checks by itself
//! POST /v1/blobs/{digest}/doubts                          what was read so of a Range is wrong
//! GET  /v1/blobs/{digest}/pieces?list=BLAKE3              which of them are here: {"pieces": N, "here": [[first, last], …]}
//! DELETE /v1/blobs/{digest}                               nobody here reads it any more
//! GET  /v1/files?url=URL&digest=sha256:HEX                a file of a web server, or a Range of it
//! GET  /v1/limits                                         {"limits": ["upload=none", "task.upload=1048576", …]}
//! PUT  /v1/limits                                         the same with those that change, from now on
//! GET  /v1/status                                         this node, the members it sees, what it shares
//! GET  /metrics                                           what this node has done, see `crate::metrics`
//! POST /shoal.local.v1.Local/…                             gRPC: `p2p/api/proto/local.proto`
//! GET  /v2/…                                              what a registry mirror answers, see `mirror`
//! ```
//!
//! Where a list of chunks is known, what lies between them is read as zeros.
//!
//! A range comes with `X-Shoal-Source`: `here` where all of it was on this node's disk, else where what was missing came
//! from: `peers`, `origin` or `mixed`.
//!
//! Beside it, each at an address of its own: the mirror alone, and a forward proxy ([`proxy`]).
//!
//! `digest` is `sha256:<hex>`. A repository that is not shared is answered with 403: its content is for those with its
//! credential alone, and the caller goes to the registry by itself. So it does on 425: whether the repository is shared is
//! being found out, and the same call has an answer soon. Whatever does not work out, it can.
//!
//! A read may carry the caller's credential for the registry (`Authorization`). What has to come from there while it waits
//! is fetched by it; it is not kept, and what the registry refuses to it is a 401. Without one this node's own are used.

mod bounded;
mod figures;
mod files;
mod grpc;
mod handlers;
mod limits;
mod listed;
mod mirror;
pub mod proxy;
mod sending;
mod unlisted;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post, put},
};
use registry::Client;
use tokio::sync::{Semaphore, watch};

use self::bounded::{Bounded, Readable};
use crate::{
    ChunkList, NodeId, TaskId,
    engine::{Blob, Engine, Members},
    metrics::Metrics,
    rate::Limits,
    rights::Rights,
    source::RegistryOrigin,
};

/// Least time between two looks at what nobody reads.
const SWEEP: Duration = Duration::from_millis(500);
/// Longest time for one call.
const DEADLINE: Duration = Duration::from_secs(120);
/// Largest list of pieces: that of the most pieces a blob may have.
const LARGEST_LIST: usize = 24 + 32 * (1 << 20);
/// Bytes of one answer.
const LARGEST_RANGE: u64 = 64 << 20;
/// Blobs that are open at a time.
const BLOBS: usize = 65_536;
/// Files of web servers that are.
const FILES: usize = 4096;

/// Pulls that are served by the mirror at a time.
const STREAMS: usize = 256;

/// Blobs by their digest and that of their list, if they have one.
type Blobs = Bounded<([u8; 32], Option<[u8; 32]>), Opened>;

/// Files of web servers, by what is shared of them.
type Files = Bounded<TaskId, files::File>;

/// A blob that programs read.
#[derive(Debug, Clone)]
struct Opened {
    blob: Blob,
    /// Where it comes from, and by whose rights: that of the last who made it known.
    origin: Arc<RegistryOrigin>,
}

impl Readable for Opened {
    fn idle(&self) -> Option<Duration> {
        self.origin.idle()
    }
}

/// This node and the others, as it sees them.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Who is alive.
    pub members: watch::Receiver<Arc<Members>>,
    /// How fast pieces may go and come.
    pub limits: Limits,
    /// What it has done.
    pub metrics: Metrics,
    /// Bytes of a piece of what no image lays out; the same on every node.
    pub piece_size: u32,
}

/// What is answered from.
#[derive(Debug)]
pub struct Local {
    engine: Engine,
    client: Client,
    upstream: Client,
    rights: Rights,
    node: Node,
    blobs: Mutex<Blobs>,
    files: Mutex<Files>,
    streams: Arc<Semaphore>,
}

/// How registries are asked.
#[derive(Debug)]
pub struct Registries {
    /// By this node, or by the credential of who reads: for what is shared.
    pub client: Client,
    /// By nobody but who is at the other end, see [`anonymous`](crate::rights::anonymous): for what goes through.
    pub upstream: Client,
}

impl Local {
    /// Answers from `engine`; what is not there comes from `registries`, if the repository is shared.
    #[must_use]
    pub fn new(engine: Engine, registries: Registries, rights: Rights, node: Node) -> Self {
        let Registries { client, upstream } = registries;
        let streams = Arc::new(Semaphore::new(STREAMS));
        Self {
            engine,
            client,
            upstream,
            rights,
            node,
            blobs: Mutex::new(Blobs::new(BLOBS)),
            files: Mutex::new(Files::new(FILES)),
            streams,
        }
    }

    /// Ends the engine, and questions to registries.
    pub async fn stop(self) {
        self.rights.stop().await;
        self.engine.stop().await;
    }

    /// Leaves, again and again, what nobody has read for `idle`: its pieces stay, as long as there is room for them.
    pub async fn close_idle(&self, idle: Duration) {
        loop {
            tokio::time::sleep((idle / 4).max(SWEEP)).await;
            self.blobs().close_idle(idle);
            self.files().close_idle(idle);
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node has done, for who may not use the socket.
pub use figures::router as figures;
/// The calls of a mirror alone, for who may not use the socket.
pub use mirror::router as mirror;

/// All calls.
pub fn router(local: Arc<Local>) -> Router {
    Router::new()
        .route("/v1/blobs/{digest}", get(handlers::read).put(unlisted::introduce).delete(handlers::close))
        .route("/v1/blobs/{digest}/doubts", post(unlisted::doubt))
        .route(
            "/v1/blobs/{digest}/pieces",
            put(listed::pieces).get(handlers::here).layer(DefaultBodyLimit::max(LARGEST_LIST)),
        )
        .route(
            "/v1/blobs/{digest}/chunks",
            put(listed::chunks).layer(DefaultBodyLimit::max(ChunkList::LONGEST)),
        )
        .route("/v1/files", get(files::read))
        .route("/v1/limits", get(limits::get).put(limits::set))
        .route("/v1/status", get(handlers::status))
        .with_state(Arc::clone(&local))
        .merge(figures(Arc::clone(&local)))
        .merge(grpc::router(Arc::clone(&local)))
        .merge(mirror(local))
}

#[cfg(test)]
mod tests;
