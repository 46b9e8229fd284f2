//! Files of plain web servers, and what follows a byte of them.

use std::{fmt, ops::Range, sync::Arc};

use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ETAG, LAST_MODIFIED, RANGE},
};
use reqwest::Response;

use crate::{
    BlobStream, RegistryError,
    blob::{Opened, Source},
    client::Inner,
    content_range::{ContentRange, content_length, unsatisfied},
    exchange::{Request, malformed},
    mirror::Endpoint,
    response,
    web_file::FileUrl,
};

/// The rest of a blob or a file.
pub struct Rest {
    /// Where it begins: at the byte that was asked for, or at 0 where the server gives the whole only.
    pub start: u64,
    /// Bytes of the whole, where that is known.
    pub total: Option<u64>,
    /// Its bytes; a body that is shorter or longer than was said is an error.
    pub body: BlobStream,
}

impl Rest {
    /// What follows the last byte.
    #[must_use]
    pub fn nothing(start: u64, total: u64) -> Self {
        Self { start, total: Some(total), body: stream::empty().boxed() }
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, total, .. } = self;
        f.debug_struct("Rest").field("start", start).field("total", total).finish_non_exhaustive()
    }
}

/// How a web server answers a question for the rest of a file.
enum Answered {
    /// With a body that begins there.
    Body(u64, Box<Opened>),
    /// That all of its bytes come before it.
    Nothing,
    /// In a way that is of no use; the whole may be.
    Useless,
}

impl Inner {
    pub(crate) async fn file(
        self: &Arc<Self>,
        text: &str,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        let url = FileUrl::parse(text)?;
        self.stream(self.file_at(&url, None)?, range).await
    }

    pub(crate) async fn rest_of_file(self: &Arc<Self>, text: &str, from: u64) -> Result<Rest, RegistryError> {
        let url = FileUrl::parse(text)?;
        let endpoint = self.web_endpoint(&url.0)?;
        let work = |endpoint: Arc<Endpoint>| self.open_rest(endpoint, &url, from);
        let mut answered = self.in_rounds(vec![Arc::clone(&endpoint)], |_| false, work).await?;
        if matches!(answered, Answered::Useless) {
            let work = |endpoint: Arc<Endpoint>| self.open_rest(endpoint, &url, 0);
            answered = self.in_rounds(vec![Arc::clone(&endpoint)], |_| false, work).await?;
        }
        let Answered::Body(start, opened) = answered else { return Ok(Rest::nothing(from, from)) };
        let total = opened.end();
        Ok(Rest { start, total, body: self.read_on(self.file_at(&url, None)?, *opened, start) })
    }

    /// A file, in one version if it is told which.
    pub(crate) fn file_at(&self, url: &FileUrl, version: Option<&str>) -> Result<Source, RegistryError> {
        let (endpoint, version) = (self.web_endpoint(&url.0)?, version.map(ToOwned::to_owned));
        Ok(Source::File { endpoint, url: url.clone(), version })
    }

    async fn open_rest(
        &self,
        endpoint: Arc<Endpoint>,
        url: &FileUrl,
        from: u64,
    ) -> Result<Answered, RegistryError> {
        let asked = url.asked("file", None);
        let mut headers = HeaderMap::new();
        if from > 0 {
            let value = HeaderValue::try_from(format!("bytes={from}-"));
            headers.insert(RANGE, value.expect("digits are a header value"));
        }
        let (method, body) = (Method::GET, None);
        let request = Request { method, url: url.0.clone(), headers, body, scopes: &[], asked: &asked };
        let response = self.exchange(&endpoint, &request).await?.response;
        let length = content_length(response.headers());
        let (start, end) = match response.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                let total = ContentRange::read(response.headers()).and_then(|range| range.total_after(from));
                match total.filter(|total| length.is_none_or(|length| length == total - from)) {
                    Some(total) => (from, Some(total)),
                    None => return Ok(Answered::Useless),
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                let is_end = unsatisfied(response.headers()) == Some(from);
                return Ok(if is_end { Answered::Nothing } else { Answered::Useless });
            }
            status if status.is_success() => return Err(malformed(&asked, &format!("status {status}"))),
            _ => {
                let limit = self.options.read_timeout;
                return Err(response::refusal(response, limit, Box::new(asked)).await);
            }
        };
        let opened = Opened::new(response, asked, endpoint, (url.0.clone(), end));
        Ok(Answered::Body(start, Box::new(opened)))
    }
}

/// Whether two answers are of two versions of a file, as far as the server says.
pub(crate) fn has_changed(before: &Response, after: &Response) -> bool {
    let differs = |name| match (before.headers().get(&name), after.headers().get(&name)) {
        (Some(before), Some(after)) => before != after,
        _ => false,
    };
    differs(ETAG) || differs(LAST_MODIFIED)
}
