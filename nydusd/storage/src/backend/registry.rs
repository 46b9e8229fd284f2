//! Blobs of an image in a registry.

use std::{ops::Range, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use rafs::BlobId;
use registry::{BlobStream, Client, RegistryError, Repository};

use super::{Backend, BackendError, ByteStream, Priority, Via};

/// A repository of a registry: blob `<id>` is `sha256:<id>` there.
#[derive(Debug)]
pub struct RegistryBackend {
    client: Client,
    repository: Repository,
}

impl RegistryBackend {
    /// Blobs of `repository`. The client brings mirrors, credentials and retries.
    #[must_use]
    pub fn new(client: Client, repository: Repository) -> Self {
        Self { client, repository }
    }
}

impl Backend for RegistryBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        _priority: Priority,
        _via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            let digest = format!("sha256:{blob}");
            let opened = self.client.blob(&self.repository, &digest, Some(range.clone())).await;
            name_errors(opened, self.name(), blob, range)
        }
        .boxed()
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        self.client.distrust(&self.repository, &format!("sha256:{blob}"), &range)
    }

    fn name(&self) -> String {
        format!("registry {}", self.repository)
    }
}

/// Makes a client's stream a backend's.
pub(super) fn name_errors(
    opened: Result<BlobStream, RegistryError>,
    backend: String,
    blob: BlobId,
    range: Range<u64>,
) -> Result<ByteStream, BackendError> {
    let named = move |source: RegistryError| BackendError {
        backend: backend.clone(),
        blob: blob.clone(),
        range: range.clone(),
        retryable: source.is_retryable(),
        source: Box::new(source),
    };
    match opened {
        Ok(stream) => Ok(stream.map(move |bytes| bytes.map_err(&named)).boxed()),
        Err(source) => Err(named(source)),
    }
}
