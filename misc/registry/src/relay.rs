//! For who stands between a caller and a registry: answers of the registry, handed on as they are.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use reqwest::{Response, Url};

use crate::{
    BlobStream, Client, RegistryError, Repository, client::Inner, error::Asked, exchange::Request,
    hosts::Capability, mirror::Endpoint, response,
};

/// An answer of a registry, good or not.
pub struct Relayed {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, all of them.
    pub headers: HeaderMap,
    /// Its body, unchecked.
    pub body: BlobStream,
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks the registry itself, no mirror, once for `thing` (`blobs/sha256:…`, `manifests/TAG`) of a repository.
    /// `headers` go to the registry as they are; `Authorization` among them not to where it redirects. This client's
    /// own credentials are not used: who asks has the rights that the headers prove.
    ///
    /// # Errors
    /// [`RegistryError`] where there is no answer. A refusal is one.
    pub async fn relay(
        &self,
        method: Method,
        repository: &Repository,
        thing: &str,
        headers: HeaderMap,
    ) -> Result<Relayed, RegistryError> {
        self.inner().relay(method, repository, thing, headers).await
    }

    /// Whether `url` is where this client finds `thing` of a repository at the registry itself.
    #[must_use]
    pub fn finds_at(&self, url: &str, repository: &Repository, thing: &str) -> bool {
        let (Ok(url), Ok(origins)) = (Url::parse(url), self.inner().origins(&repository.host)) else {
            return false;
        };
        origins.first().is_some_and(|endpoint| endpoint.url(repository, thing) == url)
    }
}

impl Relayed {
    /// What has come of an answer, and what will; silence ends after `limit`.
    pub(crate) fn new(response: Response, limit: Duration, asked: Asked) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = stream::unfold(Some((response, asked)), move |going| async move {
            let (mut response, asked) = going?;
            match response::next(&mut response, limit, &asked).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((response, asked)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Self { status, headers, body: body.boxed() }
    }
}

impl Inner {
    /// The hosts that are the registry itself.
    pub(crate) fn origins(&self, registry: &str) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let mut endpoints = self.endpoints(registry, Capability::Pull)?;
        endpoints.retain(|endpoint| endpoint.host.is_origin);
        match endpoints.is_empty() {
            true => Err(RegistryError::NoHost { registry: registry.into(), capability: "answer for it" }),
            false => Ok(endpoints),
        }
    }

    async fn relay(
        &self,
        method: Method,
        repository: &Repository,
        thing: &str,
        mut headers: HeaderMap,
    ) -> Result<Relayed, RegistryError> {
        let endpoint = self.origins(&repository.host)?.swap_remove(0);
        let authorization = headers.remove(AUTHORIZATION);
        let asked = endpoint.asked(repository, thing.to_owned());
        let url = endpoint.url(repository, thing);
        let request = Request { method, url, headers, body: None, scopes: &[], asked: &asked };
        let response = self.follow(&endpoint, &request, authorization.as_ref()).await?.response;
        Ok(Relayed::new(response, self.options.read_timeout, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientOptions;

    #[test]
    fn a_url_is_a_registry_s_where_the_client_would_ask_at_that_very_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("plain.example:5000");
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("hosts.toml"), "server = 'http://plain.example:5000'").unwrap();
        let options = ClientOptions { hosts_dirs: vec![dir.path().into()], ..ClientOptions::default() };
        let client = Client::new(options).unwrap();
        let finds = |repository: &str, url: &str| {
            client.finds_at(url, &Repository::parse(repository).unwrap(), "blobs/sha256:0")
        };
        assert!(finds("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/blobs/sha256:0"));
        assert!(finds("plain.example:5000/a", "http://plain.example:5000/v2/a/blobs/sha256:0"));
        assert!(finds("tls.example/a", "https://tls.example/v2/a/blobs/sha256:0"));
        for url in [
            "http://tls.example/v2/a/blobs/sha256:0",
            "https://tls.example/v2/b/blobs/sha256:0",
            "https://tls.example/v2/a/blobs/sha256:0?x",
            "https://me@tls.example/v2/a/blobs/sha256:0",
            "tls.example",
        ] {
            assert!(!finds("tls.example/a", url), "{url}");
        }
    }
}
