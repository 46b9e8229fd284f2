//! HTTP clients: one pool of connections per TLS setting.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use reqwest::{Certificate, Identity, Url, redirect::Policy};

use crate::{
    RegistryError,
    guard::{self, Guarded},
    hosts::{Host, authority, is_loopback},
};

/// Idle connections kept per host: as many as a mount has requests under way.
const IDLE_CONNECTIONS: usize = 16;
/// Below the 60 s after which common proxies and load balancers drop idle connections.
const IDLE_TIME: Duration = Duration::from_secs(55);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Flow control windows of HTTP/2; its default of 64 KiB holds one round trip's worth of a slow link only.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How to know a host and be known by it. Holds what the files said, so that a changed file makes new connections.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    /// Authorities in PEM, besides the system's.
    pub(crate) ca: Vec<Vec<u8>>,
    /// Client certificate and key in PEM.
    pub(crate) client: Option<Vec<u8>>,
    pub(crate) skip_verify: bool,
    /// Time to connect instead of the client's.
    pub(crate) dial_timeout: Option<Duration>,
}

impl TlsSettings {
    /// Whether nothing was configured about certificates.
    pub(crate) fn trusts_system(&self) -> bool {
        self.ca.is_empty() && self.client.is_none() && !self.skip_verify
    }
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("ca", &self.ca.len())
            .field("client", &self.client.is_some())
            .field("skip_verify", &self.skip_verify)
            .field("dial_timeout", &self.dial_timeout)
            .finish()
    }
}

/// Makes *ring* the process's TLS cryptography, where nothing was chosen before. Must come before any `reqwest` client.
pub fn install_crypto_provider() {
    // An error says that one is installed, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// All connection pools of a client.
#[derive(Debug)]
pub(crate) struct Transports {
    connect_timeout: Duration,
    guarded: bool,
    by_settings: Mutex<HashMap<TlsSettings, Weak<Transport>>>,
}

impl Transports {
    pub(crate) fn new(connect_timeout: Duration, guarded: bool) -> Self {
        Self { connect_timeout, guarded, by_settings: Mutex::default() }
    }

    /// The transport for a host; hosts of the same settings share it.
    pub(crate) fn of(&self, host: &Host) -> Arc<Transport> {
        let mut known = self.by_settings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = known.get(&host.tls).and_then(Weak::upgrade) {
            return transport;
        }
        known.retain(|_, transport| transport.strong_count() > 0);
        let transport = Arc::new(Transport::new(host.tls.clone(), self.connect_timeout, self.guarded));
        known.insert(host.tls.clone(), Arc::downgrade(&transport));
        transport
    }
}

/// Connections of one TLS setting.
#[derive(Debug)]
pub(crate) struct Transport {
    settings: TlsSettings,
    connect_timeout: Duration,
    guarded: bool,
    clients: Mutex<HashMap<Lane, reqwest::Client>>,
}

/// What differs between clients of one setting. The system's authorities are megabytes that plain HTTP never needs,
/// and proxies are not for this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lane {
    secure: bool,
    local: bool,
}

impl Transport {
    pub(crate) fn new(settings: TlsSettings, connect_timeout: Duration, guarded: bool) -> Self {
        install_crypto_provider();
        let connect_timeout = settings.dial_timeout.unwrap_or(connect_timeout);
        Self { settings, connect_timeout, guarded, clients: Mutex::default() }
    }

    /// The client for a URL.
    pub(crate) fn client(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        if self.guarded && guard::names_forbidden(url) {
            return Err(RegistryError::ForbiddenAddress { host: authority(url) });
        }
        let lane = Lane { secure: url.scheme() == "https", local: is_loopback(&authority(url)) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&lane) {
            return Ok(client.clone());
        }
        let client =
            self.build(lane).map_err(|source| RegistryError::HttpClient { host: authority(url), source })?;
        clients.insert(lane, client.clone());
        Ok(client)
    }

    fn build(&self, lane: Lane) -> Result<reqwest::Client, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW);
        if self.guarded {
            builder = builder.dns_resolver(Arc::new(Guarded));
        }
        if lane.local {
            builder = builder.no_proxy();
        }
        if !lane.secure {
            return builder.tls_certs_only([]).build();
        }
        let mut authorities = Vec::new();
        for pem in &self.settings.ca {
            authorities.extend(Certificate::from_pem_bundle(pem)?);
        }
        builder =
            builder.tls_certs_merge(authorities).tls_danger_accept_invalid_certs(self.settings.skip_verify);
        if let Some(pem) = &self.settings.client {
            builder = builder.identity(Identity::from_pem(pem)?);
        }
        builder.build()
    }
}
