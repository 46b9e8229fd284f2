//! What this node has done, for Prometheus.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};

use super::Local;
use crate::metrics::Levels;

/// As the OpenMetrics text format is called.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page alone, for who may not use the socket.
pub fn router(local: Arc<Local>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(local)
}

async fn metrics(State(local): State<Arc<Local>>) -> Response {
    let levels = Levels {
        members: local.node.members.borrow().len(),
        blobs: local.blobs().len(),
        stored: local.engine.store().bytes(),
        budget: local.engine.store().most(),
    };
    ([(CONTENT_TYPE, TEXT)], local.node.metrics.text(&levels)).into_response()
}
