//! The calls of `p2p/api/proto/local.proto`: what the mirror and files answer, for programs that speak gRPC.

use std::{pin::Pin, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH, RANGE},
    },
    response::Response as Answer,
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use p2p_api::local::{
    About, Blob, DownloadRequest, DownloadResponse, File, Priority,
    download_request::Source,
    download_response::Part,
    local_server::{Local as Calls, LocalServer},
};
use tonic::{Request, Response, Status};

use super::{
    Local,
    files::{self, Asked},
    handlers::parse_digest,
    mirror::{self, Wanted, hashed},
};

/// Most bytes of one message: clients take four times as many unless told otherwise.
const MESSAGE: usize = 1 << 20;
/// Longest text that says why a call failed.
const REASON: usize = 64 << 10;

/// The calls.
pub(super) fn router(local: Arc<Local>) -> Router {
    let calls = LocalServer::new(Service(local));
    Router::new().route_service("/shoal.local.v1.Local/{*call}", calls)
}

struct Service(Arc<Local>);

type Parts = Pin<Box<dyn Stream<Item = Result<DownloadResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Calls for Service {
    type DownloadStream = Parts;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Parts>, Status> {
        let request = request.into_inner();
        let headers = headers(&request)?;
        let answer = match request.source {
            Some(Source::Blob(blob)) => self.blob(&blob, headers).await?,
            Some(Source::File(file)) => self.file(file, headers).await?,
            None => return Err(Status::invalid_argument("no source")),
        };
        Ok(Response::new(parts(answer).await?))
    }
}

impl Service {
    async fn blob(&self, blob: &Blob, mut headers: HeaderMap) -> Result<Answer, Status> {
        if !blob.authorization.is_empty() {
            let value = HeaderValue::try_from(&blob.authorization);
            let mut value = value.map_err(|_| Status::invalid_argument("authorization is no header"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let wanted = blob.repository.split_once('/').and_then(|(host, name)| {
            let digest = Some(&blob.digest).filter(|digest| parse_digest(digest).is_some())?;
            Wanted::parse(&format!("{name}/blobs/{digest}"), Some(host))
        });
        let wanted = wanted.ok_or_else(|| Status::invalid_argument("not HOST/NAME and sha256:HEX"))?;
        Ok(mirror::answer(&self.0, Method::GET, &wanted, &headers).await)
    }

    async fn file(&self, File { url, digest }: File, headers: HeaderMap) -> Result<Answer, Status> {
        let digest = Some(digest).filter(|digest| !digest.is_empty());
        let asked = Asked { url, digest };
        let answer = files::answer(&self.0, &asked, &headers).await;
        if answer.status() != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        // It is not shared: it comes from its server.
        let range = headers.get(RANGE).is_some();
        if range {
            return Err(Status::permission_denied("parts come of what is shared only"));
        }
        let body = self.0.upstream.file(&asked.url, None).await;
        let body = body.map_err(|error| Status::unavailable(crate::error::in_one_line(&error)))?;
        Ok(Answer::new(match asked.digest.as_deref().and_then(parse_digest) {
            Some(digest) => Body::from_stream(hashed(body, digest)),
            None => Body::from_stream(body),
        }))
    }
}

/// What HTTP says in headers.
fn headers(request: &DownloadRequest) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    let range = match (request.start, request.end) {
        (0, 0) => None,
        (start, 0) => Some(format!("bytes={start}-")),
        (start, end) if start < end => Some(format!("bytes={start}-{}", end - 1)),
        _ => return Err(Status::invalid_argument("the range ends before it begins")),
    };
    let priority = match request.priority() {
        Priority::Unspecified => None,
        Priority::Background => Some(crate::Priority::Background),
        Priority::Trace => Some(crate::Priority::Trace),
        Priority::ReadAhead => Some(crate::Priority::ReadAhead),
        Priority::Demand => Some(crate::Priority::Demand),
    };
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(RANGE, range);
    }
    if let Some(priority) = priority {
        headers.insert("x-shoal-priority", HeaderValue::from_static(priority.name()));
    }
    Ok(headers)
}

/// The messages of an answer, or why there are none.
async fn parts(answer: Answer) -> Result<Parts, Status> {
    let status = answer.status();
    if !status.is_success() {
        let reason = axum::body::to_bytes(answer.into_body(), REASON).await.unwrap_or_default();
        return Err(Status::new(code(status), reason_in(&reason)));
    }
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let about = DownloadResponse { part: Some(Part::About(About { length })) };
    let data = answer.into_body().into_data_stream();
    let data = data.map_err(|error| Status::unavailable(crate::error::in_one_line(&error)));
    let data = data.map_ok(|bytes| stream::iter(pieces_of(bytes).map(Ok))).try_flatten();
    Ok(stream::once(async { Ok(about) }).chain(data).boxed())
}

fn pieces_of(mut bytes: Bytes) -> impl Iterator<Item = DownloadResponse> {
    std::iter::from_fn(move || {
        let part = bytes.split_to(bytes.len().min(MESSAGE));
        (!part.is_empty()).then(|| DownloadResponse { part: Some(Part::Data(part)) })
    })
}

/// The text of `{"message": …}`, or all of it.
fn reason_in(body: &[u8]) -> String {
    let told: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = told.as_ref().and_then(|told| told["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), ToOwned::to_owned)
}

fn code(status: StatusCode) -> tonic::Code {
    match status {
        StatusCode::BAD_REQUEST => tonic::Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        StatusCode::FORBIDDEN => tonic::Code::PermissionDenied,
        StatusCode::NOT_FOUND => tonic::Code::NotFound,
        StatusCode::RANGE_NOT_SATISFIABLE => tonic::Code::OutOfRange,
        StatusCode::GATEWAY_TIMEOUT => tonic::Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::INSUFFICIENT_STORAGE => tonic::Code::ResourceExhausted,
        _ => tonic::Code::Unavailable,
    }
}

#[cfg(test)]
mod tests;
