//! Many hosts for one registry: order, fail-over, rest for those that fail, retries.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Url;

use crate::{
    RegistryError,
    client::Inner,
    hosts::{self, Capability, Host},
    transport::Transport,
};

/// How long the files of a registry's hosts are believed.
const HOSTS_AGE: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Longest rest of a host that keeps failing, in first rests.
const LONGEST_REST: u32 = 16;
/// Longest wait that a registry can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(20);

/// Web servers that are remembered; beyond it, all are forgotten and connected anew.
const WEB_SERVERS: usize = 1024;

/// A host and its connections.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) transport: Arc<Transport>,
}

/// The hosts of one registry, and when their files were read.
type Known = (Instant, Arc<[Arc<Endpoint>]>);

/// Hosts of every registry asked for, and which of them are put aside.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    known: Mutex<HashMap<String, Known>>,
    web: Mutex<HashMap<String, Arc<Endpoint>>>,
    resting: Mutex<HashMap<String, Rest>>,
}

/// The rest of a host that failed; kept until it serves again.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
    /// A request tries the host.
    tried: bool,
}

impl Endpoints {
    /// Whether to ask other hosts first. After its rest, one request tries the host while others still go round it.
    fn rests(&self, host: &Host) -> bool {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = resting.get_mut(host.base.as_str()) else { return false };
        let now = Instant::now();
        let rests = now < rest.until;
        if !rests {
            (rest.until, rest.tried) = (now + rest.length, true);
        }
        rests
    }

    /// Tries the host after all others for a while: twice as long each time it fails again. Says whether it is news.
    fn put_aside(&self, host: &Host, first: Duration) -> bool {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let known = resting.get(host.base.as_str()).copied();
        // Requests that were under way together fail together, and count once.
        if known.is_some_and(|rest| !rest.tried) {
            return false;
        }
        let length = known.map_or(first, |rest| rest.length.saturating_mul(2).min(first * LONGEST_REST));
        resting.insert(host.base.to_string(), Rest { until: Instant::now() + length, length, tried: false });
        known.is_none()
    }

    fn welcome_back(&self, host: &Host) {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).remove(host.base.as_str());
    }
}

impl Inner {
    /// The hosts of a registry that may do something, in their configured order.
    pub(crate) fn endpoints(
        &self,
        registry: &str,
        capability: Capability,
    ) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let all = self.all_endpoints(registry)?;
        let able: Vec<_> = all.iter().filter(|endpoint| endpoint.host.may(capability)).cloned().collect();
        match able.is_empty() {
            true => Err(RegistryError::NoHost { registry: registry.into(), capability: capability.name() }),
            false => Ok(able),
        }
    }

    fn all_endpoints(&self, registry: &str) -> Result<Arc<[Arc<Endpoint>]>, RegistryError> {
        let mut known = self.endpoints.known.lock().unwrap_or_else(PoisonError::into_inner);
        let old = known.get(registry).cloned();
        if let Some((_, endpoints)) = old.as_ref().filter(|(read, _)| read.elapsed() < HOSTS_AGE) {
            return Ok(Arc::clone(endpoints));
        }
        let loaded = match (hosts::load(&self.options.hosts_dirs, registry, &self.options.origin), old) {
            (Ok(hosts), _) => hosts
                .into_iter()
                .map(|host| if self.options.anonymous { host.without_proof() } else { host })
                .map(|host| Arc::new(Endpoint { transport: self.transports.of(&host), host }))
                .collect(),
            (Err(error), Some((_, old))) => {
                tracing::warn!(registry, %error, "hosts are kept as they were");
                old
            }
            (Err(error), None) => return Err(error),
        };
        known.insert(registry.into(), (Instant::now(), Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// The web server of a URL: known to no hosts.toml, otherwise like any host.
    pub(crate) fn web_endpoint(&self, url: &Url) -> Result<Arc<Endpoint>, RegistryError> {
        let mut known = self.endpoints.web.lock().unwrap_or_else(PoisonError::into_inner);
        let server = url.origin().ascii_serialization();
        if let Some(endpoint) = known.get(&server) {
            return Ok(Arc::clone(endpoint));
        }
        // Callers name servers: they must not pile up.
        if known.len() >= WEB_SERVERS {
            known.clear();
        }
        let host = Host::web(url, &self.options.origin)?;
        let endpoint = Arc::new(Endpoint { transport: self.transports.of(&host), host });
        known.insert(server, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    /// Does `work` at the first host that can, failing over to the next; in rounds, as long as it may help.
    pub(crate) async fn at_any_host<T, F, W>(
        &self,
        registry: &str,
        capability: Capability,
        work: W,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
        W: Fn(Arc<Endpoint>) -> F,
    {
        self.in_rounds(self.endpoints(registry, capability)?, |_| false, work).await
    }

    /// Does `work` at the one host that is written to.
    pub(crate) async fn at_push_host<T, F, W>(&self, registry: &str, work: W) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
        W: Fn(Arc<Endpoint>) -> F,
    {
        // What is written to one host and asked of another would seem lost.
        let mut endpoints = self.endpoints(registry, Capability::Push)?;
        endpoints.truncate(1);
        self.in_rounds(endpoints, |_| false, work).await
    }

    /// Does `work` at the first of `endpoints` that can; those that `comes_last` are tried after all others.
    pub(crate) async fn in_rounds<T, F, W>(
        &self,
        endpoints: Vec<Arc<Endpoint>>,
        comes_last: impl Fn(&Endpoint) -> bool,
        work: W,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
        W: Fn(Arc<Endpoint>) -> F,
    {
        let mut left: Vec<(usize, Arc<Endpoint>)> = endpoints.into_iter().enumerate().collect();
        let mut round = Round::default();
        for number in 1.. {
            left.sort_by_cached_key(|(place, endpoint)| {
                (comes_last(endpoint), self.endpoints.rests(&endpoint.host), *place)
            });
            for (place, endpoint) in std::mem::take(&mut left) {
                let error = match work(Arc::clone(&endpoint)).await {
                    Ok(done) => {
                        self.endpoints.welcome_back(&endpoint.host);
                        return Ok(done);
                    }
                    Err(error) => error,
                };
                self.judge(&endpoint.host, &error);
                if error.is_retryable() {
                    left.push((place, endpoint));
                }
                round.keep(place, error);
            }
            if left.is_empty() || number >= self.options.attempts {
                break;
            }
            tokio::time::sleep(backoff(number, round.wait.take())).await;
        }
        Err(round.into_error())
    }

    /// Puts a host aside that cannot serve anybody now.
    pub(crate) fn judge(&self, host: &Host, error: &RegistryError) {
        let broken = matches!(error, RegistryError::Malformed { .. } | RegistryError::HttpClient { .. });
        if !error.is_retryable() && !broken {
            return;
        }
        let rest =
            self.options.mirror_rest.max(error.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER));
        if self.endpoints.put_aside(host, rest) {
            let error: &dyn std::error::Error = error;
            tracing::warn!(host = host.name, error, "host fails; others are asked first");
        }
    }
}

/// What went wrong so far.
#[derive(Default)]
struct Round {
    worst: Option<(usize, RegistryError)>,
    wait: Option<Duration>,
}

impl Round {
    /// Keeps the error of the last host in order: the registry itself, which knows best.
    fn keep(&mut self, place: usize, error: RegistryError) {
        self.wait = self.wait.max(error.retry_after());
        if self.worst.as_ref().is_none_or(|(known, _)| place >= *known) {
            self.worst = Some((place, error));
        }
    }

    fn into_error(self) -> RegistryError {
        self.worst.expect("a round has at least one host").1
    }
}

/// The wait after a failed round: doubled each time, with jitter, and at least what the registry asks for.
fn backoff(round: u32, asked_for: Option<Duration>) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << round.min(16)).min(LONGEST_BACKOFF);
    let parts = u32::try_from(RandomState::new().hash_one(round) % 512).unwrap_or(0);
    let jittered = full / 2 + full / 1024 * parts;
    jittered.max(asked_for.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_bounded_with_and_without_the_registrys_wish() {
        for round in 1..40 {
            let full = FIRST_BACKOFF.saturating_mul(1 << round.min(16)).min(LONGEST_BACKOFF);
            let waited = backoff(round, None);
            assert!(waited >= full / 2 && waited <= full, "{round}: {waited:?}");
        }
        assert_eq!(backoff(1, Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert_eq!(backoff(1, Some(Duration::from_secs(9999))), LONGEST_RETRY_AFTER);
    }
}
