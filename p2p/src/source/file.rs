//! Files of web servers as origins.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use registry::{Client, FileUrl, RegistryError};

use super::{Attending, attention::Attention, gather, in_time};
use crate::{
    Priority,
    engine::{Origin, OriginError},
};

/// One version of a file of a web server, which everybody may read.
#[derive(Debug)]
pub struct FileOrigin {
    client: Client,
    url: FileUrl,
    version: Option<String>,
    attention: Arc<Attention>,
}

impl FileOrigin {
    /// What `client`, which proves nothing of who it is, finds at `url`, as long as it is of `version`.
    #[must_use]
    pub fn new(client: Client, url: FileUrl, version: Option<String>) -> Self {
        Self { client, url, version, attention: Attention::none() }
    }

    /// Where it is.
    #[must_use]
    pub const fn url(&self) -> &FileUrl {
        &self.url
    }

    /// Which version.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Somebody reads until what is returned is dropped.
    #[must_use]
    pub fn read_by_somebody(&self) -> Attending {
        self.attention.attend()
    }

    /// How long nobody has read; `None` while somebody does.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.attention.idle()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, RegistryError> {
        gather(self.client.file_part(&self.url, range, self.version.as_deref()).await?).await
    }
}

impl Origin for FileOrigin {
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        async move { in_time(self.url.to_string(), range.clone(), self.read(range)).await }.boxed()
    }
}
