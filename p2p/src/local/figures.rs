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
        beside: local.engine.store().beside(),
    };
    ([(CONTENT_TYPE, TEXT)], local.node.metrics.text(&levels)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;

    use super::super::tests::scene;

    #[tokio::test]
    async fn what_others_take_of_the_budget_is_said() {
        let scene = scene(1).await;
        scene.locals[0].engine.store().set_beside(77);
        let said = async |path: &str| {
            let answer = scene.answer(0, Request::get(path).body(Body::empty()).unwrap()).await;
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        };
        let status: serde_json::Value = serde_json::from_str(&said("/v1/status").await).unwrap();
        assert_eq!(status["store"]["beside"], 77);
        assert_eq!(status["store"]["most"], u64::MAX - 77);
        assert!(said("/metrics").await.lines().any(|line| line == "shoal_p2p_beside_bytes 77"));
    }
}
