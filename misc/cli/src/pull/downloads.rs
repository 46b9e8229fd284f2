//! Blobs on their way from the registry into containerd's store.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use oci_spec::image::Descriptor;
use registry::{Client, Manifest, Reference};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};
use tokio_stream::StreamExt;

use super::labels;
use crate::{
    containerd::Containerd,
    progress::{Bars, short},
};

/// Layers fetched at once, as containerd does.
const PARALLEL: usize = 3;

/// From where to where.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) containerd: Containerd,
    pub(super) registry: Client,
    pub(super) reference: Reference,
    pub(super) bars: Bars,
}

impl Source {
    /// Brings one blob into the store.
    pub(super) async fn store(
        &self,
        kind: &str,
        blob: &Descriptor,
        labels: HashMap<String, String>,
        read: impl Fn(u64),
    ) -> anyhow::Result<()> {
        let digest = blob.digest().to_string();
        let open = async || Ok(self.registry.blob(&self.reference.repository, &digest, None).await?);
        self.containerd.ingest(kind, blob, &self.with_source(labels), open, read).await
    }

    /// Brings a manifest or index, already here, into the store.
    pub(super) async fn store_document(
        &self,
        kind: &str,
        document: &Manifest,
        labels: HashMap<String, String>,
    ) -> anyhow::Result<()> {
        let open = async || {
            let bytes = document.bytes.clone();
            Ok(Box::pin(tokio_stream::once(bytes).map(Ok)) as registry::BlobStream)
        };
        self.containerd.ingest(kind, &document.descriptor, &self.with_source(labels), open, |_| ()).await
    }

    fn with_source(&self, mut labels: HashMap<String, String>) -> HashMap<String, String> {
        let repository = &self.reference.repository;
        labels.extend([labels::source_label(&repository.host, &repository.path)]);
        labels
    }
}

/// Layers that are being fetched. Dropping it stops them.
#[derive(Debug)]
pub(super) struct Downloads {
    _tasks: JoinSet<()>,
    done: HashMap<usize, oneshot::Receiver<anyhow::Result<()>>>,
}

impl Downloads {
    /// Starts fetching the layers of these positions, the lowest first.
    pub(super) fn start(source: &Arc<Source>, layers: Vec<(usize, Descriptor)>) -> Self {
        let (mut tasks, mut done) = (JoinSet::new(), HashMap::new());
        let slots = Arc::new(Semaphore::new(PARALLEL));
        for (position, layer) in layers {
            let (tell, told) = oneshot::channel();
            done.insert(position, told);
            let (source, slots) = (Arc::clone(source), Arc::clone(&slots));
            tasks.spawn(async move {
                let _slot = slots.acquire().await;
                // Nobody listens where the pull has already failed.
                drop(tell.send(fetch(&source, &layer).await));
            });
        }
        Self { _tasks: tasks, done }
    }

    /// Waits for one layer.
    pub(super) async fn wait(&mut self, position: usize) -> anyhow::Result<()> {
        let told = self.done.remove(&position).context("the layer was not asked for")?;
        told.await.context("the download was cut short")?
    }
}

async fn fetch(source: &Source, layer: &Descriptor) -> anyhow::Result<()> {
    let digest = layer.digest().to_string();
    let bar = source.bars.bar(short(&digest), layer.size());
    source.store("layer", layer, HashMap::new(), |bytes| bar.inc(bytes)).await?;
    source.bars.done(&bar, "downloaded");
    Ok(())
}
