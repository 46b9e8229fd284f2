//! The HTTP API on a unix socket, with the original's paths and bodies.

mod handlers;
mod metrics;

use std::{
    io,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use nydusd_api::ApiError;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::{
    daemon::{Daemon, DaemonError},
    mounts::MountError,
};

/// Longest time for one call.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// A socket that is listened to, and removed at the end.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    file: SocketFile,
    listener: UnixListener,
}

/// The socket in the file system; removed when dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = remove_if_there(&self.0) {
            tracing::warn!("the socket {} stays: {error}", self.0.display());
        }
    }
}

impl ControlSocket {
    /// Listens at `path`. A socket that nobody answers at is replaced; only the owner may connect.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers at this socket"));
        }
        // Bound under another name first: there is no moment at which others may connect.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let private = path.with_file_name(format!(".{name}.{}", std::process::id()));
        remove_if_there(&private)?;
        let listener = UnixListener::bind(&private)?;
        let settled = std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&private, path));
        if let Err(error) = settled {
            remove_if_there(&private)?;
            return Err(error);
        }
        Ok(Self { file: SocketFile(path.to_owned()), listener })
    }

    /// Answers calls until `stop`, and calls under way a little longer.
    pub(crate) async fn serve(self, daemon: Arc<Daemon>, stop: CancellationToken) -> io::Result<()> {
        let _file = self.file;
        axum::serve(self.listener, router(daemon))
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn router(daemon: Arc<Daemon>) -> Router {
    let daemon_calls = get(handlers::daemon).put(handlers::configure_daemon);
    let mount = post(handlers::mount).put(handlers::remount).delete(handlers::umount);
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
            Self::Mount(MountError::Missing(_)) => (StatusCode::NOT_FOUND, "UNDEFINED"),
            Self::Config(_)
            | Self::Backend(_)
            | Self::Open(_)
            | Self::Mountpoint(_)
            | Self::Argument(_)
            | Self::Mount(_) => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Self::Unsupported(_) => (StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED"),
            Self::Cache(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNDEFINED"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY"),
        };
        error(status, code, format!("{:#}", anyhow::Error::new(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = ControlSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ControlSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(live);
    }
}
