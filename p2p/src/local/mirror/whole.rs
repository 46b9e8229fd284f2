//! Blobs of shared repositories: through this network, and each byte hashed on its way to the caller.

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};

use super::{
    super::{
        Opened,
        handlers::{credential, parse_digest, stated_priority},
        sending::{Place, Sending, parse_range},
        unlisted,
    },
    Local, Wanted, refuse,
};
use crate::Priority;

/// All of a blob. Its first bytes are there when this returns; where the registry is to answer instead the caller's place
/// is given back.
pub(super) async fn stream(
    local: &Local,
    wanted: &Wanted,
    headers: &HeaderMap,
    place: Place,
) -> Result<Response, Place> {
    let (Ok(credential), Some(digest)) = (credential(headers), parse_digest(&wanted.reference)) else {
        return Err(place);
    };
    let opened = unlisted::open(local, &wanted.repository, &wanted.reference, credential.as_ref()).await;
    // The registry has to say why not.
    let Ok(Opened { blob, origin }) = opened else { return Err(place) };
    let (len, priority) = (blob.layout().len(), stated_priority(headers).unwrap_or(Priority::Trace));
    let reading = origin.on_behalf_of(credential);
    if let Err(error) = local.engine.fits(&blob, 0..len).await {
        let reason = crate::error::in_one_line(&error);
        tracing::info!(repository = %wanted.repository, digest = wanted.reference, reason, "the registry is asked instead");
        return Err(place);
    }
    match Sending::whole(blob, digest, priority).begin((place, reading)).await {
        Ok(body) => Ok((StatusCode::OK, about(wanted, len), body).into_response()),
        // The registry has been asked twice for what is wrong: it has nothing else.
        Err((error, _)) if error.is_wrong() => {
            Ok(refuse(StatusCode::BAD_GATEWAY, crate::error::in_one_line(&error)))
        }
        Err((error, (place, _))) => {
            let reason = crate::error::in_one_line(&error);
            tracing::info!(repository = %wanted.repository, digest = wanted.reference, reason, "the registry is asked instead");
            Err(place)
        }
    }
}

/// Part of a blob of which all is here.
pub(super) async fn part(
    local: &Local,
    wanted: &Wanted,
    range: &HeaderValue,
    place: Place,
) -> Result<Response, Place> {
    let known =
        parse_digest(&wanted.reference).and_then(|digest| local.blobs().get(&(digest, None)).cloned());
    let Some(Opened { blob, origin }) = known.filter(|opened| opened.blob.is_complete()) else {
        return Err(place);
    };
    let len = blob.layout().len();
    let Some(range) = range.to_str().ok().and_then(|text| parse_range(text, len)) else { return Err(place) };
    let content = format!("bytes {}-{}/{len}", range.start, range.end - 1);
    let about = about(wanted, range.end - range.start);
    let sent = Sending::part(blob, range, Priority::Demand).begin((place, origin.on_behalf_of(None))).await;
    let body = sent.map_err(|(_, (place, _))| place)?;
    Ok((StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, content)], about, body).into_response())
}

fn about(wanted: &Wanted, len: u64) -> [(HeaderName, String); 4] {
    [
        (CONTENT_LENGTH, len.to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (HeaderName::from_static("docker-content-digest"), wanted.reference.clone()),
    ]
}
