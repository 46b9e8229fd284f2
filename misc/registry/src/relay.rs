//! For who stands between a caller and a registry: answers of the registry, handed on as they are.

use std::{fmt, sync::Arc};

use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};

use crate::{
    BlobStream, Client, RegistryError, Repository, client::Inner, exchange::Request, hosts::Capability,
    mirror::Endpoint, response,
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
        let (status, headers, limit) =
            (response.status(), response.headers().clone(), self.options.read_timeout);
        let body = stream::unfold(Some((response, asked)), move |going| async move {
            let (mut response, asked) = going?;
            match response::next(&mut response, limit, &asked).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((response, asked)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Relayed { status, headers, body: body.boxed() })
    }
}
