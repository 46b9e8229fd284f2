//! One image: its layers side by side, then their merge.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use oci_spec::image::Descriptor;
use p2p_pieces::PieceList;
use rafs::Tree;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    ConvertError, Event, ImageReport, LayerReport, Progress,
    layer::{LayerTask, convert_layer},
    manifest::{SourceImage, bootstrap_layer},
    source::ImageSource,
    target::ImageTarget,
    work::Work,
};
use crate::{
    PrefetchList,
    create::{BuiltLayer, LayerOptions, write_bootstrap},
    layer::Position,
    overlay::{Overlay, Rules},
};

/// Layers in work at one time: the next one is read while the last one's end is written and sent. Each keeps all cores
/// busy by itself; more would only need more memory.
const LAYERS_AT_ONCE: usize = 2;

/// What the images of one conversion share.
pub(super) struct Converter {
    shared: Arc<Shared>,
    /// Stops threads that are still at work when the conversion is dropped.
    _stop: StopOnDrop,
}

struct Shared {
    source: ImageSource,
    target: ImageTarget,
    options: LayerOptions,
    work: Work,
    progress: Arc<dyn Progress>,
    is_stopped: Arc<AtomicBool>,
    turns: Semaphore,
    /// Layers done, by digest: images of several platforms may share some.
    done: Mutex<HashMap<String, Arc<Done>>>,
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A layer that stands in the target.
struct Done {
    built: BuiltLayer,
    pieces: PieceList,
    report: LayerReport,
}

impl Converter {
    pub(super) fn new(
        source: ImageSource,
        target: ImageTarget,
        options: LayerOptions,
        work: Work,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            source,
            target,
            options,
            work,
            progress,
            is_stopped: is_stopped.clone(),
            turns: Semaphore::new(LAYERS_AT_ONCE),
            done: Mutex::default(),
        };
        Self { shared: Arc::new(shared), _stop: StopOnDrop(is_stopped) }
    }

    pub(super) fn target(&self) -> &ImageTarget {
        &self.shared.target
    }

    /// Converts one image up to its manifest, which is not sent yet.
    pub(super) async fn image(
        &self,
        image: &SourceImage,
    ) -> Result<(Descriptor, Vec<u8>, ImageReport), ConvertError> {
        let layers = self.layers(image).await?;
        let bootstrap = self.merge(image, layers.clone()).await?;
        let built: Vec<_> = layers.iter().map(|layer| (&layer.built, &layer.pieces)).collect();
        let (bootstrap, diff_id) =
            bootstrap_layer(&bootstrap, &built).map_err(ConvertError::file("make the bootstrap layer"))?;
        let mut diff_ids: Vec<_> = layers.iter().map(|layer| layer.report.digest.clone()).collect();
        diff_ids.push(diff_id);
        let config = image.new_config(&diff_ids)?;
        let blobs: Vec<_> =
            layers.iter().map(|layer| (hex::encode(layer.built.sha256), layer.built.size)).collect();
        let (descriptor, manifest) = image.new_manifest(&config, &blobs, &bootstrap)?;
        let bootstrap_size = bootstrap.len() as u64;
        self.shared.target.bytes(bootstrap).await?;
        self.shared.target.bytes(config).await?;
        let digest = descriptor.digest().to_string();
        self.shared.progress.event(Event::ImageDone { platform: &image.platform, digest: &digest });
        let report = ImageReport {
            platform: image.platform.clone(),
            source_digest: image.descriptor.digest().to_string(),
            digest,
            source_size: image.manifest.layers().iter().map(Descriptor::size).sum(),
            blobs_size: blobs.iter().map(|(_, size)| size).sum(),
            bootstrap_size,
            layers: layers.iter().map(|layer| layer.report.clone()).collect(),
        };
        Ok((descriptor, manifest, report))
    }

    async fn layers(&self, image: &SourceImage) -> Result<Vec<Arc<Done>>, ConvertError> {
        let mut tasks = JoinSet::new();
        let mut begun = std::collections::HashSet::new();
        for (number, (descriptor, diff_id)) in image.manifest.layers().iter().zip(&image.diff_ids).enumerate()
        {
            let digest = descriptor.digest().to_string();
            if self.shared.done(&digest).is_some() || !begun.insert(digest.clone()) {
                continue;
            }
            let (size, diff_id, is_lowest) = (descriptor.size(), diff_id.clone(), number == 0);
            let task = LayerTask { digest, size, diff_id, is_lowest };
            let (shared, descriptor) = (self.shared.clone(), descriptor.clone());
            tasks.spawn(async move { shared.layer(task, descriptor).await });
        }
        while let Some(joined) = tasks.join_next().await {
            if let Err(error) = joined.map_err(|_| ConvertError::Stopped).flatten() {
                self.shared.is_stopped.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        let digests = image.manifest.layers().iter().map(|layer| layer.digest().to_string());
        Ok(digests.map(|digest| self.shared.done(&digest).expect("every layer was converted")).collect())
    }

    async fn merge(&self, image: &SourceImage, layers: Vec<Arc<Done>>) -> Result<Vec<u8>, ConvertError> {
        let options = self.shared.options.clone();
        let digest = image.descriptor.digest().to_string();
        let merged = tokio::task::spawn_blocking(move || {
            let tree = merge(&layers, options.chunks.chunk_size, &options.prefetch)?;
            write_bootstrap(&tree).map_err(|source| ConvertError::Merge { image: digest, source })
        });
        merged.await.map_err(|_| ConvertError::Stopped)?
    }
}

/// What a container sees of these layers, lowest first.
fn merge(layers: &[Arc<Done>], chunk_size: u32, prefetch: &PrefetchList) -> Result<Tree, ConvertError> {
    let mut overlay = Overlay::new(chunk_size, Rules::Containerd);
    let mut below: Vec<Tree> = Vec::new();
    for layer in layers {
        let name = &layer.report.source_digest;
        let blame = |source| ConvertError::Layer { layer: name.clone(), source };
        let position = if below.is_empty() { Position::Lowest } else { Position::Above(&below) };
        let mut tree = layer.built.entries.unpack(chunk_size, position).map_err(blame)?;
        tree.blobs.clone_from(&layer.built.blobs);
        overlay.push(&tree, name).map_err(blame)?;
        tree.blobs.clear();
        below.push(tree);
    }
    let mut tree = overlay.finish();
    tree.prefetch = prefetch.inodes(&tree);
    Ok(tree)
}

impl Shared {
    fn done(&self, digest: &str) -> Option<Arc<Done>> {
        self.done.lock().expect("no holder panics").get(digest).cloned()
    }

    async fn layer(self: Arc<Self>, task: LayerTask, descriptor: Descriptor) -> Result<(), ConvertError> {
        let turn = self.turns.acquire().await.map_err(|_| ConvertError::Stopped)?;
        let stored = self.source.blob(&descriptor)?;
        let shared = self.clone();
        let (task, converted) = tokio::task::spawn_blocking(move || {
            let work = shared.work.path();
            let done =
                convert_layer(&task, stored, &shared.options, work, &shared.progress, &shared.is_stopped);
            (task, done)
        })
        .await
        .map_err(|_| ConvertError::Stopped)?;
        let (built, pieces, file) = converted?;
        drop(turn);
        let hex = hex::encode(built.sha256);
        let sent = self.target.blob(&hex, built.size, file).await?;
        self.progress.event(Event::LayerDone { layer: &task.digest, blob: &hex, size: built.size, sent });
        let report = LayerReport {
            source_digest: task.digest.clone(),
            source_size: task.size,
            digest: format!("sha256:{hex}"),
            size: built.size,
            chunks: built.chunk_count(),
            sent,
        };
        self.done
            .lock()
            .expect("no holder panics")
            .insert(task.digest, Arc::new(Done { built, pieces, report }));
        Ok(())
    }
}
