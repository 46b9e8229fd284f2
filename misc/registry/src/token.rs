//! Talking to token services.

use std::{net::IpAddr, time::Duration};

use reqwest::Url;
use serde::Deserialize;

use crate::{Credential, RegistryError, error::Asked, hosts::Host, response, transport::Transport};

/// Life of a token whose service does not say, by the specification.
const DEFAULT_LIFETIME: u64 = 60;
/// Longest answer of a token service.
const MAX_ANSWER: usize = 1 << 20;
/// How we call ourselves there.
const CLIENT_ID: &str = "shoal";

/// A token, and how long it lasts.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) lifetime: Duration,
}

/// What is asked of a token service.
pub(crate) struct TokenRequest<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scopes: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A way to token services: the connections of the host that sends us there.
pub(crate) struct Exchange<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) read_timeout: Duration,
}

impl Exchange<'_> {
    /// Gets a token for `host`.
    pub(crate) async fn fetch(
        &self,
        host: &Host,
        request: TokenRequest<'_>,
        credential: Option<&Credential>,
        purpose: &Asked,
    ) -> Result<Token, RegistryError> {
        let refused =
            |problem: String| RegistryError::Unauthorized { asked: Box::new(purpose.clone()), problem };
        let realm = Url::parse(request.realm)
            .ok()
            .filter(|realm| matches!(realm.scheme(), "http" | "https"))
            .ok_or_else(|| refused(format!("its token service {:?} is no URL", request.realm)))?;
        if credential.is_some() && host.base.scheme() == "https" && !is_private(&realm) {
            return Err(refused(format!("its token service {realm} would get the credential unencrypted")));
        }
        let asked = Box::new(Asked {
            host: crate::hosts::authority(&realm),
            object: "token".into(),
            range: None,
            repository: purpose.repository.clone(),
        });
        let client = self.transport.client(&realm)?;
        let http = match credential {
            Some(Credential::Identity(secret)) => refresh(&client, realm, &request, secret),
            Some(Credential::Basic { user, password }) => {
                get(&client, realm, &request, Some(user)).basic_auth(user, Some(password))
            }
            Some(Credential::Bearer(_)) | None => get(&client, realm, &request, None),
        };
        let answer = response::send(http, self.read_timeout, &asked).await?;
        if !answer.status().is_success() {
            return Err(response::refusal(answer, self.read_timeout, asked).await);
        }
        let body = response::body(answer, MAX_ANSWER, self.read_timeout, &asked).await?;
        let malformed =
            |problem: &str| RegistryError::Malformed { asked: asked.clone(), problem: problem.into() };
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| malformed("not a token answer"))?;
        let text = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let text = text.filter(|token| !token.is_empty()).ok_or_else(|| malformed("no token in it"))?;
        let lifetime = answer.expires_in.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_LIFETIME);
        Ok(Token { text, lifetime: Duration::from_secs(lifetime) })
    }
}

/// Whether nobody between us and the service can read along.
fn is_private(realm: &Url) -> bool {
    let host = realm.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    realm.scheme() == "https" || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn get(
    client: &reqwest::Client,
    mut realm: Url,
    request: &TokenRequest<'_>,
    account: Option<&str>,
) -> reqwest::RequestBuilder {
    {
        let mut query = realm.query_pairs_mut();
        if let Some(account) = account {
            query.append_pair("account", account);
        }
        if let Some(service) = request.service {
            query.append_pair("service", service);
        }
        for scope in &request.scopes {
            query.append_pair("scope", scope);
        }
    }
    client.get(realm)
}

/// Docker's OAuth2 form: an identity token is exchanged for an access token.
fn refresh(
    client: &reqwest::Client,
    realm: Url,
    request: &TokenRequest<'_>,
    secret: &str,
) -> reqwest::RequestBuilder {
    let scopes = request.scopes.join(" ");
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT_ID),
        ("scope", &scopes),
        ("refresh_token", secret),
    ];
    form.extend(request.service.map(|service| ("service", service)));
    // Url writes the same encoding as a form.
    let mut encoder = realm.clone();
    encoder.set_query(None);
    encoder.query_pairs_mut().extend_pairs(form);
    let body = encoder.query().unwrap_or_default().to_owned();
    client.post(realm).header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}
