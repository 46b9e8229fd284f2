//! Writing images.

mod archive;
mod directory;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryFutureExt};
use oci_spec::image::Descriptor;
use registry::{Client, Reference, RegistryError};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio_util::io::ReaderStream;

use self::{archive::pack, directory::Directory};
use super::{ConvertError, location::Location};

/// Pauses before something is sent again.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];

/// Sends again, from the beginning, what broke on the way.
async fn patiently<T, F: Future<Output = Result<T, RegistryError>>>(
    mut send: impl FnMut() -> F,
) -> Result<T, RegistryError> {
    for pause in PAUSES {
        match send().await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, ?pause, "sending again");
                tokio::time::sleep(pause).await;
            }
            sent => return sent,
        }
    }
    send().await
}

/// Where the image goes.
#[derive(Debug)]
pub(super) enum ImageTarget {
    Registry {
        client: Client,
        reference: Reference,
    },
    Directory(Directory),
    /// Gathered as a directory first, and packed in the end.
    Archive {
        gathered: Directory,
        file: std::path::PathBuf,
    },
}

impl ImageTarget {
    /// `work` is a directory that lives as long as the target, for what is not finished.
    pub(super) fn open(
        location: Location,
        client: &Client,
        work: &std::path::Path,
    ) -> Result<Self, ConvertError> {
        Ok(match location {
            Location::Registry(reference) => Self::Registry { client: client.clone(), reference },
            Location::Directory { path, tag } => Self::Directory(Directory::create(path, tag)?),
            Location::Archive { path, tag } => {
                Self::Archive { gathered: Directory::create(work.join("layout"), tag)?, file: path }
            }
        })
    }

    /// Brings a finished blob to the target; `false` where it was there already.
    pub(super) async fn blob(&self, hex: &str, size: u64, file: TempPath) -> Result<bool, ConvertError> {
        let digest = format!("sha256:{hex}");
        match self {
            Self::Directory(directory) | Self::Archive { gathered: directory, .. } => {
                directory.take(hex, size, file)
            }
            Self::Registry { client, reference } => {
                let failed = |what: &str| ConvertError::registry(format!("{what} blob {digest}"));
                let repository = &reference.repository;
                let there = client.blob_size(repository, &digest).await.map_err(failed("look for"))?;
                if there == Some(size) {
                    return Ok(false);
                }
                let read = || {
                    let open = tokio::fs::File::open(file.to_path_buf());
                    open.map_ok(|file| ReaderStream::with_capacity(file, 256 << 10))
                        .try_flatten_stream()
                        .boxed()
                };
                let push = || client.push_blob(repository, &digest, size, read());
                patiently(push).await.map_err(failed("send"))?;
                Ok(true)
            }
        }
    }

    /// Brings a config or bootstrap layer to the target.
    pub(super) async fn bytes(&self, bytes: Vec<u8>) -> Result<(), ConvertError> {
        let hex = hex::encode(Sha256::digest(&bytes));
        match self {
            Self::Directory(directory) | Self::Archive { gathered: directory, .. } => {
                directory.write(&hex, &bytes)
            }
            Self::Registry { client, reference } => {
                let digest = format!("sha256:{hex}");
                let failed = |what: &str| ConvertError::registry(format!("{what} blob {digest}"));
                let size = bytes.len() as u64;
                if client.blob_size(&reference.repository, &digest).await.map_err(failed("look for"))?
                    == Some(size)
                {
                    return Ok(());
                }
                let bytes = Bytes::from(bytes);
                let read = || futures_util::stream::iter([Ok(bytes.clone())]).boxed();
                let push = || client.push_blob(&reference.repository, &digest, size, read());
                patiently(push).await.map_err(failed("send"))
            }
        }
    }

    /// Brings a manifest or index to the target, not yet tagged.
    pub(super) async fn manifest(&self, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<(), ConvertError> {
        match self {
            Self::Directory(_) | Self::Archive { .. } => self.bytes(bytes).await,
            Self::Registry { client, reference } => {
                let digest = descriptor.digest().to_string();
                let failed = ConvertError::registry(format!("send manifest {digest}"));
                let repository = reference.repository.clone();
                let by_digest = Reference { repository, tag: None, digest: Some(digest) };
                let media_type = descriptor.media_type().to_string();
                let bytes = Bytes::from(bytes);
                let push = || client.push_manifest(&by_digest, &media_type, bytes.clone());
                patiently(push).await.map(drop).map_err(failed)
            }
        }
    }

    /// Tags what was brought: the last step.
    pub(super) async fn tag(&self, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<(), ConvertError> {
        match self {
            Self::Directory(directory) => directory.tag(descriptor).await,
            Self::Archive { gathered, file } => {
                gathered.tag(descriptor).await?;
                pack(gathered.path(), file)
                    .map_err(ConvertError::file(format!("write archive {}", file.display())))
            }
            Self::Registry { client, reference } => {
                let media_type = descriptor.media_type().to_string();
                let bytes = Bytes::from(bytes);
                let push = || client.push_manifest(reference, &media_type, bytes.clone());
                patiently(push).await.map(drop).map_err(ConvertError::registry("send the manifest"))
            }
        }
    }
}
