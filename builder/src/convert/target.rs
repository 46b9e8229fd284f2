//! Writing images.

mod archive;
mod directory;

use bytes::Bytes;
use futures_util::StreamExt;
use oci_spec::image::Descriptor;
use registry::{Client, Reference};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;

use self::{archive::pack, directory::Directory};
use super::{ConvertError, location::Location};

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
                let open = tokio::fs::File::open(&file).await;
                let open = open.map_err(ConvertError::file(format!("open finished blob {digest}")))?;
                let stream = tokio_util::io::ReaderStream::with_capacity(open, 256 << 10).boxed();
                client.push_blob(repository, &digest, size, stream).await.map_err(failed("send"))?;
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
                let stream = futures_util::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
                client.push_blob(&reference.repository, &digest, size, stream).await.map_err(failed("send"))
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
                client.push_manifest(&by_digest, &media_type, bytes.into()).await.map(drop).map_err(failed)
            }
        }
    }

    /// Tags what was brought: the last step.
    pub(super) async fn tag(&self, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<(), ConvertError> {
        match self {
            Self::Directory(directory) => directory.tag(descriptor),
            Self::Archive { gathered, file } => {
                gathered.tag(descriptor)?;
                pack(gathered.path(), file)
                    .map_err(ConvertError::file(format!("write archive {}", file.display())))
            }
            Self::Registry { client, reference } => {
                let media_type = descriptor.media_type().to_string();
                let sent = client.push_manifest(reference, &media_type, bytes.into()).await;
                sent.map(drop).map_err(ConvertError::registry("send the manifest"))
            }
        }
    }
}
