//! Bodies and faults.

use std::{io, ops::Range, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};

use super::state::Fault;

pub(super) fn plain(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

/// An answer with headers and no body.
pub(super) fn bare(status: StatusCode, headers: &[(&str, String)]) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::empty()).expect("headers of tests are valid")
}

/// The range that a request asks for, cut to the blob.
fn asked_range(headers: &HeaderMap, len: u64) -> Option<Range<u64>> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let last = last.parse::<u64>().unwrap_or(u64::MAX);
    Some(first.parse().ok()?..len.min(last.saturating_add(1)))
}

/// A blob or a range of it, spoilt as `fault` says.
pub(super) fn content(headers: &HeaderMap, bytes: &Bytes, fault: Option<&Fault>) -> Response {
    let len = bytes.len() as u64;
    let range = asked_range(headers, len).filter(|_| fault != Some(&Fault::WholeForRange));
    if range.as_ref().is_some_and(|range| range.start >= range.end) {
        return bare(StatusCode::RANGE_NOT_SATISFIABLE, &[("content-range", format!("bytes */{len}"))]);
    }
    let mut response = Response::builder();
    let mut wanted = range.clone().unwrap_or(0..len);
    if let Some(range) = &range {
        let shift = u64::from(fault == Some(&Fault::WrongRange));
        let value = format!("bytes {}-{}/{len}", range.start + shift, range.end - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value);
    }
    if fault == Some(&Fault::ShortRange) {
        wanted.end -= 1;
    }
    let index = |at: u64| usize::try_from(at).expect("a blob in memory");
    let part = bytes.slice(index(wanted.start)..index(wanted.end));
    response
        .header(header::CONTENT_LENGTH, part.len())
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(spoilt(part, fault))
        .expect("headers of tests are valid")
}

fn spoilt(part: Bytes, fault: Option<&Fault>) -> Body {
    let half = part.slice(..part.len() / 2);
    match fault {
        Some(Fault::ShortBody) => {
            // What was not sent before the error is never sent.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(io::Error::other("the test wants a short body"))
            });
            Body::from_stream(stream::iter([Ok(half)]).chain(broken))
        }
        Some(Fault::Stall) => {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(half)]).chain(stream::pending()))
        }
        Some(Fault::FlippedByte) => {
            let mut flipped = part.to_vec();
            flipped.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            Body::from(flipped)
        }
        _ => Body::from(part),
    }
}
