//! Sending blobs.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE},
};
use reqwest::{Body, RequestBuilder, Response, Url};
use tokio::time::{Instant, sleep};

use crate::{
    RegistryError, Repository,
    auth::Wanted,
    client::Inner,
    error::Asked,
    exchange::{Request, location, malformed},
    mirror::Endpoint,
    reference::is_digest,
    response,
};

/// How long a registry may take to check and store a blob that it has received.
const COMMIT_TIME: Duration = Duration::from_secs(300);

/// Where an upload goes on.
struct Session {
    endpoint: Arc<Endpoint>,
    url: Url,
}

impl Inner {
    pub(crate) async fn mount_blob(
        &self,
        to: &Repository,
        digest: &str,
        from: &Repository,
    ) -> Result<bool, RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::MalformedDigest { text: digest.into() });
        }
        if to.host != from.host {
            return Ok(false);
        }
        let scopes = [format!("repository:{}:pull,push", to.path), format!("repository:{}:pull", from.path)];
        let query = [("mount", digest), ("from", from.path.as_str())];
        let (scopes, query) = (&scopes, &query);
        let work = |endpoint: Arc<Endpoint>| async move {
            let asked = endpoint.asked(to, format!("mount of blob {digest}"));
            let answer = self.start(&endpoint, to, query, scopes, &asked).await?;
            match answer.status() {
                StatusCode::CREATED => Ok(true),
                StatusCode::ACCEPTED => Ok(false),
                _ => Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await),
            }
        };
        self.at_push_host(&to.host, work).await
    }

    async fn start(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        query: &[(&str, &str)],
        scopes: &[String],
        asked: &Asked,
    ) -> Result<Response, RegistryError> {
        let mut url = endpoint.push_url(repository, "blobs/uploads/");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let request = Request { method: Method::POST, url, headers, body: None, scopes, asked };
        Ok(self.exchange(endpoint, &request).await?.response)
    }

    pub(crate) async fn push_blob(
        &self,
        repository: &Repository,
        digest: &str,
        size: u64,
        bytes: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<(), RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::MalformedDigest { text: digest.into() });
        }
        let object = format!("upload of blob {digest}");
        let scopes = [format!("repository:{}:pull,push", repository.path)];
        let session = {
            let (object, scopes) = (&object, &scopes);
            let work = |endpoint: Arc<Endpoint>| async move {
                let asked = endpoint.asked(repository, object.clone());
                let answer = self.start(&endpoint, repository, &[], scopes, &asked).await?;
                if answer.status() != StatusCode::ACCEPTED {
                    return Err(response::refusal(answer, self.options.read_timeout, Box::new(asked)).await);
                }
                let from = endpoint.push_url(repository, "blobs/uploads/");
                let url = location(&from, answer.headers())
                    .ok_or_else(|| malformed(&asked, "no upload location"))?;
                let url = as_secure(url, &endpoint.host.base);
                response::drain(answer, self.options.read_timeout).await;
                Ok(Session { endpoint, url })
            };
            self.at_push_host(&repository.host, work).await?
        };
        let asked = session.endpoint.asked(repository, object);
        self.send_blob(&session, digest, (size, bytes), (&scopes, &asked)).await
    }

    async fn send_blob(
        &self,
        session: &Session,
        digest: &str,
        (size, bytes): (u64, BoxStream<'static, io::Result<Bytes>>),
        (scopes, asked): (&[String], &Asked),
    ) -> Result<(), RegistryError> {
        let Session { endpoint, url } = session;
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("digest", digest);
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(size)),
        ]);
        if endpoint.is_at(&url) {
            let tokens = endpoint.token_exchange(self.options.read_timeout);
            headers.extend(endpoint.host.headers.clone());
            let granted = self.auth.header(&endpoint.host, Wanted { scopes, asked }, &tokens).await;
            granted.map(|value| headers.insert(AUTHORIZATION, value));
        }
        let upload = Upload { size, sent: Arc::default(), failure: Arc::default() };
        let http = endpoint.transport.client(&url)?.put(url).headers(headers).body(upload.body(bytes));
        let answer = upload.run(http, self.options.read_timeout, asked).await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(response::refusal(answer, self.options.read_timeout, Box::new(asked.clone())).await),
        }
    }
}

/// Registries behind a proxy that ends TLS often name themselves without it.
fn as_secure(mut url: Url, base: &Url) -> Url {
    let same_host = url.host_str() == base.host_str();
    if same_host && url.scheme() == "http" && base.scheme() == "https" {
        // Both calls fail only for URLs that have no host.
        url.set_scheme("https").ok();
        url.set_port(base.port()).ok();
    }
    url
}

/// A body on its way.
struct Upload {
    size: u64,
    sent: Arc<AtomicU64>,
    /// Why our side of the body failed.
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Upload {
    /// The body: the caller's stream, held to its announced length.
    fn body(&self, bytes: BoxStream<'static, io::Result<Bytes>>) -> Body {
        let (size, sent, failure) = (self.size, Arc::clone(&self.sent), Arc::clone(&self.failure));
        let note = move |error: io::Error| {
            let told = io::Error::new(error.kind(), error.to_string());
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        };
        let end = {
            let (sent, note) = (Arc::clone(&sent), note.clone());
            futures_util::stream::iter([()]).filter_map(move |()| {
                let short = sent.load(Ordering::Relaxed) < size;
                let error =
                    short.then(|| Err(note(io::Error::other(format!("it ends before its {size} bytes")))));
                std::future::ready(error)
            })
        };
        let counted = bytes.map(move |bytes| {
            let bytes = bytes.map_err(&note)?;
            let total = sent.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
            match total > size {
                true => Err(note(io::Error::other(format!("it goes on after its {size} bytes")))),
                false => Ok(bytes),
            }
        });
        Body::wrap_stream(counted.chain(end))
    }

    /// Sends the request, as long as its body moves.
    async fn run(
        &self,
        http: RequestBuilder,
        limit: Duration,
        asked: &Asked,
    ) -> Result<Response, RegistryError> {
        let mut request = pin!(http.send());
        let (mut last, mut moved) = (0, Instant::now());
        let result = loop {
            tokio::select! {
                result = &mut request => break result,
                () = sleep(limit / 4) => {}
            }
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != last {
                (last, moved) = (sent, Instant::now());
            }
            let allowed = if sent >= self.size { COMMIT_TIME.max(limit) } else { limit };
            if moved.elapsed() > allowed {
                return Err(RegistryError::Timeout { asked: Box::new(asked.clone()), after: allowed });
            }
        };
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.map_err(|source| match failure {
            Some(source) => RegistryError::Source { asked: Box::new(asked.clone()), source },
            None => {
                RegistryError::Connection { asked: Box::new(asked.clone()), source: source.without_url() }
            }
        })
    }
}
