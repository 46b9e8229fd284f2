//! The client.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use oci_spec::image::Descriptor;

use crate::{Reference, RegistryError, Repository};

/// How a client reaches registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Directories of `<host>/hosts.toml`, first match wins. Default `/etc/containerd/certs.d`, `/etc/docker/certs.d`.
    pub hosts_dirs: Vec<PathBuf>,
    /// Docker configuration directory for credentials; default `$DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Credential to use instead for every repository asked for.
    pub credential: Option<Credential>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence within an answer.
    pub read_timeout: Duration,
    /// Tries of one request on one host, the first included.
    pub attempts: u32,
}

/// How to prove who we are. `Debug` does not show it.
#[derive(Clone)]
pub enum Credential {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token for the token service (docker's `identitytoken`).
    Identity(String),
    /// A ready bearer token for the registry itself.
    Bearer(String),
}

/// A manifest or index as the registry gave it, its digest checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Bytes,
}

/// Bytes of a blob as they come; a short body is an error at its end.
pub type BlobStream = BoxStream<'static, Result<Bytes, RegistryError>>;

/// A registry client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<ClientOptions>,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// [`RegistryError`] where TLS cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Self, RegistryError> {
        Ok(Self { inner: Arc::new(options) })
    }

    /// Fetches a manifest or index and checks its digest.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn manifest(&self, image: &Reference) -> Result<Manifest, RegistryError> {
        let _ = (image, &self.inner);
        todo!()
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
        let _ = (repository, digest, range);
        todo!()
    }

    /// Whether the registry has a blob, and its size in bytes.
    ///
    /// # Errors
    /// [`RegistryError`] for any answer but yes and no.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &str,
    ) -> Result<Option<u64>, RegistryError> {
        let _ = (repository, digest);
        todo!()
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
        let _ = (to, digest, from);
        todo!()
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
        let _ = (repository, digest, size, bytes);
        todo!()
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
        let _ = (image, media_type, bytes);
        todo!()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(hidden)")
    }
}
