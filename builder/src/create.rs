//! One layer to one blob, with the layer's own bootstrap in it or beside it.

mod hot;

use std::io::Write;

use rafs::{
    Blob, BlobId, BlobIndex, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, Tree,
    blob::{BlobLayout, BlobTail},
};

use crate::{
    BuildError,
    hashing::HashingWriter,
    layer::{Entries, Position},
    overlay::{Overlay, Rules},
    pipeline::{self, ChunkOptions, Chunked, Feed, Known},
    prefetch_list::PrefetchList,
    source::{EntryKind, Source},
};

/// How a layer is built.
#[derive(Debug, Clone)]
pub struct LayerOptions {
    /// How content is cut and stored.
    pub chunks: ChunkOptions,
    /// Whether the bootstrap goes into the blob.
    pub inline_bootstrap: bool,
    /// Whether the blob gets digests and a table of contents.
    pub toc: bool,
    /// Where the layer's own bootstrap takes it to lie.
    pub position: Position<'static>,
    /// Whether whiteouts are left out of the tree; a layer that is to be merged needs them.
    pub hide_whiteouts: bool,
    /// Files whose chunks come first.
    pub prefetch: PrefetchList,
    /// Where temporary files go, which only a prefetch list needs.
    pub spool_dir: std::path::PathBuf,
}

/// A finished layer.
#[derive(Debug)]
pub struct BuiltLayer {
    /// What the layer brought, for whoever knows what lies below it.
    pub entries: Entries,
    /// The blob, named by the SHA-256 of its file. None where the layer has no content.
    pub blobs: Vec<Blob>,
    /// The layer's bootstrap as the format knows it: inlined, it cannot name its blob.
    pub bootstrap: Vec<u8>,
    /// SHA-256 of the blob file.
    pub sha256: [u8; 32],
    /// Size of the blob file in bytes.
    pub size: u64,
    /// The compression context table in its local form, to be shipped beside the bootstrap. Empty without content.
    pub blob_meta: Vec<u8>,
}

impl BuiltLayer {
    /// Number of chunks in the blob.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.blobs.first().map_or(0, |blob| blob.chunk_count)
    }
}

/// Chunks of files, by the order in which they were fed.
#[derive(Debug, Default)]
pub(crate) struct FileChunks {
    /// Number of the entry, number of its first chunk, number behind its last.
    files: Vec<(usize, u32, u32)>,
}

impl FileChunks {
    fn note(&mut self, file: usize, first: u32, end: u32) {
        self.files.push((file, first, end));
    }

    /// Writes places of chunks into the files of `entries`; `place` gives the chunk that stands for the nth fed.
    fn fill(self, entries: &mut Entries, place: impl Fn(u32) -> u32) {
        for (file, first, end) in self.files {
            let chunk = |n| ChunkRef { blob: BlobIndex(0), chunk: ChunkIndex(place(n)) };
            entries.set_chunks(file, (first..end).map(chunk).collect());
        }
    }
}

/// Builds a layer from its entries and writes the blob to `out`, front to back.
///
/// # Errors
/// [`BuildError`] names the entry where there is one to blame.
pub fn build_layer<W: Write + Send>(
    source: &mut dyn Source,
    out: W,
    options: &LayerOptions,
) -> Result<BuiltLayer, BuildError> {
    let out = HashingWriter::new(out);
    let mut entries = Entries::default();
    let chunked = if options.prefetch.is_empty() {
        let (chunked, files) =
            stream(options.chunks, out, |feed, files| read_all(source, &mut entries, feed, files))?;
        files.fill(&mut entries, |n| chunked.order[n as usize]);
        chunked
    } else {
        hot::build(source, &mut entries, out, options)?
    };
    finish(chunked.sink, chunked.chunks, entries, options)
}

/// Runs a pipeline while `feed` feeds it.
fn stream<S: pipeline::Sink>(
    options: ChunkOptions,
    sink: S,
    feed: impl FnOnce(&mut Feed, &mut FileChunks) -> Result<(), BuildError>,
) -> Result<(Chunked<S>, FileChunks), BuildError> {
    let known = Known::default();
    let mut files = FileChunks::default();
    std::thread::scope(|scope| {
        let (mut open, pipeline) = pipeline::start(scope, options, sink, &known)?;
        let fed = feed(&mut open, &mut files).and_then(|()| open.flush());
        drop(open);
        // Where the pipeline failed, the feed only knows that it ended; this knows why.
        let chunked = pipeline.finish()?;
        fed.map(|()| chunked)
    })
    .map(|chunked| (chunked, files))
}

fn read_all(
    source: &mut dyn Source,
    entries: &mut Entries,
    feed: &mut Feed,
    files: &mut FileChunks,
) -> Result<(), BuildError> {
    while let Some(entry) = source.next_entry()? {
        let size = if let EntryKind::File(size) = entry.kind { size } else { 0 };
        feed_file(source, entries.push(entry)?, size, feed, files)?;
    }
    Ok(())
}

fn feed_file(
    source: &mut dyn Source,
    file: usize,
    size: u64,
    feed: &mut Feed,
    files: &mut FileChunks,
) -> Result<(), BuildError> {
    let first = feed.chunks();
    feed.file(size, |buf| source.read_content(buf))?;
    if size > 0 {
        files.note(file, first, feed.chunks());
    }
    Ok(())
}

/// Writes what follows the chunks.
fn finish<W: Write>(
    mut out: HashingWriter<W>,
    chunks: Vec<Chunk>,
    entries: Entries,
    options: &LayerOptions,
) -> Result<BuiltLayer, BuildError> {
    let ChunkOptions { chunk_size, compressor, digest, .. } = options.chunks;
    let layout = BlobLayout {
        compressor,
        digest_algorithm: digest,
        inline_bootstrap: options.inline_bootstrap,
        toc: options.toc,
    };
    let (data_sha256, data_len) = out.state().map_err(BuildError::write("blob"))?;
    let tail = BlobTail::new(layout, &chunks, chunk_size).map_err(BuildError::format("end of blob"))?;
    let blob_meta = if chunks.is_empty() { Vec::new() } else { local_meta(&tail, data_len)? };
    let mut tree = entries.unpack(chunk_size, options.position)?;
    if !chunks.is_empty() {
        let mut blob = tail.blob.clone();
        blob.chunks = chunks.into_iter().collect();
        tree.blobs.push(blob);
    }
    if options.hide_whiteouts {
        let mut alone = Overlay::new(chunk_size, Rules::Nydus);
        alone.push(&tree, "the layer")?;
        tree = alone.finish();
    }
    tree.prefetch = options.prefetch.inodes(&tree);
    out.write_all(&tail.bytes).map_err(BuildError::write("blob"))?;
    let mut bootstrap = Vec::new();
    if options.inline_bootstrap {
        bootstrap = write_bootstrap(&tree)?;
    }
    let inline = options.inline_bootstrap.then_some(bootstrap.as_slice());
    let end = tail.finish(inline, data_sha256).map_err(BuildError::format("end of blob"))?;
    out.write_all(&end).map_err(BuildError::write("blob"))?;
    let (sha256, size) = out.state().map_err(BuildError::write("blob"))?;
    for blob in &mut tree.blobs {
        blob.id = BlobId::from_sha256(&sha256);
        if !options.inline_bootstrap {
            blob.compressed_size = size;
        }
    }
    if !options.inline_bootstrap {
        bootstrap = write_bootstrap(&tree)?;
    }
    Ok(BuiltLayer { entries, blobs: tree.blobs, bootstrap, sha256, size, blob_meta })
}

/// The bytes of a tree's bootstrap.
///
/// # Errors
/// [`BuildError::Format`] for a tree that the format cannot hold.
pub fn write_bootstrap(tree: &Tree) -> Result<Vec<u8>, BuildError> {
    let written = BootstrapWriter::new(tree).write().map_err(BuildError::format("bootstrap"))?;
    Ok(written.bytes)
}

/// Cuts the stored table and its header out of the tail, and makes the local form of them.
fn local_meta(tail: &BlobTail, data_len: u64) -> Result<Vec<u8>, BuildError> {
    const HEADER: usize = 4096;
    let in_memory = |n: u64| usize::try_from(n).expect("the table is in memory");
    let table = &tail.bytes[in_memory(tail.blob.ci.offset - data_len)..];
    let (table, rest) = table.split_at(in_memory(tail.blob.ci.compressed_size));
    rafs::blob::local_blob_meta(&tail.blob, table, &rest[..HEADER]).map_err(BuildError::format("blob meta"))
}
