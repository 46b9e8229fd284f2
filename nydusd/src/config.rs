//! What a mounted image needs to know, from whichever file it came.

mod nydus_json;
mod section;

use std::{fmt, path::PathBuf, time::Duration};

use registry::{Credential, OriginOptions, Repository};
use serde_json::{Value, json};
use storage::ReadPolicy;

pub use nydus_json::parse;
pub use section::ConfigError;

/// Where blobs are cached when the configuration says nothing of it.
pub const DEFAULT_CACHE_DIR: &str = "/var/cache/nydusd";

/// Configuration of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Where its blobs come from.
    pub backend: BackendConfig,
    /// Where its blobs are cached.
    pub cache_dir: PathBuf,
    /// What to fetch ahead of use.
    pub prefetch: PrefetchConfig,
    /// How its reads behave.
    pub policy: ReadPolicy,
}

/// Where blobs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendConfig {
    /// Files of a directory, named by blob id, or one file for all.
    LocalFs(LocalFsConfig),
    /// A repository of an OCI registry.
    Registry(RegistryConfig),
    /// A plain web server: the blob id is added to the URL.
    Http(HttpConfig),
}

/// Blobs in local files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LocalFsConfig {
    /// Directory of blobs.
    Dir(PathBuf),
    /// The one blob.
    File(PathBuf),
}

/// Blobs of a web server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpConfig {
    /// URL of the directory of blobs.
    pub url: String,
    /// How to know it.
    pub origin: OriginOptions,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Longest silence within an answer.
    pub read_timeout: Option<Duration>,
}

/// Blobs of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryConfig {
    /// The repository.
    pub repository: Repository,
    /// How to reach it.
    pub access: RegistryAccess,
    /// Socket of the piece network that is asked first.
    pub p2p_socket: Option<PathBuf>,
}

/// How to reach a registry; images that agree on it share one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RegistryAccess {
    /// Directories of `<host>/hosts.toml`; `None` for the usual ones.
    pub hosts_dirs: Option<Vec<PathBuf>>,
    /// How to prove who we are; `None` for docker's configuration files.
    pub credential: Option<Secret>,
    /// Its scheme, and how to know it.
    pub origin: OriginOptions,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Longest silence within an answer.
    pub read_timeout: Option<Duration>,
    /// Tries of one request on one host, the first included.
    pub attempts: Option<u32>,
}

/// A credential in the configuration's form. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// User and password.
    Basic(String, String),
    /// A ready bearer token.
    Token(String),
}

/// What to fetch ahead of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchConfig {
    /// The image's own list.
    pub table: bool,
    /// Everything, behind the list.
    pub all: bool,
}

impl Secret {
    /// From `base64(user:password)`.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub fn from_basic(text: &str) -> Result<Self, &'static str> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let plain = STANDARD.decode(text.trim()).map_err(|_| "is no base64")?;
        let plain = String::from_utf8(plain).map_err(|_| "is no text in base64")?;
        let (user, password) = plain.split_once(':').ok_or("is no USER:PASSWORD in base64")?;
        Ok(Self::Basic(user.into(), password.into()))
    }

    /// In the registry client's form.
    #[must_use]
    pub fn to_credential(&self) -> Credential {
        match self {
            Self::Basic(user, password) => {
                Credential::Basic { user: user.clone(), password: password.clone() }
            }
            Self::Token(token) => Credential::Bearer(token.clone()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl BackendConfig {
    /// Longest silence of a host, where one is configured.
    pub(crate) const fn read_timeout(&self) -> Option<Duration> {
        match self {
            Self::LocalFs(_) => None,
            Self::Http(config) => config.read_timeout,
            Self::Registry(config) => config.access.read_timeout,
        }
    }

    /// As the API shows it: without secrets.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::LocalFs(LocalFsConfig::Dir(dir)) => json!({ "type": "localfs", "config": { "dir": dir } }),
            Self::LocalFs(LocalFsConfig::File(file)) => {
                json!({ "type": "localfs", "config": { "blob_file": file } })
            }
            Self::Http(config) => json!({ "type": "http-proxy", "config": { "addr": config.url } }),
            Self::Registry(RegistryConfig { repository, .. }) => {
                json!({ "type": "registry", "config": { "host": repository.host, "repo": repository.path } })
            }
        }
    }
}
