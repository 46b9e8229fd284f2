//! Blobs and ranges of them.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use reqwest::{Response, Url};

use crate::{
    RegistryError, Repository,
    client::Inner,
    content_range::{ContentRange, content_length},
    error::Asked,
    exchange::{Request, malformed},
    file::has_changed,
    hosts::Capability,
    mirror::Endpoint,
    reference::is_digest,
    response,
    web_file::{FileUrl, only_of},
};

/// A stream that has come this far since it last broke may break again.
const PROGRESS: u64 = 1 << 20;

/// Bytes of a blob as they come; a short body is an error at its end.
pub type BlobStream = BoxStream<'static, Result<Bytes, RegistryError>>;

/// The start of an answer that was checked.
pub(crate) struct Opened {
    response: Response,
    asked: Asked,
    endpoint: Arc<Endpoint>,
    /// What was asked for, before redirects.
    url: Url,
    /// Where the body ends in the blob, where it is known.
    end: Option<u64>,
}

impl Opened {
    pub(crate) fn new(
        response: Response,
        asked: Asked,
        endpoint: Arc<Endpoint>,
        (url, end): (Url, Option<u64>),
    ) -> Self {
        Self { response, asked, endpoint, url, end }
    }

    pub(crate) const fn end(&self) -> Option<u64> {
        self.end
    }
}

/// What is read.
#[derive(Clone)]
pub(crate) enum Source {
    /// A blob of a registry.
    Blob { repository: Repository, digest: String },
    /// A file of a plain web server.
    File { endpoint: Arc<Endpoint>, url: FileUrl, version: Option<String> },
}

/// A body being read.
struct Reading {
    client: Arc<Inner>,
    source: Source,
    opened: Opened,
    next: u64,
    resumes: u32,
    /// Where the stream last broke.
    broke_at: u64,
    finished: bool,
}

impl Inner {
    pub(crate) async fn blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &str,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::MalformedDigest { text: digest.into() });
        }
        self.stream(Source::Blob { repository: repository.clone(), digest: digest.into() }, range).await
    }

    pub(crate) async fn stream(
        self: &Arc<Self>,
        source: Source,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(stream::empty().boxed());
        }
        let next = range.as_ref().map_or(0, |range| range.start);
        let opened = self.open(&source, range).await?;
        Ok(self.read_on(source, opened, next))
    }

    /// The body of an answer that begins at byte `next`.
    pub(crate) fn read_on(self: &Arc<Self>, source: Source, opened: Opened, next: u64) -> BlobStream {
        let reading = Reading {
            client: Arc::clone(self),
            source,
            opened,
            next,
            resumes: self.options.attempts.saturating_sub(1),
            broke_at: next,
            finished: false,
        };
        stream::unfold(reading, Reading::step).boxed()
    }

    async fn open(&self, source: &Source, range: Option<Range<u64>>) -> Result<Opened, RegistryError> {
        let range = range.as_ref();
        match source {
            Source::Blob { repository, digest } => {
                let endpoints = self.endpoints(&repository.host, Capability::Pull)?;
                let is_left = |endpoint: &Endpoint| self.distrust.leaves(endpoint, digest);
                let work = |endpoint: Arc<Endpoint>| async move {
                    let asked = endpoint.asked(repository, format!("blob {digest}"));
                    let url = endpoint.url(repository, &format!("blobs/{digest}"));
                    self.open_at(endpoint, url, Asked { range: range.cloned(), ..asked }, None).await
                };
                let opened = self.in_rounds(endpoints, is_left, work).await?;
                self.distrust.gave(&opened.endpoint, digest, range);
                Ok(opened)
            }
            Source::File { endpoint, url, version } => {
                let work = |endpoint: Arc<Endpoint>| async move {
                    let asked = url.asked("file", range.cloned());
                    self.open_at(endpoint, url.0.clone(), asked, version.as_deref()).await
                };
                self.in_rounds(vec![Arc::clone(endpoint)], |_| false, work).await
            }
        }
    }

    async fn open_at(
        &self,
        endpoint: Arc<Endpoint>,
        url: Url,
        asked: Asked,
        version: Option<&str>,
    ) -> Result<Opened, RegistryError> {
        let mut headers: HeaderMap = version.and_then(only_of).into_iter().collect();
        if let Some(range) = &asked.range {
            let value = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
            headers.insert(RANGE, value.expect("digits are a header value"));
        }
        if let Some(opened) = self.open_remembered(&endpoint, &url, &headers, &asked).await {
            return Ok(opened);
        }
        let scopes = [format!("repository:{}:pull", asked.repository)];
        let request = Request {
            method: Method::GET,
            url: url.clone(),
            headers,
            body: None,
            scopes: &scopes,
            asked: &asked,
        };
        let answer = self.exchange(&endpoint, &request).await?;
        let end = self.check(&answer.response, &asked);
        let end = match end {
            Some(end) => end?,
            None => {
                return Err(
                    response::refusal(answer.response, self.options.read_timeout, Box::new(asked)).await
                );
            }
        };
        if let Some(elsewhere) = answer.elsewhere {
            self.redirects.remember(url.clone(), elsewhere);
        }
        Ok(Opened { response: answer.response, asked, endpoint, url, end })
    }

    /// Asks where a redirect led before. Any failure there leads back to the registry, which may send us elsewhere.
    async fn open_remembered(
        &self,
        endpoint: &Arc<Endpoint>,
        from: &Url,
        headers: &HeaderMap,
        asked: &Asked,
    ) -> Option<Opened> {
        let url = self.redirects.get(from)?;
        let http = endpoint.transport.client(&url).ok()?.get(url).headers(headers.clone());
        let answer = response::send(http, self.options.read_timeout, asked).await;
        if let Ok(response) = answer
            && let Some(Ok(end)) = self.check(&response, asked)
        {
            let (asked, endpoint, url) = (asked.clone(), Arc::clone(endpoint), from.clone());
            return Some(Opened { response, asked, endpoint, url, end });
        }
        self.redirects.forget(from);
        None
    }

    /// Where the body of a good answer ends; `None` for a refusal.
    #[allow(clippy::unused_self, reason = "reads as the other steps do")]
    fn check(&self, response: &Response, asked: &Asked) -> Option<Result<Option<u64>, RegistryError>> {
        let length = content_length(response.headers());
        let found = match (response.status(), &asked.range) {
            (StatusCode::OK, None) => Ok(length),
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                check_range(response.headers(), range, length, asked)
            }
            // The whole blob was asked for as a range.
            (StatusCode::OK, Some(range)) if range.start == 0 && length == Some(range.end) => Ok(length),
            (StatusCode::OK, Some(_)) => Err(malformed(asked, "the whole blob instead of the range")),
            (status, _) if status.is_success() => Err(malformed(asked, &format!("status {status}"))),
            _ => return None,
        };
        Some(found)
    }

    /// The size of a blob at the host that is written to.
    pub(crate) async fn blob_size(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<Option<u64>, RegistryError> {
        // One token serves the question and the push that follows it.
        let work = |endpoint: Arc<Endpoint>| async move {
            let url = endpoint.push_url(repository, &format!("blobs/{digest}"));
            self.size_at(&endpoint, url, (repository, digest), "pull,push").await
        };
        if !is_digest(digest) {
            return Err(RegistryError::MalformedDigest { text: digest.into() });
        }
        self.at_push_host(&repository.host, work).await
    }

    /// The size of a blob at the registry itself, never a mirror.
    pub(crate) async fn size_at_origin(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<Option<u64>, RegistryError> {
        let work = |endpoint: Arc<Endpoint>| async move {
            let url = endpoint.url(repository, &format!("blobs/{digest}"));
            self.size_at(&endpoint, url, (repository, digest), "pull").await
        };
        if !is_digest(digest) {
            return Err(RegistryError::MalformedDigest { text: digest.into() });
        }
        let endpoints = self.origins(&repository.host)?;
        self.in_rounds(endpoints, |_| false, work).await
    }

    async fn size_at(
        &self,
        endpoint: &Endpoint,
        url: Url,
        (repository, digest): (&Repository, &str),
        rights: &str,
    ) -> Result<Option<u64>, RegistryError> {
        let asked = endpoint.asked(repository, format!("size of blob {digest}"));
        let scopes = [format!("repository:{}:{rights}", repository.path)];
        let headers = HeaderMap::new();
        let request =
            Request { method: Method::HEAD, url, headers, body: None, scopes: &scopes, asked: &asked };
        let answer = self.exchange(endpoint, &request).await?.response;
        match answer.status() {
            StatusCode::OK => match content_length(answer.headers()) {
                Some(size) => Ok(Some(size)),
                None => Err(malformed(&asked, "no length")),
            },
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await),
        }
    }
}

fn check_range(
    headers: &HeaderMap,
    range: &Range<u64>,
    length: Option<u64>,
    asked: &Asked,
) -> Result<Option<u64>, RegistryError> {
    let bounds = ContentRange::read(headers).map(|given| (given.first, given.last));
    if bounds != Some((range.start, range.end - 1)) {
        let given = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        return Err(malformed(asked, &format!("Content-Range {given:?}")));
    }
    let expected = range.end - range.start;
    match length.filter(|length| *length != expected) {
        Some(got) => Err(RegistryError::Length { asked: Box::new(asked.clone()), expected, got }),
        None => Ok(Some(range.end)),
    }
}

impl Reading {
    async fn step(mut self) -> Option<(Result<Bytes, RegistryError>, Self)> {
        while !self.finished {
            match self.receive().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Some((Ok(bytes), self)),
                Ok(None) => return None,
                Err(error) => {
                    if let Err(error) = self.resume(error).await {
                        self.finished = true;
                        return Some((Err(error), self));
                    }
                }
            }
        }
        None
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.opened.end == Some(self.next) {
            return Ok(None);
        }
        let limit = self.client.options.read_timeout;
        let length_error = |opened: &Opened, end: u64, reached: u64| {
            let start = opened.asked.range.as_ref().map_or(0, |range| range.start);
            let asked = Box::new(opened.asked.clone());
            RegistryError::Length { asked, expected: end - start, got: reached - start }
        };
        let bytes = response::next(&mut self.opened.response, limit, &self.opened.asked).await?;
        let reached = self.next + bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match (&bytes, self.opened.end) {
            (None, Some(end)) => return Err(length_error(&self.opened, end, reached)),
            (Some(_), Some(end)) if reached > end => return Err(length_error(&self.opened, end, reached)),
            _ => self.next = reached,
        }
        Ok(bytes)
    }

    /// Goes on after a broken body, at another host where there is one.
    async fn resume(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let client = Arc::clone(&self.client);
        client.judge(&self.opened.endpoint.host, &error);
        client.redirects.forget(&self.opened.url);
        if self.next - self.broke_at >= PROGRESS {
            self.resumes = client.options.attempts.saturating_sub(1);
        }
        let (Some(end), Some(resumes)) = (self.opened.end, self.resumes.checked_sub(1)) else {
            return Err(error);
        };
        (self.resumes, self.broke_at) = (resumes, self.next);
        let again = match client.open(&self.source, Some(self.next..end)).await {
            // A server that gives no ranges has failed by breaking off.
            Err(RegistryError::Malformed { .. }) => return Err(error),
            again => again?,
        };
        if matches!(self.source, Source::File { .. }) && has_changed(&self.opened.response, &again.response) {
            return Err(malformed(&again.asked, "the file has changed since its first bytes came"));
        }
        self.opened = again;
        Ok(())
    }
}
