//! Files of web servers as origins.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use registry::{Client, FileUrl, RegistryError};
use tokio::time::Instant;

use super::DEADLINE;
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
    readers: AtomicUsize,
    used: Mutex<Instant>,
}

/// As long as it lives, somebody reads.
#[derive(Debug)]
pub struct FileReading(Arc<FileOrigin>);

impl FileOrigin {
    /// What `client`, which proves nothing of who it is, finds at `url`, as long as it is of `version`.
    #[must_use]
    pub fn new(client: Client, url: FileUrl, version: Option<String>) -> Self {
        let used = Mutex::new(Instant::now());
        Self { client, url, version, readers: AtomicUsize::new(0), used }
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
    pub fn read_by_somebody(self: &Arc<Self>) -> FileReading {
        self.readers.fetch_add(1, Ordering::Relaxed);
        FileReading(Arc::clone(self))
    }

    /// How long nobody has read.
    #[must_use]
    pub fn idle(&self) -> Duration {
        if self.readers.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, RegistryError> {
        let mut bytes = BytesMut::new();
        let mut stream = self.client.file_part(&self.url, range, self.version.as_deref()).await?;
        while let Some(part) = stream.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }
}

impl Drop for FileReading {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Origin for FileOrigin {
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        async move {
            let read = tokio::time::timeout(DEADLINE, self.read(range.clone())).await;
            let read = read.map_err(|_| format!("not within {DEADLINE:?}").into());
            let read = read.and_then(|read| read.map_err(Into::into));
            read.map_err(|source| OriginError { origin: self.url.to_string(), range, refused: false, source })
        }
        .boxed()
    }
}
