//! The order of a pull: names first, then layers, then the record that keeps them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use registry::{Client, Manifest, Reference};

use super::{
    Pulled,
    downloads::Source,
    labels::{self, ImageNames},
};
use crate::{containerd::Containerd, platform::Platform, progress::Bars};

/// Largest manifest, index or configuration that is read.
const MAX_DOCUMENT: usize = 8 << 20;
/// Layers that overlayfs can stack.
const MAX_LAYERS: usize = 500;

/// One pull.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) source: Arc<Source>,
    pub(super) platform: Platform,
    /// The snapshot that is being filled; removed where the pull ends before it is committed.
    pub(super) active: Mutex<Option<String>>,
}

/// An image whose names are known.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) names: ImageNames,
    pub(super) target: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) diff_ids: Vec<String>,
}

impl Pull {
    /// A pull that has not begun.
    pub(super) fn new(containerd: Containerd, registry: Client, reference: Reference, platform: Platform) -> Self {
        let source = Source { containerd, registry, reference, bars: Bars::new() };
        Self { source: Arc::new(source), platform, active: Mutex::new(None) }
    }

    /// Everything, in order.
    pub(super) async fn run(&self) -> anyhow::Result<Pulled> {
        let image = self.resolve().await?;
        let containerd = &self.source.containerd;
        let unpacked = self.unpack(&image).await?;
        let keep = labels::config_gc_labels(containerd.snapshotter(), &unpacked.chain_id);
        containerd.label(image.manifest.config().digest().as_ref(), &keep).await?;
        containerd.tag(&image.names.reference, &image.target).await?;
        Ok(Pulled {
            image: image.names.reference,
            digest: image.target.digest().to_string(),
            manifest: image.names.manifest,
            snapshotter: containerd.snapshotter().to_owned(),
            chain_id: unpacked.chain_id,
            layers: image.diff_ids.len(),
            kept_layers: unpacked.kept,
            downloaded_bytes: unpacked.downloaded,
            layers_bytes: image.manifest.layers().iter().map(Descriptor::size).sum(),
        })
    }

    /// Removes what a pull that failed has left half done.
    pub(super) async fn abandon(&self) {
        let active = self.active.lock().expect("no holder panics").take();
        let Some(key) = active else { return };
        if let Err(status) = self.source.containerd.remove_snapshot(&key).await {
            tracing::warn!(key, %status, "cannot remove the unfinished snapshot");
        }
    }

    /// Brings index, manifest and configuration into the store.
    async fn resolve(&self) -> anyhow::Result<Image> {
        let reference = &self.source.reference;
        let top = self.source.registry.manifest(reference).await?;
        let target = top.descriptor.clone();
        let found = match as_index(&top)? {
            None => top,
            Some(index) => self.choose(&top, &index).await?,
        };
        let manifest: ImageManifest = serde_json::from_slice(&found.bytes)
            .with_context(|| format!("{} is not a manifest", found.descriptor.digest()))?;
        let config = self.configuration(manifest.config()).await?;
        let diff_ids = config.rootfs().diff_ids().clone();
        anyhow::ensure!(
            diff_ids.len() == manifest.layers().len(),
            "manifest {} has {} layers, its configuration {}",
            found.descriptor.digest(),
            manifest.layers().len(),
            diff_ids.len()
        );
        anyhow::ensure!(
            (1..=MAX_LAYERS).contains(&diff_ids.len()),
            "manifest {} has {} layers; 1 to {MAX_LAYERS} can be run",
            found.descriptor.digest(),
            diff_ids.len()
        );
        let gc = labels::manifest_gc_labels(manifest.config(), manifest.layers());
        self.source.store_document("manifest", &found, gc).await?;
        let names =
            ImageNames { reference: reference.to_string(), manifest: found.descriptor.digest().to_string() };
        Ok(Image { names, target, manifest, diff_ids })
    }

    /// The manifest of an index that is for our platform.
    async fn choose(&self, top: &Manifest, index: &ImageIndex) -> anyhow::Result<Manifest> {
        let entry = self.platform.pick(index.manifests())?;
        let digest = entry.digest().to_string();
        let position = index.manifests().iter().position(|other| other == entry).unwrap_or(0);
        let found = self.source.registry.manifest(&self.source.reference.at_digest(&digest)).await?;
        self.source.store_document("index", top, labels::index_gc_labels(position, &digest)).await?;
        Ok(found)
    }

    async fn configuration(&self, blob: &Descriptor) -> anyhow::Result<ImageConfiguration> {
        let digest = blob.digest().to_string();
        anyhow::ensure!(blob.size() <= MAX_DOCUMENT as u64, "configuration {digest} claims {} bytes", blob.size());
        self.source.store("config", blob, HashMap::new(), |_| ()).await?;
        let bytes = self.source.containerd.read_content(&digest, MAX_DOCUMENT).await?;
        let bytes = bytes.with_context(|| format!("configuration {digest} vanished from containerd's store"))?;
        ImageConfiguration::from_reader(bytes.as_slice())
            .with_context(|| format!("{digest} is not an image configuration"))
    }
}

fn as_index(top: &Manifest) -> anyhow::Result<Option<ImageIndex>> {
    let media_type = top.descriptor.media_type().to_string();
    match media_type.as_str() {
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            let index = serde_json::from_slice(&top.bytes);
            index.map(Some).with_context(|| format!("{} is not an index", top.descriptor.digest()))
        }
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            Ok(None)
        }
        other => anyhow::bail!("{} is {other}, neither manifest nor index", top.descriptor.digest()),
    }
}
