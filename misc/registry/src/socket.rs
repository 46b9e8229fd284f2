//! A registry mirror of this machine, at a unix socket.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::{
    StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE},
};

use crate::{
    BlobStream, RegistryError, Repository, error::Asked, exchange::malformed, response,
    transport::install_crypto_provider,
};

/// A mirror that answers `/v2/…?ns=HOST` at a unix socket, as p2pd's does.
#[derive(Debug, Clone)]
pub struct SocketMirror {
    http: reqwest::Client,
    socket: PathBuf,
    silence: Duration,
}

/// The rest of a blob.
pub struct Rest {
    /// Bytes of the whole blob.
    pub total: u64,
    /// Its bytes from where they were asked for on; a short body is an error at its end.
    pub body: BlobStream,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("total", &self.total).finish_non_exhaustive()
    }
}

impl SocketMirror {
    /// The mirror at `socket`, which may be silent for so long.
    ///
    /// # Errors
    /// [`RegistryError::HttpClient`].
    pub fn new(socket: &Path, silence: Duration) -> Result<Self, RegistryError> {
        install_crypto_provider();
        let http = reqwest::Client::builder().unix_socket(socket.to_owned()).build();
        let host = socket.display().to_string();
        let http = http.map_err(|source| RegistryError::HttpClient { host, source })?;
        Ok(Self { http, socket: socket.to_owned(), silence })
    }

    /// Streams a blob from its byte `from` on.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &str,
        from: u64,
    ) -> Result<Rest, RegistryError> {
        let (host, path) = (self.socket.display().to_string(), &repository.path);
        let asked = Asked { host, repository: path.clone(), object: format!("blob {digest}"), range: None };
        let url = format!("http://mirror/v2/{path}/blobs/{digest}");
        let mut request = self.http.get(url).query(&[("ns", &repository.host)]);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = response::send(request, self.silence, &asked).await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let total = match (response.status(), from) {
            (StatusCode::OK, 0) => text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            (StatusCode::PARTIAL_CONTENT, 1..) => {
                text(CONTENT_RANGE).and_then(|range| total_after(range, from))
            }
            (status, _) if status.is_success() => None,
            _ => return Err(response::refusal(response, self.silence, Box::new(asked)).await),
        };
        let total = total.ok_or_else(|| malformed(&asked, "not what was asked for"))?;
        let silence = self.silence;
        let body = stream::unfold(Some((response, asked, from)), move |going| async move {
            let (mut response, asked, at) = going?;
            match response::next(&mut response, silence, &asked).await {
                Ok(Some(bytes)) => {
                    let at = at + bytes.len() as u64;
                    Some((Ok(bytes), Some((response, asked, at))))
                }
                Ok(None) if at == total => None,
                Ok(None) => {
                    let asked = Box::new(asked);
                    Some((Err(RegistryError::Length { asked, expected: total, got: at }), None))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Rest { total, body: body.boxed() })
    }
}

/// Length of the whole from `bytes A-B/LENGTH`, if all from `from` on follows.
fn total_after(range: &str, from: u64) -> Option<u64> {
    let (bounds, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    let (first, last, total): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first == from && last.checked_add(1) == Some(total)).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_of_the_rest_is_the_rest() {
        assert_eq!(total_after("bytes 5-9/10", 5), Some(10));
        for wrong in
            ["bytes 4-9/10", "bytes 5-8/10", "bytes 5-9/*", "5-9/10", "bytes 5-18446744073709551615/1"]
        {
            assert_eq!(total_after(wrong, 5), None, "{wrong}");
        }
    }
}
