//! What goes through: the registry's own answer.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, Method, StatusCode,
        header::{
            ACCEPT, ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, RANGE, RETRY_AFTER, VIA, WWW_AUTHENTICATE,
        },
    },
    response::Response,
};
use futures_util::TryStreamExt as _;
use registry::{BlobStream, RegistryError, Relayed};

use super::{
    super::{handlers::parse_digest, sending::Place},
    Kind, Local, Wanted,
    hashed::hashed,
    refuse,
};

/// What callers say that the registry hears.
const ASKED: [HeaderName; 5] = [ACCEPT, AUTHORIZATION, RANGE, IF_NONE_MATCH, VIA];
/// What the registry says that callers hear, besides headers of the protocol's own.
const ANSWERED: [HeaderName; 8] = [
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    ETAG,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    HeaderName::from_static("link"),
];
/// Begin of the headers of the distribution protocol.
const DISTRIBUTION: &str = "docker-";

/// Asks the registry, and hands its answer on; a whole blob that is wrong breaks off. `place` is held until all of it has
/// gone.
pub(super) async fn relay(
    local: &Local,
    method: Method,
    wanted: &Wanted,
    headers: &HeaderMap,
    place: Place,
) -> Response {
    let asked = headers.iter().filter(|(name, _)| ASKED.contains(name));
    let asked = asked.map(|(name, value)| (name.clone(), value.clone())).collect();
    let digest =
        parse_digest(&wanted.reference).filter(|_| wanted.kind == Kind::Blob && method == Method::GET);
    match local.upstream.relay(method, &wanted.repository, &wanted.thing(), asked).await {
        Ok(relayed) => pass_on(relayed, digest, place),
        Err(error) => failed(&error),
    }
}

/// Says why there is no answer.
pub(in crate::local) fn failed(error: &RegistryError) -> Response {
    let status = match error {
        RegistryError::ForbiddenAddress { .. } => StatusCode::FORBIDDEN,
        RegistryError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    refuse(status, crate::error::in_one_line(error))
}

/// A body that holds its caller's place until it has gone; one that is not of `digest` breaks off before its last bytes.
pub(in crate::local) fn held(body: BlobStream, digest: Option<[u8; 32]>, place: Place) -> Body {
    let body = body.inspect_ok(move |_| {
        let _held = &place;
    });
    match digest {
        Some(digest) => Body::from_stream(hashed(body, digest)),
        None => Body::from_stream(body),
    }
}

fn pass_on(Relayed { status, headers, body }: Relayed, digest: Option<[u8; 32]>, place: Place) -> Response {
    let mut response = Response::new(held(body, digest.filter(|_| status == StatusCode::OK), place));
    *response.status_mut() = status;
    let heard = |name: &HeaderName| ANSWERED.contains(name) || name.as_str().starts_with(DISTRIBUTION);
    let heard = headers.into_iter().filter_map(|(name, value)| Some((name.filter(heard)?, value)));
    response.headers_mut().extend(heard);
    response
}
