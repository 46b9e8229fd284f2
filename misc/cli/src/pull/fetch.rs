//! The order of a pull: names first, then layers, then the record that keeps them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use registry::{Client, Reference};

use super::{
    Pulled,
    downloads::Source,
    labels::{self, ImageNames},
};
use crate::{
    containerd::Containerd,
    image::{self, MAX_DOCUMENT},
    platform::Platform,
    progress::Bars,
};

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
    pub(super) fn new(
        containerd: Containerd,
        registry: Client,
        reference: Reference,
        platform: Platform,
    ) -> Self {
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
        if let Err(refusal) = self.source.containerd.remove_snapshot(&key).await {
            tracing::warn!(key, %refusal, "cannot remove the unfinished snapshot");
        }
    }

    /// Brings index, manifest and configuration into the store.
    async fn resolve(&self) -> anyhow::Result<Image> {
        let reference = &self.source.reference;
        let found = image::find(&self.source.registry, reference, &self.platform).await?;
        let digest = found.document().descriptor.digest().to_string();
        let diff_ids = self.diff_ids(found.manifest.config()).await?;
        let layers = found.manifest.layers();
        anyhow::ensure!(
            diff_ids.len() == layers.len(),
            "manifest {digest} has {} layers, its configuration {}",
            layers.len(),
            diff_ids.len()
        );
        anyhow::ensure!(
            (1..=MAX_LAYERS).contains(&layers.len()),
            "manifest {digest} has {} layers; 1 to {MAX_LAYERS} can be run",
            layers.len()
        );
        let gc = labels::manifest_gc_labels(found.manifest.config(), layers);
        self.source.store_document("manifest", found.document(), gc).await?;
        if let Some((position, _)) = &found.chosen {
            self.source
                .store_document("index", &found.top, labels::index_gc_labels(*position, &digest))
                .await?;
        }
        Ok(Image {
            names: ImageNames { reference: reference.to_string(), manifest: digest },
            target: found.top.descriptor,
            manifest: found.manifest,
            diff_ids,
        })
    }

    async fn diff_ids(&self, config: &Descriptor) -> anyhow::Result<Vec<String>> {
        let digest = config.digest().to_string();
        self.source.store("config", config, HashMap::new(), |_| ()).await?;
        let bytes = self.source.containerd.read_content(&digest, MAX_DOCUMENT).await?;
        let bytes =
            bytes.with_context(|| format!("configuration {digest} vanished from containerd's store"))?;
        let config = ImageConfiguration::from_reader(bytes.as_slice())
            .with_context(|| format!("{digest} is not an image configuration"))?;
        Ok(config.rootfs().diff_ids().clone())
    }
}
