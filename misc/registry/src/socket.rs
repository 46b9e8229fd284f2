//! A registry mirror of this machine, at a unix socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header::RANGE};

use crate::{
    RegistryError, Repository, Rest,
    content_range::{ContentRange, content_length},
    error::Asked,
    exchange::malformed,
    response,
    transport::install_crypto_provider,
    web_file::FileUrl,
};

/// The header that says how urgent a blob is, to mirrors that care.
const PRIORITY: &str = "x-shoal-priority";

/// A mirror that answers `/v2/…?ns=HOST` and `/v1/files?url=URL` at a unix socket, as p2pd's does.
#[derive(Debug, Clone)]
pub struct SocketMirror {
    http: reqwest::Client,
    socket: PathBuf,
    silence: Duration,
    priority: Option<&'static str>,
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
        Ok(Self { http, socket: socket.to_owned(), silence, priority: None })
    }

    /// The same, asked with a priority: `demand`, `read-ahead`, `trace` or `background`.
    #[must_use]
    pub fn with_priority(self, priority: &'static str) -> Self {
        Self { priority: Some(priority), ..self }
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
        let path = &repository.path;
        let asked = self.asked(path, format!("blob {digest}"));
        let url = format!("http://mirror/v2/{path}/blobs/{digest}");
        self.rest(self.http.get(url).query(&[("ns", &repository.host)]), asked, from).await
    }

    /// Streams a file of a web server from its byte `from` on, if the mirror shares it.
    ///
    /// # Errors
    /// [`RegistryError`]; one that [is](RegistryError::is_unauthorized) no leave where it does not.
    pub async fn file(&self, url: &FileUrl, digest: Option<&str>, from: u64) -> Result<Rest, RegistryError> {
        let request = self.http.get("http://mirror/v1/files").query(&[("url", url.as_str())]);
        let request = request.query(&digest.map(|digest| [("digest", digest)]));
        self.rest(request, self.asked(&url.to_string(), "file".into()), from).await
    }

    fn asked(&self, repository: &str, object: String) -> Asked {
        let host = self.socket.display().to_string();
        Asked { host, repository: repository.to_owned(), object, range: None }
    }

    async fn rest(
        &self,
        mut request: reqwest::RequestBuilder,
        asked: Asked,
        from: u64,
    ) -> Result<Rest, RegistryError> {
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(priority) = self.priority {
            request = request.header(PRIORITY, priority);
        }
        let response = response::send(request, self.silence, &asked).await?;
        let total = match (response.status(), from) {
            (StatusCode::OK, 0) => content_length(response.headers()),
            (StatusCode::PARTIAL_CONTENT, 1..) => {
                ContentRange::read(response.headers()).and_then(|range| range.total_after(from))
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
        Ok(Rest { start: from, total: Some(total), body: body.boxed() })
    }
}
