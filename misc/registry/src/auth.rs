//! Proving who we are: answers to challenges, tokens and their age.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::{
    ClientOptions, Credential, RegistryError, challenge::Challenge, credentials, error::Asked, hosts::Host,
    token,
};

/// Grants kept; beyond it, all are forgotten and asked for again.
const MAX_GRANTS: usize = 4096;

/// Grants of all hosts and scopes.
#[derive(Debug)]
pub(crate) struct Auth {
    docker_config: Option<PathBuf>,
    credential: Option<Credential>,
    anonymous: bool,
    grants: Mutex<HashMap<GrantKey, Arc<Slot>>>,
}

type GrantKey = (String, String);

/// One fetch of a token at a time; all others wait for its result.
type Slot = tokio::sync::Mutex<Grant>;

#[derive(Debug, Default)]
struct Grant {
    header: Option<HeaderValue>,
    challenge: Option<Challenge>,
    expires: Option<Instant>,
    failure: Option<(Instant, Arc<RegistryError>)>,
}

/// What a request is to be allowed, and for the sake of what it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The first is the repository's own, others are added to what the registry asks for.
    pub(crate) scopes: &'a [String],
    pub(crate) asked: &'a Asked,
}

impl Auth {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self {
            docker_config: options.docker_config.clone(),
            credential: options.credential.clone(),
            anonymous: options.anonymous,
            grants: Mutex::default(),
        }
    }

    /// What to send with a first request: what was granted before, renewed where it is too old.
    pub(crate) async fn header(
        &self,
        host: &Host,
        wanted: Wanted<'_>,
        exchange: &token::Exchange<'_>,
    ) -> Option<HeaderValue> {
        let slot = self.known_slot(host, wanted.scopes)?;
        let mut grant = slot.lock().await;
        let fresh = grant.expires.is_none_or(|expires| Instant::now() < expires);
        let challenge = match (&grant.challenge, fresh) {
            (Some(challenge), false) => challenge.clone(),
            _ => return grant.header.clone(),
        };
        // Where this fails, the registry's 401 leads to the same place, and its error is reported.
        *grant = match self.answer_challenge(host, wanted, exchange, &challenge).await {
            Ok((header, expires)) => {
                Grant { header: Some(header), challenge: Some(challenge), expires, failure: None }
            }
            Err(_) => Grant::default(),
        };
        grant.header.clone()
    }

    /// Answers a 401. `sent` is what the refused request carried.
    pub(crate) async fn challenged(
        &self,
        host: &Host,
        wanted: Wanted<'_>,
        exchange: &token::Exchange<'_>,
        (challenge, sent): (Challenge, Option<&HeaderValue>),
    ) -> Result<HeaderValue, RegistryError> {
        let asked_at = Instant::now();
        let slot = self.slot(host, wanted.scopes);
        let mut grant = slot.lock().await;
        if let Some(header) = grant.header.as_ref().filter(|header| Some(*header) != sent) {
            return Ok(header.clone());
        }
        if let Some((_, failure)) = grant.failure.as_ref().filter(|(at, _)| *at > asked_at) {
            return Err(RegistryError::Token {
                asked: Box::new(wanted.asked.clone()),
                source: failure.clone(),
            });
        }
        match self.answer_challenge(host, wanted, exchange, &challenge).await {
            Ok((header, expires)) => {
                *grant = Grant {
                    header: Some(header.clone()),
                    challenge: Some(challenge),
                    expires,
                    failure: None,
                };
                Ok(header)
            }
            Err(error) => {
                let failure = Arc::new(error);
                *grant = Grant { failure: Some((Instant::now(), failure.clone())), ..Grant::default() };
                Err(RegistryError::Token { asked: Box::new(wanted.asked.clone()), source: failure })
            }
        }
    }

    async fn answer_challenge(
        &self,
        host: &Host,
        wanted: Wanted<'_>,
        exchange: &token::Exchange<'_>,
        challenge: &Challenge,
    ) -> Result<(HeaderValue, Option<Instant>), RegistryError> {
        let credential = self.credential(host).await?;
        let refused = |problem: &str| RegistryError::Unauthorized {
            asked: Box::new(wanted.asked.clone()),
            problem: problem.into(),
        };
        let (header, lifetime) = match (challenge, credential) {
            (_, Some(credential @ Credential::Bearer(_)))
            | (Challenge::Basic, Some(credential @ Credential::Basic { .. })) => {
                let header = credential.to_authorization();
                return Ok((header.ok_or_else(|| refused("the credential is no header value"))?, None));
            }
            (Challenge::Basic, Some(Credential::Identity(_))) => {
                return Err(refused("it wants a password, and only an identity token is known"));
            }
            (Challenge::Basic, None) => return Err(refused("no credential is known")),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let request = token::TokenRequest {
                    realm,
                    service: service.as_deref(),
                    scopes: token_scopes(scope.as_deref(), wanted.scopes),
                };
                let token = exchange.fetch(host, request, credential.as_ref(), wanted.asked).await?;
                (Credential::Bearer(token.text), Some(token.lifetime))
            }
        };
        let header = header.to_authorization().ok_or_else(|| refused("the token is no header value"))?;
        // Renewed a little early, so that no request is refused on its way.
        let lifetime = lifetime.map(|lifetime: Duration| lifetime.mul_f64(0.9));
        Ok((header, lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime))))
    }

    /// The caller's credential is for the registry that they named; a mirror never sees it.
    async fn credential(&self, host: &Host) -> Result<Option<Credential>, RegistryError> {
        match &self.credential {
            _ if self.anonymous => Ok(None),
            Some(credential) if host.is_origin => Ok(Some(credential.clone())),
            _ => credentials::find(self.docker_config.as_deref(), &host.name).await,
        }
    }

    fn known_slot(&self, host: &Host, scopes: &[String]) -> Option<Arc<Slot>> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.get(&grant_key(host, scopes)).cloned()
    }

    fn slot(&self, host: &Host, scopes: &[String]) -> Arc<Slot> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= MAX_GRANTS {
            grants.clear();
        }
        grants.entry(grant_key(host, scopes)).or_default().clone()
    }
}

fn grant_key(host: &Host, scopes: &[String]) -> GrantKey {
    (host.base.to_string(), scopes.join(" "))
}

/// A mirror may name repositories in its own way, so its own words win over ours.
fn token_scopes(challenged: Option<&str>, ours: &[String]) -> Vec<String> {
    let Some(challenged) = challenged.filter(|scope| !scope.is_empty()) else { return ours.to_vec() };
    let mut scopes: Vec<String> =
        challenged.split(' ').filter(|scope| !scope.is_empty()).map(Into::into).collect();
    for extra in ours.iter().skip(1) {
        if !scopes.contains(extra) {
            scopes.push(extra.clone());
        }
    }
    scopes
}
