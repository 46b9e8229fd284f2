//! `create`: one layer.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use builder::{
    ChunkDict,
    create::{BuiltLayer, LayerOptions, build_layer, write_bootstrap},
    layer::Position,
    overlay::{Overlay, Rules},
    pipeline::ChunkOptions,
    source::{Source, directory::DirectorySource, tar::TarSource},
};
use rafs::{BlobId, BlobIndex, Compressor, DigestAlgorithm, Kind, Tree};
use service::exit::UsageError;

use crate::{
    cli::{CompressorName, CreateArgs, DigesterName, Feature, SourceKind, WhiteoutSpec},
    output::Summary,
};

pub(super) fn run(args: &CreateArgs) -> anyhow::Result<()> {
    let parent = args.parent_bootstrap.as_deref().map(super::read_tree).transpose()?;
    let mut layer_options = layer_options(args)?;
    if let Some(parent) = &parent {
        super::add_chunks(&mut layer_options.dict, parent, args.chunk_size).context("--parent-bootstrap")?;
        layer_options.hide_whiteouts = false;
    }
    if let Some(dict) = &args.chunk_dict {
        super::add_chunk_dict(&mut layer_options.dict, dict, args.chunk_size)?;
    }
    let mut source = open_source(args)?;
    let (built, blob) = match (&args.blob, &args.blob_dir) {
        (Some(path), _) => (build_to(path, source.as_mut(), &layer_options)?, Some(path.clone())),
        (None, Some(directory)) => build_in(directory, source.as_mut(), &layer_options)?,
        (None, None) => {
            return Err(UsageError("one of --blob and --blob-dir says where the blob goes".into()).into());
        }
    };
    let (bootstrap, ids) = match &parent {
        None => (built.bootstrap.clone(), built.blob_ids.clone()),
        Some(parent) => onto(parent, &built, &layer_options)?,
    };
    if let Some(path) = &args.bootstrap {
        std::fs::write(path, bootstrap).with_context(|| format!("write {}", path.display()))?;
    }
    let chunks = built.chunk_count();
    tracing::info!(blob = ?blob, size = built.size, chunks, "layer is built");
    let compressor = Some(layer_options.chunks.compressor);
    Summary::new(args.bootstrap.as_deref(), &ids, compressor).write(args.output_json.as_deref())
}

/// The bootstrap of an image with the layer on top, and the ids of its blobs: the new one is the last.
fn onto(parent: &Tree, built: &BuiltLayer, options: &LayerOptions) -> anyhow::Result<(Vec<u8>, Vec<BlobId>)> {
    let mut overlay = Overlay::new(parent.chunk_size, Rules::Nydus);
    overlay.push(parent, "the parent")?;
    let mut layer = built.entries.unpack(options.chunks.chunk_size, options.position)?;
    layer.blobs.clone_from(&built.blobs);
    overlay.push(&layer, "the layer")?;
    let mut tree = overlay.finish();
    if let Some(own) = built.own_blob() {
        move_to_end(&mut tree, &own.id);
    }
    tree.prefetch = options.prefetch.inodes(&tree);
    let ids = tree.blobs.iter().map(|blob| blob.id.clone()).collect();
    Ok((write_bootstrap(&tree)?, ids))
}

/// Makes a blob the last one of the table: callers look for the new one there.
fn move_to_end(tree: &mut Tree, id: &BlobId) {
    let Some(from) = tree.blobs.iter().position(|blob| blob.id == *id) else { return };
    let last = tree.blobs.len() - 1;
    let blob = tree.blobs.remove(from);
    tree.blobs.push(blob);
    for inode in &mut tree.inodes {
        let Kind::File { chunks, .. } = &mut inode.kind else { continue };
        for chunk in chunks {
            let index = usize::from(chunk.blob.0);
            let index = if index == from { last } else { index - usize::from(index > from) };
            chunk.blob = BlobIndex(u8::try_from(index).expect("at most 254 blobs"));
        }
    }
}

fn layer_options(args: &CreateArgs) -> anyhow::Result<LayerOptions> {
    if args.bootstrap.is_none() && !args.blob_inline_meta {
        return Err(UsageError(
            "one of --bootstrap and --blob-inline-meta says where the bootstrap goes".into(),
        )
        .into());
    }
    let compressor = match args.compressor {
        CompressorName::None => Compressor::None,
        CompressorName::Lz4Block => Compressor::Lz4Block,
        CompressorName::Zstd => Compressor::Zstd,
    };
    let digest = match args.digester {
        DigesterName::Blake3 => DigestAlgorithm::Blake3,
        DigesterName::Sha256 => DigestAlgorithm::Sha256,
    };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(LayerOptions {
        chunks: ChunkOptions { chunk_size: args.chunk_size, compressor, digest, jobs },
        inline_bootstrap: args.blob_inline_meta,
        toc: args.features.contains(&Feature::BlobToc),
        position: Position::Unknown,
        // A tar keeps its whiteouts for the merge whatever is asked, as the original does.
        hide_whiteouts: args.kind == SourceKind::Directory && args.whiteout_spec == WhiteoutSpec::Oci,
        dict: ChunkDict::default(),
        prefetch: super::prefetch_list(&args.prefetch)?,
        spool_dir: std::env::temp_dir(),
    })
}

fn open_source(args: &CreateArgs) -> anyhow::Result<Box<dyn Source>> {
    let open = || File::open(&args.source).with_context(|| format!("open {}", args.source.display()));
    Ok(match args.kind {
        SourceKind::Directory => Box::new(DirectorySource::new(&args.source)),
        // Read on a thread of its own, which also takes compressed tars.
        SourceKind::Tar | SourceKind::CompressedTar => Box::new(TarSource::new(builder::open_layer(open()?))),
    })
}

/// Builds into a file or FIFO. A failed build leaves no file.
fn build_to(path: &Path, source: &mut dyn Source, options: &LayerOptions) -> anyhow::Result<BuiltLayer> {
    let is_fifo = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let mut open = OpenOptions::new();
    // Open for reading too, so that the reader of a FIFO sees its end only when this program ends.
    let open =
        if is_fifo { open.read(true).write(true) } else { open.write(true).create(true).truncate(true) };
    let mut out = open.open(path).with_context(|| format!("open {}", path.display()))?;
    let built = build_layer(source, &mut out, options).and_then(|built| {
        out.flush()
            .map_err(|source| builder::BuildError::Write { what: path.display().to_string(), source })?;
        Ok(built)
    });
    if built.is_err() && !is_fifo {
        std::fs::remove_file(path).ok();
    }
    built.with_context(|| format!("build {}", path.display()))
}

/// Builds into a directory of blobs. A layer without content leaves no blob.
fn build_in(
    directory: &Path,
    source: &mut dyn Source,
    options: &LayerOptions,
) -> anyhow::Result<(BuiltLayer, Option<PathBuf>)> {
    let file = tempfile::Builder::new().prefix(".blob-").tempfile_in(directory);
    let file = file.with_context(|| format!("create a file in {}", directory.display()))?;
    let built = build_layer(source, file.as_file(), options)?;
    if built.size == 0 {
        return Ok((built, None));
    }
    let path = directory.join(hex::encode(built.sha256));
    file.persist(&path).with_context(|| format!("rename to {}", path.display()))?;
    Ok((built, Some(path)))
}
