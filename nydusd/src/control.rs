//! The HTTP API on a unix socket, with the original's paths and bodies.

mod handlers;
mod metrics;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use nydusd_api::ApiError;
use service::socket::Socket;
use tokio_util::sync::CancellationToken;

use crate::{
    daemon::{Daemon, DaemonError},
    explain::ExplainError,
    mounts::MountError,
};

/// Longest time for one call.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Answers calls until `stop`, and calls under way a little longer.
pub(crate) async fn serve(socket: Socket, daemon: Arc<Daemon>, stop: CancellationToken) -> io::Result<()> {
    let _file = socket.file;
    axum::serve(socket.listener, router(daemon))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

fn router(daemon: Arc<Daemon>) -> Router {
    let daemon_calls = get(handlers::daemon).put(handlers::configure_daemon);
    let mount = get(handlers::mounts).post(handlers::mount).put(handlers::remount).delete(handlers::umount);
    Router::new()
        .route("/api/v1/daemon", daemon_calls.clone())
        .route("/api/v2/daemon", daemon_calls)
        .route("/api/v1/daemon/events", get(handlers::events))
        .route("/api/v1/daemon/start", put(handlers::start))
        .route("/api/v1/daemon/exit", put(handlers::exit))
        .route("/api/v1/daemon/backend", get(handlers::backend))
        .route("/api/v1/mount", mount)
        .route("/api/v1/config", get(handlers::config).put(handlers::configure))
        .route("/api/v1/metrics", get(metrics::fs))
        .route("/api/v1/metrics/blobcache", get(metrics::blobcache))
        .route("/api/v1/metrics/backend", get(metrics::backend))
        .route("/api/v1/metrics/inflight", get(metrics::inflight))
        .route("/api/v1/explain", get(handlers::explain))
        .route("/api/v1/trace", put(handlers::start_trace).get(handlers::trace))
        .fallback(handlers::unsupported)
        .method_not_allowed_fallback(handlers::unsupported)
        .layer(middleware::from_fn(within_deadline))
        .with_state(daemon)
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(CALL_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT", "the call took too long"),
    }
}

fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    (status, Json(ApiError { code: code.into(), message: message.into() })).into_response()
}

impl IntoResponse for DaemonError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Mount(MountError::Missing(_)) | Self::Explain(ExplainError::NoFile(_)) => {
                (StatusCode::NOT_FOUND, "UNDEFINED")
            }
            Self::Config(_)
            | Self::Backend(_)
            | Self::Open(_)
            | Self::Mountpoint(_)
            | Self::Argument(_)
            | Self::Mount(_) => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Self::Unsupported(_) => (StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED"),
            Self::Cache(_) | Self::Explain(_) | Self::Panic => {
                (StatusCode::INTERNAL_SERVER_ERROR, "UNDEFINED")
            }
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY"),
        };
        error(status, code, format!("{:#}", anyhow::Error::new(self)))
    }
}
