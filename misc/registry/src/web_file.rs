//! Files of plain web servers that are read in parts.

use std::{fmt, ops::Range, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ETAG, IF_RANGE, LAST_MODIFIED, RANGE},
};
use reqwest::Url;

use crate::{
    BlobStream, Client, RegistryError,
    client::Inner,
    content_range::ContentRange,
    error::Asked,
    exchange::{Request, malformed},
    mirror::Endpoint,
    response,
};

/// The address of a file, in the one way to write it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileUrl(pub(crate) Url);

impl FileUrl {
    /// Reads `http://…` or `https://…`. What is after `#` is left out.
    ///
    /// # Errors
    /// [`RegistryError::MalformedUrl`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url.ok_or_else(|| RegistryError::MalformedUrl { text: text.into() })?;
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Whether it holds a name or a password.
    #[must_use]
    pub fn has_credential(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }

    /// As it goes over the wire; a query in it may be a secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn asked(&self, object: &str, range: Option<Range<u64>>) -> Asked {
        let host = self.0.host_str().unwrap_or_default();
        let host = self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Asked { host, repository: self.0.path().to_owned(), object: object.into(), range }
    }
}

/// Without the query.
impl fmt::Display for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.origin().ascii_serialization(), self.0.path())
    }
}

impl fmt::Debug for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a server says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Bytes.
    pub len: u64,
    /// What tells this version from the next: its entity tag, or when it was last changed.
    pub version: Option<String>,
}

impl Client {
    /// Asks a web server about a file; `None` where it gives no parts of it or does not say how long it is.
    ///
    /// # Errors
    /// [`RegistryError`] where the server refuses or does not answer.
    pub async fn file_facts(&self, url: &FileUrl) -> Result<Option<FileFacts>, RegistryError> {
        self.inner().file_facts(url).await
    }

    /// Streams a range of a file, as [`Self::file`] does, as long as it is of `version`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn file_part(
        &self,
        url: &FileUrl,
        range: Range<u64>,
        version: Option<&str>,
    ) -> Result<BlobStream, RegistryError> {
        let inner = self.inner();
        inner.stream(inner.file_at(url, version)?, Some(range)).await
    }
}

impl Inner {
    async fn file_facts(&self, url: &FileUrl) -> Result<Option<FileFacts>, RegistryError> {
        let endpoint = self.web_endpoint(&url.0)?;
        let work = |endpoint: Arc<Endpoint>| async move { self.facts_at(&endpoint, url).await };
        self.in_rounds(vec![endpoint], |_| false, work).await
    }

    /// Asks for the first byte: more servers tell the length so than by `HEAD`, signed addresses among them.
    async fn facts_at(&self, endpoint: &Endpoint, url: &FileUrl) -> Result<Option<FileFacts>, RegistryError> {
        let asked = url.asked("length of file", None);
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let request = Request {
            method: Method::GET,
            url: url.0.clone(),
            headers,
            body: None,
            scopes: &[],
            asked: &asked,
        };
        let answer = self.exchange(endpoint, &request).await?.response;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let facts = facts(answer.headers()).ok_or_else(|| malformed(&asked, "no length"))?;
                Ok(Some(facts))
            }
            // All of it, or nothing at all of an empty one.
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            _ => Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await),
        }
    }
}

/// What the answer to a question for the first byte says.
fn facts(headers: &HeaderMap) -> Option<FileFacts> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let len = ContentRange::read(headers).filter(|range| (range.first, range.last) == (0, 0))?.total?;
    let tag = text(ETAG).filter(|tag| tag.starts_with('"'));
    Some(FileFacts { len, version: tag.or_else(|| text(LAST_MODIFIED)).map(ToOwned::to_owned) })
}

/// Has a part of another version answered as the whole, which is not what is asked for.
pub(crate) fn only_of(version: &str) -> Option<(http::HeaderName, HeaderValue)> {
    Some((IF_RANGE, HeaderValue::try_from(version).ok()?))
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_RANGE;

    use super::*;

    #[test]
    fn an_address_has_one_name_and_shows_no_secret() {
        let url = FileUrl::parse("HTTP://Files.Example:80/a/%2e%2e/b?signature=x#part").unwrap();
        assert_eq!(url.as_str(), "http://files.example/b?signature=x");
        assert_eq!((url.to_string().as_str(), url.has_credential()), ("http://files.example/b", false));
        let secret = FileUrl::parse("https://me:pw@files.example/c").unwrap();
        assert!(secret.has_credential() && format!("{secret} {secret:?}").find("pw").is_none());
        for wrong in ["ftp://a/b", "file:///etc/passwd", "a/b", ""] {
            assert!(FileUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_version_is_a_strong_tag_or_a_date() {
        let said = |pairs: &[(http::HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            facts(&pairs.collect())
        };
        let range = (CONTENT_RANGE, "bytes 0-0/17");
        let date = (LAST_MODIFIED, "Fri, 27 Nov 2026 08:00:00 GMT");
        let strong = said(&[range.clone(), (ETAG, "\"a\""), date.clone()]).unwrap();
        assert_eq!((strong.len, strong.version.as_deref()), (17, Some("\"a\"")));
        let weak = said(&[range.clone(), (ETAG, "W/\"a\""), date.clone()]).unwrap();
        assert_eq!(weak.version.as_deref(), Some(date.1));
        assert_eq!(said(std::slice::from_ref(&range)).unwrap().version, None);
        assert!(said(&[(CONTENT_RANGE, "bytes 0-0/*")]).is_none() && said(&[date]).is_none());
    }
}
