//! One request at one host: authorization and redirects.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, LOCATION},
};
use reqwest::{Response, Url};

use crate::{
    RegistryError, Repository, auth::Wanted, challenge::Challenge, client::Inner, error::Asked,
    mirror::Endpoint, response, token,
};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Redirects remembered; beyond it, all are forgotten and asked for again.
const MAX_REMEMBERED: usize = 4096;

/// A request whose body can be sent again.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) scopes: &'a [String],
    pub(crate) asked: &'a Asked,
}

/// An answer, and where it came from if not from the host that was asked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) elsewhere: Option<Url>,
}

impl Endpoint {
    /// The address of a thing in a repository, for reading.
    pub(crate) fn url(&self, repository: &Repository, thing: &str) -> Url {
        let mut url = self.push_url(repository, thing);
        if let Some(namespace) = &self.host.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// The address of a thing in a repository, for writing.
    pub(crate) fn push_url(&self, repository: &Repository, thing: &str) -> Url {
        let mut url = self.host.base.clone();
        url.set_path(&format!("{}{}/{thing}", self.host.base.path(), repository.path));
        url
    }

    pub(crate) fn asked(&self, repository: &Repository, object: String) -> Asked {
        Asked { host: self.host.name.clone(), repository: repository.path.clone(), object, range: None }
    }

    /// Whether a URL is at this host, so that what is secret may go there.
    pub(crate) fn is_at(&self, url: &Url) -> bool {
        url.origin() == self.host.base.origin()
    }

    pub(crate) fn token_exchange(&self, read_timeout: std::time::Duration) -> token::Exchange<'_> {
        token::Exchange { transport: &self.transport, read_timeout }
    }
}

impl Inner {
    /// Sends a request, proves who we are where asked to, and follows redirects.
    pub(crate) async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: &Request<'_>,
    ) -> Result<Answer, RegistryError> {
        let tokens = endpoint.token_exchange(self.options.read_timeout);
        let wanted = Wanted { scopes: request.scopes, asked: request.asked };
        let sent = self.auth.header(&endpoint.host, wanted, &tokens).await;
        let answer = self.follow(endpoint, request, sent.as_ref()).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.elsewhere.is_some() {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::read(answer.response.headers()) else { return Ok(answer) };
        response::drain(answer.response, self.options.read_timeout).await;
        let granted =
            self.auth.challenged(&endpoint.host, wanted, &tokens, (challenge, sent.as_ref())).await?;
        self.follow(endpoint, request, Some(&granted)).await
    }

    pub(crate) async fn follow(
        &self,
        endpoint: &Endpoint,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let at_host = endpoint.is_at(&url);
            let mut headers = request.headers.clone();
            if at_host {
                headers.extend(endpoint.host.headers.clone());
                authorization.map(|value| headers.insert(AUTHORIZATION, value.clone()));
            }
            let mut http = endpoint
                .transport
                .client(&url)?
                .request(request.method.clone(), url.clone())
                .headers(headers);
            if let Some(body) = &request.body {
                http = http.body(body.clone());
            }
            let response = response::send(http, self.options.read_timeout, request.asked).await?;
            if !is_redirect(response.status()) || !matches!(request.method, Method::GET | Method::HEAD) {
                return Ok(Answer { response, elsewhere: (!at_host).then_some(url) });
            }
            url = location(&url, response.headers())
                .ok_or_else(|| malformed(request.asked, "redirect to nowhere"))?;
            response::drain(response, self.options.read_timeout).await;
        }
        Err(malformed(request.asked, "too many redirects"))
    }
}

pub(crate) fn malformed(asked: &Asked, problem: &str) -> RegistryError {
    RegistryError::Malformed { asked: Box::new(asked.clone()), problem: problem.into() }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer points, seen from where it came.
pub(crate) fn location(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let url = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// Where blobs were found at the end of redirects, so that the next range of a blob costs one round trip.
#[derive(Debug, Default)]
pub(crate) struct Redirects(Mutex<HashMap<Url, Url>>);

impl Redirects {
    pub(crate) fn get(&self, from: &Url) -> Option<Url> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(from).cloned()
    }

    pub(crate) fn remember(&self, from: Url, url: Url) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(from, url);
    }

    pub(crate) fn forget(&self, from: &Url) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(from);
    }
}
