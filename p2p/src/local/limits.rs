//! Limits, told and changed.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use super::{Local, handlers::refuse};
use crate::rate::{Limits, Setting};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    limits: Vec<String>,
}

/// All limits.
pub(super) fn told(limits: &Limits) -> Vec<String> {
    limits.settings().iter().map(ToString::to_string).collect()
}

pub(super) async fn get(State(local): State<Arc<Local>>) -> Json<Told> {
    Json(Told { limits: told(&local.node.limits) })
}

/// Changes all that are named, or, where one of them is nonsense, none.
pub(super) async fn set(State(local): State<Arc<Local>>, Json(wanted): Json<Told>) -> Response {
    let settings: Result<Vec<Setting>, String> = wanted.limits.iter().map(|text| text.parse()).collect();
    match settings {
        Ok(settings) => {
            settings.into_iter().for_each(|setting| local.node.limits.set(setting));
            tracing::info!(limits = ?wanted.limits, "limits changed");
            get(State(local)).await.into_response()
        }
        Err(problem) => refuse(StatusCode::BAD_REQUEST, problem),
    }
}
