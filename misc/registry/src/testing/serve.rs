//! The registry's requests.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Url;

use super::{
    answer::{bare, content, plain},
    state::{Fault, Guard, Logged, Server, State, digest_of},
};

/// Most that a test pushes at once.
const MAX_PUSH: usize = 1 << 30;

pub(super) async fn answer(
    state: Arc<State>,
    server: Server,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    state.log(logged(server, peer, &request));
    let (parts, body) = request.into_parts();
    // As a proxy, it is asked with whole URLs.
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let url = format!("http://{}{target}", state.address);
    let Ok(url) = Url::parse(&url) else { return plain(StatusCode::BAD_REQUEST, "no target") };
    let call = Call { state: &state, method: parts.method, url, headers: parts.headers };
    match server {
        Server::Store => call.stored().await,
        Server::Registry if call.url.path() == "/token" => call.token(body).await,
        Server::Registry if !call.is_allowed() => call.challenge(),
        Server::Registry => call.registry(body).await,
    }
}

fn logged(server: Server, peer: SocketAddr, request: &Request) -> Logged {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let custom = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
    let mut custom: Vec<_> = custom
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    custom.sort();
    Logged {
        server,
        method: request.method().to_string(),
        target: request.uri().to_string(),
        authorization: header(header::AUTHORIZATION),
        range: header(header::RANGE),
        custom,
        peer,
    }
}

struct Call<'a> {
    state: &'a State,
    method: Method,
    url: Url,
    headers: HeaderMap,
}

impl Call<'_> {
    fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn authorization(&self) -> &str {
        self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn is_allowed(&self) -> bool {
        let given = self.authorization();
        self.state.change(|settings| match &settings.guard {
            Guard::Open => true,
            Guard::Basic(user, password) => given == basic(user, password),
            _ => given.strip_prefix("Bearer ").is_some_and(|token| settings.tokens.contains(token)),
        })
    }

    fn challenge(&self) -> Response {
        let challenge = match self.state.change(|settings| settings.guard.clone()) {
            Guard::Basic(..) => "Basic realm=\"test\"".to_owned(),
            _ => {
                let path = self.url.path().trim_start_matches("/v2/");
                let repository = ["/manifests/", "/blobs/"].iter().find_map(|mark| path.split_once(mark));
                let actions = if matches!(self.method, Method::GET) { "pull" } else { "pull,push" };
                let scope =
                    repository.map_or(String::new(), |(name, _)| format!("repository:{name}:{actions}"));
                let realm = format!("http://{}/token", self.state.address);
                format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"")
            }
        };
        let mut response =
            plain(StatusCode::UNAUTHORIZED, r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().expect("a header"));
        response
    }

    async fn token(&self, body: Body) -> Response {
        let form = to_bytes(body, MAX_PUSH).await.unwrap_or_default();
        let form = String::from_utf8_lossy(&form).into_owned();
        let given = self.authorization();
        let token = self.state.change(|settings| {
            let granted = match &settings.guard {
                Guard::Open | Guard::Anonymous => given.is_empty(),
                Guard::Basic(user, password) | Guard::Token(user, password) => given == basic(user, password),
                Guard::Identity(secret) => {
                    self.method == Method::POST
                        && form.contains("grant_type=refresh_token")
                        && form.contains(&format!("refresh_token={secret}"))
                }
            };
            granted.then(|| settings.issue_token())
        });
        match token {
            Some(token) => plain(StatusCode::OK, format!(r#"{{"token":"{token}","expires_in":300}}"#)),
            None => plain(StatusCode::UNAUTHORIZED, "no token for you"),
        }
    }

    /// A read of the second port, allowed by the signature in its query.
    async fn stored(&self) -> Response {
        let signature = self.query("signature").unwrap_or_default();
        if !self.state.change(|settings| settings.signatures.contains(&signature)) {
            return plain(StatusCode::FORBIDDEN, "expired");
        }
        self.blob(self.url.path().trim_start_matches('/')).await
    }

    async fn registry(&self, body: Body) -> Response {
        let path = self.url.path().trim_start_matches("/v2/").to_owned();
        if let Some((repository, name)) = path.split_once("/manifests/") {
            return match self.method {
                Method::PUT => self.put_manifest(repository, name, body).await,
                _ => self.manifest(repository, name).await,
            };
        }
        if let Some((repository, _)) = path.split_once("/blobs/uploads/") {
            return match self.method {
                Method::PUT => self.finish_upload(body).await,
                _ => self.start_upload(repository),
            };
        }
        match path.split_once("/blobs/") {
            Some((_, digest))
                if self.method == Method::GET && self.state.change(|settings| settings.redirect) =>
            {
                let signature = self.state.change(super::state::Settings::issue_signature);
                let target = format!("http://{}/{digest}?signature={signature}", self.state.store);
                bare(StatusCode::TEMPORARY_REDIRECT, &[("location", target)])
            }
            // A bare id stands for a file of a web server.
            Some((_, id)) if !id.contains(':') => self.blob(&format!("sha256:{id}")).await,
            Some((_, digest)) => self.blob(digest).await,
            None => plain(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    async fn blob(&self, digest: &str) -> Response {
        match self.state.blob(digest) {
            Some(bytes) => self.spoilt(&bytes).await,
            None => {
                plain(StatusCode::NOT_FOUND, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no blob"}]}"#)
            }
        }
    }

    async fn manifest(&self, repository: &str, name: &str) -> Response {
        let Some((media_type, bytes)) = self.state.manifest(repository, name) else {
            return plain(
                StatusCode::NOT_FOUND,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no manifest"}]}"#,
            );
        };
        let mut response = self.spoilt(&bytes).await;
        response.headers_mut().insert(header::CONTENT_TYPE, media_type.parse().expect("a header"));
        response.headers_mut().insert("docker-content-digest", digest_of(&bytes).parse().expect("a header"));
        response
    }

    async fn spoilt(&self, bytes: &Bytes) -> Response {
        let fault = match self.method {
            Method::GET => self.state.next_fault(),
            _ => None,
        };
        match fault {
            Some(Fault::Status(status, retry_after)) => {
                let status = StatusCode::from_u16(status).expect("a status");
                let headers = retry_after.map(|seconds| ("retry-after", seconds.to_string()));
                return bare(status, headers.as_slice());
            }
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        content(&self.headers, bytes, fault.as_ref())
    }

    async fn put_manifest(&self, repository: &str, name: &str, body: Body) -> Response {
        let Ok(bytes) = to_bytes(body, MAX_PUSH).await else {
            return plain(StatusCode::BAD_REQUEST, "short");
        };
        let media_type = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        self.state.put_manifest(repository, name, media_type.unwrap_or_default(), bytes);
        bare(StatusCode::CREATED, &[])
    }

    fn start_upload(&self, repository: &str) -> Response {
        match self.query("mount").filter(|digest| self.state.blob(digest).is_some()) {
            Some(_) => bare(StatusCode::CREATED, &[]),
            None => {
                let location = format!("/v2/{repository}/blobs/uploads/1?state=x");
                bare(StatusCode::ACCEPTED, &[("location", location)])
            }
        }
    }

    async fn finish_upload(&self, body: Body) -> Response {
        if self.state.is_cut() {
            drop(body.into_data_stream().next().await);
            // An unwinding handler takes its connection along; this way of it writes no message.
            std::panic::resume_unwind(Box::new("cut"));
        }
        let Ok(bytes) = to_bytes(body, MAX_PUSH).await else {
            return plain(StatusCode::BAD_REQUEST, "short");
        };
        if self.query("digest") != Some(digest_of(&bytes)) {
            return plain(
                StatusCode::BAD_REQUEST,
                r#"{"errors":[{"code":"DIGEST_INVALID","message":"other"}]}"#,
            );
        }
        self.state.put_blob(bytes);
        bare(StatusCode::CREATED, &[])
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
