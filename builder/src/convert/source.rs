//! Reading images.

mod exact;
mod layout;
mod pump;

use std::io::Read;

use oci_spec::image::{Descriptor, MediaType};
use registry::{Client, Reference};
use sha2::{Digest as _, Sha256};

use self::exact::Exact;
pub(super) use self::layout::Layout;
use super::{ConvertError, location::Location};

/// Largest manifest, index or config that is read: they are held in memory.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Where the image comes from.
#[derive(Debug, Clone)]
pub(super) enum ImageSource {
    Registry { client: Client, reference: Reference },
    Layout(Layout),
}

impl ImageSource {
    pub(super) fn open(location: Location, client: &Client) -> Result<Self, ConvertError> {
        Ok(match location {
            Location::Registry(reference) => Self::Registry { client: client.clone(), reference },
            Location::Directory { path, tag } => Self::Layout(Layout::directory(path, tag)?),
            Location::Archive { path, tag } => Self::Layout(Layout::archive(path, tag)?),
        })
    }

    /// The manifest or index that the source names.
    pub(super) async fn root(&self) -> Result<(Descriptor, Vec<u8>), ConvertError> {
        match self {
            Self::Registry { client, reference } => {
                let found =
                    client.manifest(reference).await.map_err(ConvertError::registry("read the source"))?;
                Ok((found.descriptor, found.bytes.to_vec()))
            }
            Self::Layout(layout) => {
                let descriptor = layout.root()?;
                let bytes = self.document(&descriptor).await?;
                Ok((descriptor, bytes))
            }
        }
    }

    /// A manifest, index or config, its digest checked.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ConvertError> {
        let digest = descriptor.digest().to_string();
        if descriptor.size() > MAX_DOCUMENT {
            return Err(ConvertError::image(digest, format!("{} bytes are too many", descriptor.size())));
        }
        let bytes = match self {
            Self::Registry { client, reference } if is_manifest(descriptor.media_type()) => {
                let by_digest = Reference {
                    repository: reference.repository.clone(),
                    tag: None,
                    digest: Some(digest.clone()),
                };
                let found = client.manifest(&by_digest).await;
                found.map_err(ConvertError::registry(format!("read manifest {digest}")))?.bytes.to_vec()
            }
            _ => {
                let reader = self.blob(descriptor)?;
                let what = format!("read {digest}");
                tokio::task::spawn_blocking(move || read_whole(reader))
                    .await
                    .map_err(|_| ConvertError::Stopped)?
                    .map_err(ConvertError::file(what))?
            }
        };
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        match found == digest {
            true => Ok(bytes),
            false => Err(ConvertError::image(digest, format!("its bytes have digest {found}"))),
        }
    }

    /// The bytes of a blob, as many as its descriptor says, to be read by a thread; the caller checks the digest. Called
    /// within the runtime.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, ConvertError> {
        let digest = sha256_hex(descriptor)?;
        let size = descriptor.size();
        let bytes: Box<dyn Read + Send> = match self {
            Self::Registry { client, reference } => {
                let repository = reference.repository.clone();
                Box::new(pump::read(client.clone(), repository, format!("sha256:{digest}"), size))
            }
            Self::Layout(layout) => layout.blob(digest)?,
        };
        Ok(Box::new(Exact::new(bytes, size)))
    }
}

/// Hex digest of a descriptor; the only algorithm that is checked here is SHA-256.
pub(super) fn sha256_hex(descriptor: &Descriptor) -> Result<&str, ConvertError> {
    let digest = descriptor.digest();
    descriptor
        .as_digest_sha256()
        .ok_or_else(|| ConvertError::image(digest.to_string(), "the digest is not sha256"))
}

fn read_whole(mut reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_manifest(media_type: &MediaType) -> bool {
    super::manifest::is_index(media_type) || super::manifest::is_image(media_type)
}
