//! Layers into snapshots, lowest first.

use anyhow::Context;
use containerd_client::types::Mount;
use oci_spec::image::Descriptor;

use super::{
    downloads::Downloads,
    fetch::{Image, Pull},
    labels,
};
use crate::{containerd::Prepared, progress::short};

/// Tries for a layer that another pull makes or removes at the same time.
const ATTEMPTS: u32 = 3;

/// What unpacking an image came to.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// Name of the top snapshot.
    pub(super) chain_id: String,
    /// Layers that the snapshotter had or reads from afar.
    pub(super) kept: usize,
    /// Bytes of the layers that were fetched.
    pub(super) downloaded: u64,
}

/// One layer with everything that names it.
#[derive(Debug, Clone, Copy)]
struct Layer<'a> {
    position: usize,
    blob: &'a Descriptor,
    diff_id: &'a str,
    chain_id: &'a str,
    parent: &'a str,
}

impl Pull {
    /// Makes a snapshot of each layer. Layers are fetched side by side from the first that is needed here.
    pub(super) async fn unpack(&self, image: &Image) -> anyhow::Result<Unpacked> {
        let chain_ids = labels::chain_ids(&image.diff_ids);
        let blobs = image.manifest.layers();
        let (mut unpacked, mut downloads, mut parent) = (Unpacked::default(), None, "");
        for (position, (blob, chain_id)) in blobs.iter().zip(&chain_ids).enumerate() {
            let layer = Layer { position, blob, diff_id: &image.diff_ids[position], chain_id, parent };
            match self.place(image, layer).await? {
                None => {
                    unpacked.kept += 1;
                    self.source.bars.line(&format!("{} {}", short(blob.digest().as_ref()), kept(blob)));
                }
                Some((key, mounts)) => {
                    let downloads = downloads.get_or_insert_with(|| self.download(blobs, position));
                    self.fill(image, layer, downloads, (&key, mounts)).await?;
                    unpacked.downloaded += blob.size();
                }
            }
            parent = chain_id;
        }
        unpacked.chain_id = parent.to_owned();
        Ok(unpacked)
    }

    /// Asks the snapshotter about a layer; a key and mounts where the layer's content is needed.
    async fn place(&self, image: &Image, layer: Layer<'_>) -> anyhow::Result<Option<(String, Vec<Mount>)>> {
        let containerd = &self.source.containerd;
        let what =
            || format!("snapshotter {} refuses layer {}", containerd.snapshotter(), layer.blob.digest());
        for _ in 0..ATTEMPTS {
            let key = labels::extract_key(layer.chain_id);
            let labels = labels::snapshot_labels(
                &image.names,
                &image.manifest.layers()[layer.position..],
                layer.chain_id,
            );
            self.watch(Some(&key));
            let prepared = containerd.prepare(&key, layer.parent, labels).await.with_context(what)?;
            match prepared {
                Prepared::Mounts(mounts) => return Ok(Some((key, mounts))),
                // The snapshotter says it has the layer: believed once containerd sees it too.
                Prepared::Exists if containerd.has_snapshot(layer.chain_id).await? => {
                    self.watch(None);
                    return Ok(None);
                }
                Prepared::Exists => {}
            }
        }
        anyhow::bail!("layer {} comes and goes in {}", layer.blob.digest(), containerd.snapshotter())
    }

    /// Fetches one layer, unpacks it and commits it.
    async fn fill(
        &self,
        image: &Image,
        layer: Layer<'_>,
        downloads: &mut Downloads,
        (key, mounts): (&str, Vec<Mount>),
    ) -> anyhow::Result<()> {
        let containerd = &self.source.containerd;
        anyhow::ensure!(
            !labels::is_lazy(layer.blob),
            "{} is a lazy image, which snapshotter {} cannot run; try --snapshotter nydus",
            image.names.reference,
            containerd.snapshotter()
        );
        downloads.wait(layer.position).await?;
        containerd.apply(layer.blob, layer.diff_id, mounts).await?;
        let labels =
            labels::snapshot_labels(&image.names, &image.manifest.layers()[layer.position..], layer.chain_id);
        let committed = containerd.commit(layer.chain_id, key, labels).await;
        committed.with_context(|| format!("cannot commit the snapshot of layer {}", layer.blob.digest()))?;
        self.watch(None);
        containerd.label(layer.blob.digest().as_ref(), &labels::uncompressed(layer.diff_id)).await
    }

    fn download(&self, blobs: &[Descriptor], from: usize) -> Downloads {
        let wanted = blobs.iter().cloned().enumerate().skip(from).filter(|(_, blob)| !labels::is_lazy(blob));
        Downloads::start(&self.source, wanted.collect())
    }

    fn watch(&self, key: Option<&str>) {
        *self.active.lock().expect("no holder panics") = key.map(str::to_owned);
    }
}

fn kept(blob: &Descriptor) -> &'static str {
    if labels::is_lazy(blob) { "is read when it is needed" } else { "is here already" }
}
