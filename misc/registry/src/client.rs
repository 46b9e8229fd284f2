//! The client.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{
    BlobStream, Credential, Manifest, Reference, RegistryError, Repository, Rest, auth::Auth,
    distrust::Distrust, exchange::Redirects, mirror::Endpoints, transport::Transports,
};

/// How a client reaches registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Directories of `<host>/hosts.toml`, first match wins. Default `/etc/containerd/certs.d`, `/etc/docker/certs.d`.
    pub hosts_dirs: Vec<PathBuf>,
    /// Docker configuration directory for credentials; default `$DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Credential to use instead, whatever repository is asked for. Mirrors do not get it.
    pub credential: Option<Credential>,
    /// Proves nothing to anybody: no credential, no header and no certificate of `hosts.toml`. Tokens for everybody are
    /// asked for.
    pub anonymous: bool,
    /// Refuses to talk to link-local addresses and those at which clouds tell a machine its secrets, whoever names them:
    /// for a process that fetches what others name.
    pub guarded: bool,
    /// What is known of the registry, or web server, itself besides what `hosts.toml` says. Mirrors are not touched.
    pub origin: OriginOptions,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence within an answer.
    pub read_timeout: Duration,
    /// Tries of one request on one host, the first included.
    pub attempts: u32,
    /// How long a host that failed is tried after all others.
    pub mirror_rest: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            hosts_dirs: vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()],
            docker_config: None,
            credential: None,
            anonymous: false,
            guarded: false,
            origin: OriginOptions::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            attempts: 4,
            mirror_rest: Duration::from_secs(30),
        }
    }
}

/// How a registry, or web server, itself is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OriginOptions {
    /// Its scheme, where no `hosts.toml` names its address.
    pub scheme: Option<Scheme>,
    /// Whether its certificate is not checked.
    pub skip_verify: bool,
    /// Files of authorities in PEM, besides the system's and those of `hosts.toml`.
    pub ca: Vec<PathBuf>,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A registry client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) transports: Arc<Transports>,
    pub(crate) endpoints: Endpoints,
    pub(crate) auth: Auth,
    pub(crate) redirects: Redirects,
    pub(crate) distrust: Distrust,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// [`RegistryError`] where TLS cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Self, RegistryError> {
        let transports = Arc::new(Transports::new(options.connect_timeout, options.guarded));
        Ok(Self::over(transports, options))
    }

    /// A client for somebody else: over the same connections, with this credential instead of any other, and with tokens
    /// and redirects of its own. It forgets them when it is dropped.
    #[must_use]
    pub fn with_credential(&self, credential: Credential) -> Self {
        let options = ClientOptions { credential: Some(credential), ..self.inner.options.clone() };
        Self::over(Arc::clone(&self.inner.transports), options)
    }

    pub(crate) const fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    fn over(transports: Arc<Transports>, options: ClientOptions) -> Self {
        let inner = Inner {
            transports,
            endpoints: Endpoints::default(),
            auth: Auth::new(&options),
            redirects: Redirects::default(),
            distrust: Distrust::default(),
            options,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Fetches a manifest or index and checks its digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, image: &Reference) -> Result<Manifest, RegistryError> {
        self.inner.manifest(image).await
    }

    /// Streams a blob, or a range of it. Lengths and status are checked; the digest is the caller's to check.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &str,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        self.inner.blob(repository, digest, range).await
    }

    /// Bytes of a blob that were streamed have turned out not to be its own: mirrors that gave some of `range` are left
    /// for other hosts, for this blob and a while. Says whether the blob comes from elsewhere now.
    pub fn distrust(&self, repository: &Repository, digest: &str, range: &Range<u64>) -> bool {
        // Where the hosts cannot be told any more, nothing can be read either.
        self.inner.distrust(repository, digest, range).unwrap_or(false)
    }

    /// Streams a file of a plain web server, or a range of it, as [`Self::blob`] does.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn file(&self, url: &str, range: Option<Range<u64>>) -> Result<BlobStream, RegistryError> {
        self.inner.file(url, range).await
    }

    /// Streams a file of a plain web server from its byte `from` on. A server that gives no ranges, or another one than was
    /// asked for, or whose file ends before that, gives the whole: [`Rest::start`] says so.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn rest_of_file(&self, url: &str, from: u64) -> Result<Rest, RegistryError> {
        self.inner.rest_of_file(url, from).await
    }

    /// Whether the registry has a blob, and its size in bytes. Asks the host that pushes go to: that a mirror has a
    /// blob does not say that it need not be sent.
    ///
    /// # Errors
    /// [`RegistryError`] for any answer but yes and no.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<Option<u64>, RegistryError> {
        self.inner.blob_size(repository, digest).await
    }

    /// Size in bytes of a blob that the registry itself, no mirror, lets this client read; `None` where it says that there
    /// is none.
    ///
    /// # Errors
    /// [`RegistryError`] for any other answer, [`RegistryError::is_unauthorized`] for a refusal.
    pub async fn readable_size(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<Option<u64>, RegistryError> {
        self.inner.size_at_origin(repository, digest).await
    }

    /// Makes a blob of another repository of the same registry known in `to`; `false` where the registry wants it sent.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn mount_blob(
        &self,
        to: &Repository,
        digest: &str,
        from: &Repository,
    ) -> Result<bool, RegistryError> {
        self.inner.mount_blob(to, digest, from).await
    }

    /// Sends a blob from a stream of known length and digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: &str,
        size: u64,
        bytes: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), RegistryError> {
        self.inner.push_blob(repository, digest, size, bytes).await
    }

    /// Sends a manifest or index under the reference's tag (or digest, where it has no tag).
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_manifest(
        &self,
        image: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        self.inner.push_manifest(image, media_type, bytes).await
    }
}
