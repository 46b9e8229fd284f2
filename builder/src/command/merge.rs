//! `merge`: bootstraps of layers to the bootstrap of an image.

use std::path::Path;

use anyhow::{Context, ensure};
use builder::{
    ChunkDict,
    create::write_bootstrap,
    overlay::{Overlay, Rules},
};
use rafs::{BlobId, Tree, blob::feature};

use crate::{cli::MergeArgs, output::Summary};

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let prefetch = super::prefetch_list(&args.prefetch)?;
    let layers = args.sources.len();
    for (flag, len) in [
        ("--blob-digests", args.blob_digests.len()),
        ("--blob-sizes", args.blob_sizes.len()),
        ("--blob-toc-digests", args.blob_toc_digests.len()),
    ] {
        ensure!(len == 0 || len == layers, "{flag} has {len} values for {layers} layers");
    }
    let mut overlay: Option<Overlay> = None;
    let mut push = |tree: Tree, path: &Path| {
        let overlay = overlay.get_or_insert_with(|| Overlay::new(tree.chunk_size, Rules::Nydus));
        overlay.push(&tree, &path.display().to_string()).with_context(|| format!("merge {}", path.display()))
    };
    if let Some(parent) = &args.parent_bootstrap {
        push(super::read_tree(parent)?, parent)?;
    }
    for (number, path) in args.sources.iter().enumerate() {
        let tree = read_layer(args, number, path)?;
        if let Some(dict) = args.chunk_dict.as_ref().filter(|_| number == 0) {
            // Layers name its blobs themselves. That it can be read is all that is asked of it.
            super::add_chunk_dict(&mut ChunkDict::default(), dict, tree.chunk_size)?;
        }
        push(tree, path)?;
    }
    let mut tree = overlay.expect("clap asks for at least one layer").finish();
    tree.prefetch = prefetch.inodes(&tree);
    let bytes = write_bootstrap(&tree)?;
    std::fs::write(&args.bootstrap, bytes).with_context(|| format!("write {}", args.bootstrap.display()))?;
    tracing::info!(layers, blobs = tree.blobs.len(), "layers are merged");
    Summary::of(&args.bootstrap, &tree).write(args.output_json.as_deref())
}

/// A layer's tree, its blob named as the merged image will name it.
fn read_layer(args: &MergeArgs, number: usize, path: &Path) -> anyhow::Result<Tree> {
    let mut tree = super::read_tree(path)?;
    for blob in &mut tree.blobs {
        if blob.features & feature::INLINED_FS_META == 0 {
            continue;
        }
        blob.features &= !feature::INLINED_FS_META;
        let id = match args.blob_digests.get(number) {
            Some(digest) => BlobId::new(digest)?,
            None => id_of(path)?,
        };
        blob.id = id;
        if let Some(size) = args.blob_sizes.get(number) {
            blob.compressed_size = *size;
        }
        if let Some(digest) = args.blob_toc_digests.get(number) {
            let digest = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
            blob.toc_digest =
                digest.with_context(|| format!("TOC digest of {} is no SHA-256", path.display()))?;
        }
    }
    Ok(tree)
}

/// An inlined bootstrap cannot name its blob, so its file does: up to the first dot.
fn id_of(path: &Path) -> anyhow::Result<BlobId> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.split('.').next().unwrap_or_default();
    BlobId::new(id).with_context(|| format!("file name of {}", path.display()))
}
