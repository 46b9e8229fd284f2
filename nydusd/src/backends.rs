//! From configurations to backends, and clients that images share.

mod observed;
mod swap;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use registry::{Client, ClientOptions};
use storage::{
    CacheDir, StorageError,
    backend::{
        Backend, http::HttpBackend, localfs::LocalFsBackend, p2p::P2pBackend, registry::RegistryBackend,
    },
};

pub use observed::BackendCounters;
pub use swap::SwapBackend;

use crate::config::{BackendConfig, LocalFsConfig, RegistryAccess, RegistryConfig, Secret};

/// Longest silence of a host whose configuration does not say: short enough that a read can go on at two others within
/// its deadline, and shorter than storage's own patience, so that the host is known to be the silent one.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A backend that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the client for {host} cannot be made")]
pub struct BackendUnusable {
    host: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Clients and cache directories in use, so that images share them.
#[derive(Debug, Default)]
pub struct Backends {
    clients: Mutex<HashMap<RegistryAccess, Client>>,
    caches: Mutex<HashMap<PathBuf, Weak<CacheDir>>>,
}

impl Backends {
    /// The backend of a configuration, for the image whose bootstrap is `source`.
    ///
    /// # Errors
    /// [`BackendUnusable`].
    pub fn open(&self, config: &BackendConfig, source: &Path) -> Result<Arc<SwapBackend>, BackendUnusable> {
        Ok(SwapBackend::new(self.make(config, source)?))
    }

    /// The same backend with another credential.
    ///
    /// # Errors
    /// [`BackendUnusable`].
    pub fn with_secret(
        &self,
        config: &RegistryConfig,
        source: &Path,
        secret: Secret,
    ) -> Result<Arc<dyn Backend>, BackendUnusable> {
        let mut config = config.clone();
        config.access.credential = Some(secret);
        self.make(&BackendConfig::Registry(config), source)
    }

    /// The cache directory at `path`.
    ///
    /// # Errors
    /// [`StorageError::Cache`].
    pub fn cache(&self, path: &Path) -> Result<Arc<CacheDir>, StorageError> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.get(path).and_then(Weak::upgrade) {
            return Ok(cache);
        }
        let cache = CacheDir::open(path)?;
        caches.insert(path.to_owned(), Arc::downgrade(&cache));
        Ok(cache)
    }

    fn make(&self, config: &BackendConfig, source: &Path) -> Result<Arc<dyn Backend>, BackendUnusable> {
        match config {
            BackendConfig::LocalFs(LocalFsConfig::Dir(dir)) => Ok(Arc::new(LocalFsBackend::in_dir(dir))),
            BackendConfig::LocalFs(LocalFsConfig::File(file)) => Ok(Arc::new(LocalFsBackend::of_file(file))),
            BackendConfig::Http(http) => {
                let access = RegistryAccess {
                    origin: http.origin.clone(),
                    connect_timeout: http.connect_timeout,
                    read_timeout: http.read_timeout,
                    ..RegistryAccess::default()
                };
                Ok(Arc::new(HttpBackend::new(self.client(&access, &http.url)?, &http.url)))
            }
            BackendConfig::Registry(RegistryConfig { repository, access, p2p_socket }) => {
                let client = self.client(access, &repository.host)?;
                let registry = Arc::new(RegistryBackend::new(client, repository.clone()));
                let Some(socket) = p2p_socket else { return Ok(registry) };
                let credential = access.credential.as_ref().map(Secret::to_credential);
                let name = repository.to_string();
                let p2p = P2pBackend::new(socket, &name, source, credential.as_ref(), registry);
                Ok(Arc::new(p2p.map_err(|source| BackendUnusable {
                    host: socket.display().to_string(),
                    source: source.into(),
                })?))
            }
        }
    }

    /// A client for `host`, the one that others with the same access use.
    fn client(&self, access: &RegistryAccess, host: &str) -> Result<Client, BackendUnusable> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(access) {
            return Ok(client.clone());
        }
        let client = Client::new(options(access))
            .map_err(|source| BackendUnusable { host: host.to_owned(), source: source.into() })?;
        // Credentials change over a daemon's life; clients that nobody uses any more must not pile up.
        if clients.len() >= 256 {
            clients.clear();
        }
        clients.insert(access.clone(), client.clone());
        Ok(client)
    }
}

fn options(access: &RegistryAccess) -> ClientOptions {
    let default = ClientOptions::default();
    ClientOptions {
        hosts_dirs: access.hosts_dirs.clone().unwrap_or(default.hosts_dirs),
        credential: access.credential.as_ref().map(Secret::to_credential),
        origin: access.origin.clone(),
        connect_timeout: access.connect_timeout.unwrap_or(default.connect_timeout),
        read_timeout: access.read_timeout.unwrap_or(READ_TIMEOUT),
        attempts: access.attempts.unwrap_or(default.attempts),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_host_is_noticed_by_the_client_before_storage_gives_the_request_up() {
        let (client, policy) = (options(&RegistryAccess::default()), storage::ReadPolicy::default());
        assert!(client.read_timeout < policy.stall, "{:?} {:?}", client.read_timeout, policy.stall);
        assert!(client.read_timeout * 2 < policy.deadline);
    }
}
