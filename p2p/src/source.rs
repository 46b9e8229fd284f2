//! Registries as origins.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use registry::{Client, Repository};

use crate::{
    Priority,
    engine::{Origin, OriginError},
};

/// Longest time for one piece.
const DEADLINE: Duration = Duration::from_secs(60);

/// A blob in a repository of a registry. The client brings mirrors, credentials and retries.
#[derive(Debug)]
pub struct RegistryOrigin {
    client: Client,
    repository: Repository,
    digest: String,
}

impl RegistryOrigin {
    /// The blob `digest` (`sha256:…`) of `repository`.
    #[must_use]
    pub const fn new(client: Client, repository: Repository, digest: String) -> Self {
        Self { client, repository, digest }
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let mut stream = self.client.blob(&self.repository, &self.digest, Some(range.clone())).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start)?);
        while let Some(part) = stream.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }
}

impl Origin for RegistryOrigin {
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        async move {
            let read = tokio::time::timeout(DEADLINE, self.read(range.clone())).await;
            let read = read.unwrap_or_else(|_| Err(format!("not within {DEADLINE:?}").into()));
            let origin = || format!("{}@{}", self.repository, self.digest);
            read.map_err(|source| OriginError { origin: origin(), range, source })
        }
        .boxed()
    }
}
