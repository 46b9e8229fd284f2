//! The two small parts of a lazy image: its configuration and its bootstrap.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration};
use registry::{Client, Reference};
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;

use crate::{
    image::{self, MAX_DOCUMENT},
    platform::Platform,
};

/// Marks the layer that holds the bootstrap.
const BOOTSTRAP: &str = "containerd.io/snapshot/nydus-bootstrap";
/// Largest bootstrap layer and bootstrap; one of a million files is about a quarter of it.
const MAX_BOOTSTRAP: usize = 1 << 30;

/// Fetches an image's bootstrap into `file`, and its configuration.
pub(super) async fn fetch(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
    file: &Path,
) -> anyhow::Result<ImageConfiguration> {
    let found = image::find(client, reference, platform).await?;
    let marked = |layer: &&Descriptor| layer.annotations().iter().flatten().any(|(key, _)| key == BOOTSTRAP);
    let layer = found.manifest.layers().iter().rev().find(marked);
    let layer = layer.context("it is not a lazy image; convert it first with shoal convert")?;
    let packed = blob(client, reference, layer, MAX_BOOTSTRAP).await?;
    unpack(&packed, file).with_context(|| format!("bootstrap layer {}", layer.digest()))?;
    let config = blob(client, reference, found.manifest.config(), MAX_DOCUMENT).await?;
    ImageConfiguration::from_reader(config.as_slice()).context("cannot read the image's configuration")
}

async fn blob(
    client: &Client,
    from: &Reference,
    wanted: &Descriptor,
    limit: usize,
) -> anyhow::Result<Vec<u8>> {
    let digest = wanted.digest().to_string();
    let mut stream = client.blob(&from.repository, &digest, None).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
        anyhow::ensure!(bytes.len() <= limit, "{digest} is larger than {limit} bytes");
    }
    let got = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    anyhow::ensure!(got == digest, "{digest} came as {got}");
    Ok(bytes)
}

/// Takes the bootstrap out of its layer: today's place first, then that of old converters.
fn unpack(layer: &[u8], file: &Path) -> anyhow::Result<()> {
    let limit = MAX_BOOTSTRAP as u64;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(layer).take(limit));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_path_buf();
        let path = path.strip_prefix("./").unwrap_or(&path);
        if path == Path::new("image/image.boot") || path == Path::new("image.boot") {
            let mut out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
            io::copy(&mut entry, &mut out)?;
            return Ok(());
        }
    }
    anyhow::bail!("no image/image.boot in it")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn layer(name: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        archive.append_data(&mut header, name, &b"boot"[..]).unwrap();
        let mut gzip = archive.into_inner().unwrap();
        gzip.flush().unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_bootstrap_is_found_in_both_places() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["image/image.boot", "image.boot"] {
            let file = folder.path().join("out");
            unpack(&layer(name), &file).unwrap();
            assert_eq!(std::fs::read(&file).unwrap(), b"boot");
        }
    }

    #[test]
    fn a_layer_without_bootstrap_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = unpack(&layer("etc/passwd"), &folder.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("no image/image.boot"));
    }
}
