//! For who stands between a caller and any server of plain HTTP: requests and answers, handed on as they are.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::{HeaderMap, Method};
use reqwest::{Body, RequestBuilder, Response, Url};
use tokio::time::timeout;

use crate::{
    ClientOptions, RegistryError, Relayed,
    error::Asked,
    guard,
    hosts::authority,
    transport::{TlsSettings, Transport},
};

/// Hands requests on. It proves nothing to anybody, follows nothing and tries nothing twice: that is the caller's. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Forward {
    transport: Arc<Transport>,
    guarded: bool,
    silence: Duration,
}

impl Forward {
    /// Reaches servers as a client of these options does: its guard and its deadlines.
    #[must_use]
    pub fn new(options: &ClientOptions) -> Self {
        let ClientOptions { connect_timeout, guarded, read_timeout: silence, .. } = *options;
        let transport = Transport::new(TlsSettings::default(), connect_timeout, guarded);
        Self { transport: Arc::new(transport), guarded, silence }
    }

    /// Addresses of a host that may be talked to, for who makes the connection itself.
    ///
    /// # Errors
    /// `PermissionDenied` where it is at none that may be; else what the resolver says.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        guard::addresses(host, port, self.guarded).await
    }

    /// Hands a request for an `http` URL on, its body as it comes.
    ///
    /// # Errors
    /// [`RegistryError`] where there is no answer. A refusal is one.
    pub async fn send<S, E>(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Option<S>,
    ) -> Result<Relayed, RegistryError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let Some(url) = Url::parse(url).ok().filter(|url| url.scheme() == "http" && url.has_host()) else {
            // What follows may be a secret.
            let text = url.split(['?', '@']).next().unwrap_or_default().into();
            return Err(RegistryError::MalformedUrl { text });
        };
        let (host, repository) = (authority(&url), url.path().to_owned());
        let asked = Asked { host, repository, object: method.to_string(), range: None };
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = self.transport.client(&url)?.request(method, url).headers(headers);
        if let Some(body) = body {
            let sent = Arc::clone(&sent);
            let counted = body.inspect_ok(move |_| {
                sent.fetch_add(1, Ordering::Relaxed);
            });
            request = request.body(Body::wrap_stream(counted));
        }
        let response = self.answered(request, &sent, &asked).await?;
        Ok(Relayed::new(response, self.silence, asked))
    }

    /// Waits for the head of an answer, as long as the request is still on its way to the server.
    async fn answered(
        &self,
        request: RequestBuilder,
        sent: &AtomicU64,
        asked: &Asked,
    ) -> Result<Response, RegistryError> {
        let mut answer = pin!(request.send());
        loop {
            let before = sent.load(Ordering::Relaxed);
            match timeout(self.silence, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(source)) => return Err(failed(source, asked)),
                Err(_) if sent.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    return Err(RegistryError::Timeout {
                        asked: Box::new(asked.clone()),
                        after: self.silence,
                    });
                }
            }
        }
    }
}

/// The guard speaks through the resolver: its refusal is found among the causes.
fn failed(source: reqwest::Error, asked: &Asked) -> RegistryError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        let said = error.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_none());
        if said.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return RegistryError::ForbiddenAddress { host: asked.host.clone() };
        }
        cause = error.source();
    }
    RegistryError::Connection { asked: Box::new(asked.clone()), source: source.without_url() }
}
