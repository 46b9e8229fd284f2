//! Sending one request and reading its answer, with a deadline on each step.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header::RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{RegistryError, error::Asked};

/// Most that is read of an error's body.
const MAX_COMPLAINT: usize = 8 << 10;
/// Most that is shown of it.
const MAX_SHOWN: usize = 300;

/// Sends a request and waits for the head of its answer.
pub(crate) async fn send(
    request: RequestBuilder,
    limit: Duration,
    asked: &Asked,
) -> Result<Response, RegistryError> {
    match timeout(limit, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(source)) => {
            Err(RegistryError::Connection { asked: Box::new(asked.clone()), source: source.without_url() })
        }
        Err(_) => Err(RegistryError::Timeout { asked: Box::new(asked.clone()), after: limit }),
    }
}

/// The next bytes of a body, `None` at its end.
pub(crate) async fn next(
    response: &mut Response,
    limit: Duration,
    asked: &Asked,
) -> Result<Option<Bytes>, RegistryError> {
    match timeout(limit, response.chunk()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(source)) => {
            Err(RegistryError::Connection { asked: Box::new(asked.clone()), source: source.without_url() })
        }
        Err(_) => Err(RegistryError::Timeout { asked: Box::new(asked.clone()), after: limit }),
    }
}

/// A whole body of at most `max` bytes.
pub(crate) async fn body(
    mut response: Response,
    max: usize,
    limit: Duration,
    asked: &Asked,
) -> Result<Bytes, RegistryError> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = next(&mut response, limit, asked).await? {
        if whole.len() + bytes.len() > max {
            let problem = format!("longer than {max} bytes");
            return Err(RegistryError::Malformed { asked: Box::new(asked.clone()), problem });
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

/// The error that an unwelcome answer stands for.
pub(crate) async fn refusal(response: Response, limit: Duration, asked: Box<Asked>) -> RegistryError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let message = complaint(response, limit).await;
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { asked },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let problem =
                if message.is_empty() { status.to_string() } else { format!("{status}: {message}") };
            RegistryError::Unauthorized { asked, problem }
        }
        _ => RegistryError::Status { asked, status: status.as_u16(), message, retry_after },
    }
}

/// Reads what is left of a small body, so that its connection can be used again.
pub(crate) async fn drain(response: Response, limit: Duration) {
    complaint(response, limit).await;
}

#[derive(Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What an answer says in the registry's own words, in one line.
async fn complaint(mut response: Response, limit: Duration) -> String {
    let asked = Asked { host: String::new(), repository: String::new(), object: String::new(), range: None };
    let mut start = Vec::new();
    // What does not come of an error's body changes nothing about the error.
    while let Ok(Some(bytes)) = next(&mut response, limit, &asked).await {
        start.extend_from_slice(&bytes[..bytes.len().min(MAX_COMPLAINT - start.len())]);
        if start.len() >= MAX_COMPLAINT {
            break;
        }
    }
    let text = match serde_json::from_slice::<Complaints>(&start) {
        Ok(said) => {
            said.errors.iter().map(|e| format!("{} {}", e.code, e.message)).collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(&start).into_owned(),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SHOWN)
        .collect::<String>()
        .trim()
        .to_owned()
}
