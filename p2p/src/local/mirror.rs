//! A registry mirror, as containerd, Docker and Podman know it.
//!
//! ```text
//! GET|HEAD /v2/                                           it is there
//! GET|HEAD /v2/NAME/manifests/TAG|DIGEST                  what the registry says
//! GET|HEAD /v2/NAME/blobs/DIGEST                          of a shared repository: from this network; else from the registry
//! ```
//!
//! The registry is `?ns=HOST`, as containerd says; else the first part of the name, if it looks like a host (Podman's
//! `location = "MIRROR/HOST"`); else Docker Hub, the only one that Docker has mirrors of.
//!
//! What is not shared goes through, with what the caller sent to prove who it is and nothing else, and is not kept. So
//! does whatever this network cannot give: a mirror that fails is worse than none. A part of a blob ([`RANGE`]) comes
//! from here where the whole is here and right, and else from the registry, so that a node whose own fetches lead to its
//! own mirror does not wait for itself.

mod hashed;
mod upstream;
mod whole;

pub(super) use hashed::hashed;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header::RANGE},
    response::Response,
    routing::get,
};
use registry::Repository;
use serde::Deserialize;
use tokio::time::{Duration, timeout};

use super::{Local, handlers::refuse, sending::Place};
use crate::{metrics::Giver, rights::Verdict};
pub(super) use upstream::{failed, held};

/// Longest wait for the word whether a repository is shared: what is not known goes through.
const PROBE: Duration = Duration::from_secs(2);
/// Registry of names that name none.
const DEFAULT_HOST: &str = "docker.io";
/// Longest tag, or digest.
const LONGEST_REFERENCE: usize = 256;

/// The calls.
pub fn router(local: Arc<Local>) -> Router {
    Router::new().route("/v2/", get(|| async {})).route("/v2/{*rest}", get(read)).with_state(local)
}

#[derive(Debug, Deserialize)]
struct Upstream {
    ns: Option<String>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    repository: Repository,
    kind: Kind,
    reference: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Blob,
    Referrers,
}

impl Wanted {
    /// Reads what follows `/v2/`.
    pub(super) fn parse(rest: &str, ns: Option<&str>) -> Option<Self> {
        let (front, reference) = rest.rsplit_once('/')?;
        let (name, kind) = front.rsplit_once('/')?;
        let kind = match kind {
            "manifests" => Kind::Manifest,
            "blobs" => Kind::Blob,
            "referrers" => Kind::Referrers,
            _ => return None,
        };
        let full = match (ns, name.split_once('/')) {
            (Some(host), _) => format!("{host}/{name}"),
            (None, Some((first, _))) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
            (None, _) => format!("{DEFAULT_HOST}/{name}"),
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || "_.:+-".contains(c);
        let reference = Some(reference.to_owned()).filter(|reference| {
            !reference.is_empty()
                && !reference.starts_with('.')
                && reference.len() <= LONGEST_REFERENCE
                && reference.chars().all(sound)
        })?;
        Some(Self { repository: Repository::parse(&full).ok()?, kind, reference })
    }

    /// Where it is.
    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How the registry calls it.
    pub(super) fn thing(&self) -> String {
        let kind = match self.kind {
            Kind::Manifest => "manifests",
            Kind::Blob => "blobs",
            Kind::Referrers => "referrers",
        };
        format!("{kind}/{}", self.reference)
    }
}

async fn read(
    State(local): State<Arc<Local>>,
    method: Method,
    Path(rest): Path<String>,
    Query(upstream): Query<Upstream>,
    headers: HeaderMap,
) -> Response {
    match Wanted::parse(&rest, upstream.ns.as_deref()) {
        Some(wanted) => answer(&local, method, &wanted, &headers).await,
        None => refuse(StatusCode::NOT_FOUND, "a mirror has manifests and blobs of repositories"),
    }
}

/// Answers to `GET` and `HEAD`: from this network, or else as the registry does.
pub(super) async fn answer(local: &Local, method: Method, wanted: &Wanted, headers: &HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&local.streams).try_acquire_owned() else {
        local.node.metrics.pull(Giver::Nobody);
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many are served");
    };
    if method == Method::GET && wanted.kind == Kind::Blob && is_shared(local, wanted).await {
        let given = match headers.get(RANGE) {
            Some(range) => whole::part(local, wanted, range, place).await,
            None => whole::stream(local, wanted, headers, place).await,
        };
        match given {
            Ok(response) => {
                local.node.metrics.pull(Giver::Network);
                return response;
            }
            Err(place) => return through(local, method, wanted, headers, place).await,
        }
    }
    through(local, method, wanted, headers, place).await
}

/// What the registry says.
async fn through(
    local: &Local,
    method: Method,
    wanted: &Wanted,
    headers: &HeaderMap,
    place: Place,
) -> Response {
    local.node.metrics.pull(Giver::Registry);
    upstream::relay(local, method, wanted, headers, place).await
}

/// Whether everybody may read it, as far as is known soon.
async fn is_shared(local: &Local, wanted: &Wanted) -> bool {
    let verdict = local.rights.probe(&wanted.repository, &wanted.reference);
    timeout(PROBE, verdict).await == Ok(Verdict::Shared)
}

#[cfg(test)]
pub(super) mod tests;
