//! From a reference to the manifest that is for one platform.

use anyhow::Context;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use registry::{Client, Manifest, Reference};

use crate::platform::Platform;

/// Largest manifest, index or configuration that is read.
pub(crate) const MAX_DOCUMENT: usize = 8 << 20;

/// What a registry has under a reference.
#[derive(Debug)]
pub(crate) struct Found {
    /// What the reference names: a manifest or an index.
    pub(crate) top: Manifest,
    /// Where it is an index: which entry was chosen, and its manifest.
    pub(crate) chosen: Option<(usize, Manifest)>,
    /// The manifest, read.
    pub(crate) manifest: ImageManifest,
}

impl Found {
    /// The manifest's own document.
    pub(crate) fn document(&self) -> &Manifest {
        self.chosen.as_ref().map_or(&self.top, |(_, manifest)| manifest)
    }
}

/// Asks the registry.
pub(crate) async fn find(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> anyhow::Result<Found> {
    let top = client.manifest(reference).await?;
    let chosen = match as_index(&top)? {
        None => None,
        Some(index) => {
            let entry = platform.pick(index.manifests())?;
            let position = index.manifests().iter().position(|other| other == entry).unwrap_or(0);
            Some((position, client.manifest(&reference.at_digest(entry.digest().to_string())).await?))
        }
    };
    let document = chosen.as_ref().map_or(&top, |(_, manifest)| manifest);
    let manifest = serde_json::from_slice(&document.bytes)
        .with_context(|| format!("{} is not a manifest", document.descriptor.digest()))?;
    check_size(&manifest)?;
    Ok(Found { manifest, top, chosen })
}

fn check_size(manifest: &ImageManifest) -> anyhow::Result<()> {
    let config: &Descriptor = manifest.config();
    let (size, digest) = (config.size(), config.digest());
    anyhow::ensure!(size <= MAX_DOCUMENT as u64, "configuration {digest} claims {size} bytes");
    Ok(())
}

fn as_index(top: &Manifest) -> anyhow::Result<Option<ImageIndex>> {
    let media_type = top.descriptor.media_type().to_string();
    match media_type.as_str() {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            let index = serde_json::from_slice(&top.bytes);
            index.map(Some).with_context(|| format!("{} is not an index", top.descriptor.digest()))
        }
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Ok(None),
        other => anyhow::bail!("{} is {other}, neither manifest nor index", top.descriptor.digest()),
    }
}
