//! Blobs as files of a web server.

use std::{ops::Range, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use rafs::BlobId;
use registry::Client;

use super::{Backend, BackendError, ByteStream, Priority, Via, registry::name_errors};

/// A directory of a web server: blob `<id>` is `<base>/<id>` there.
#[derive(Debug)]
pub struct HttpBackend {
    client: Client,
    base: String,
}

impl HttpBackend {
    /// Blobs under the URL `base`. The client brings proxies, redirects and retries.
    #[must_use]
    pub fn new(client: Client, base: &str) -> Self {
        Self { client, base: base.trim_end_matches('/').into() }
    }
}

impl Backend for HttpBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        _priority: Priority,
        _via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            let opened = self.client.file(&format!("{}/{blob}", self.base), Some(range.clone())).await;
            name_errors(opened, self.name(), blob, range)
        }
        .boxed()
    }

    fn name(&self) -> String {
        // A URL may hold a password.
        let shown = match self.base.split_once('@') {
            Some((_, host)) => host,
            None => &self.base,
        };
        format!("http {shown}")
    }
}
