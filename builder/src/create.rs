//! One layer to one blob, with the layer's own bootstrap in it or beside it.

mod hot;

use std::io::Write;

use rafs::{
    Blob, BlobId, BlobIndex, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, FormatError, InodeId, MAX_BLOBS,
    Tree, WrittenBootstrap,
    blob::{BlobLayout, BlobTail},
};

use crate::{
    BuildError,
    chunk_dict::ChunkDict,
    hashing::HashingWriter,
    layer::{Entries, Position},
    overlay::{Overlay, Rules},
    pipeline::{self, ChunkOptions, Chunked, Feed, Place},
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
    /// Content that need not be stored.
    pub dict: ChunkDict,
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
    /// Blobs by the indexes in `entries`: those of the dictionary, then the layer's own, named by the SHA-256 of its
    /// file, where it has content of its own.
    pub blobs: Vec<Blob>,
    /// Ids of the blobs in the layer's bootstrap, in table order.
    pub blob_ids: Vec<BlobId>,
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
        self.own_blob().map_or(0, |blob| blob.chunk_count)
    }

    /// The layer's own blob, where it has content of its own.
    #[must_use]
    pub fn own_blob(&self) -> Option<&Blob> {
        let id = BlobId::from_sha256(&self.sha256);
        self.blobs.iter().find(|blob| blob.id == id)
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
    fn fill(self, entries: &mut Entries, own: BlobIndex, place: impl Fn(u32) -> Place) {
        for (file, first, end) in self.files {
            let chunk = |n| match place(n) {
                Place::Own(number) => ChunkRef { blob: own, chunk: ChunkIndex(number) },
                Place::Dict(chunk) => chunk,
            };
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
        let (chunked, files) = stream((options.chunks, &options.dict), out, |feed, files| {
            read_all(source, &mut entries, feed, files)
        })?;
        files.fill(&mut entries, own_blob(&options.dict)?, |n| chunked.order[n as usize]);
        chunked
    } else {
        hot::build(source, &mut entries, out, options)?
    };
    finish(chunked.sink, chunked.chunks, entries, options)
}

/// Index of the layer's own blob: behind those of the dictionary.
fn own_blob(dict: &ChunkDict) -> Result<BlobIndex, BuildError> {
    let count = dict.blobs().len();
    let limit = MAX_BLOBS as u64;
    let too_many = || FormatError::TooLarge { what: "blobs of the dictionary", found: count as u64, limit };
    let index = u8::try_from(count).ok().filter(|_| count < MAX_BLOBS);
    index.map(BlobIndex).ok_or_else(too_many).map_err(BuildError::format("chunk dictionary"))
}

/// Runs a pipeline while `feed` feeds it.
fn stream<S: pipeline::Sink>(
    (options, dict): (ChunkOptions, &ChunkDict),
    sink: S,
    feed: impl FnOnce(&mut Feed, &mut FileChunks) -> Result<(), BuildError>,
) -> Result<(Chunked<S>, FileChunks), BuildError> {
    let known = dict.known();
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
    let mut blobs = options.dict.blobs().to_vec();
    if !chunks.is_empty() {
        let mut blob = tail.blob.clone();
        blob.chunks = chunks.into_iter().collect();
        blobs.push(blob);
    }
    tree.blobs.clone_from(&blobs);
    if options.hide_whiteouts {
        let mut alone = Overlay::new(chunk_size, Rules::Nydus);
        alone.push(&tree, "the layer")?;
        tree = alone.finish();
    }
    tree.prefetch = options.prefetch.inodes(&tree);
    out.write_all(&tail.bytes).map_err(BuildError::write("blob"))?;
    let mut written = None;
    if options.inline_bootstrap {
        written = Some(written_bootstrap(&tree)?);
    }
    let inline = written.as_ref().map(|written| written.bytes.as_slice());
    let end = tail.finish(inline, data_sha256).map_err(BuildError::format("end of blob"))?;
    out.write_all(&end).map_err(BuildError::write("blob"))?;
    let (sha256, size) = out.state().map_err(BuildError::write("blob"))?;
    let id = BlobId::from_sha256(&sha256);
    let unnamed = tail.blob.id.clone();
    for blob in blobs.iter_mut().chain(&mut tree.blobs).filter(|blob| blob.id == unnamed) {
        blob.id = id.clone();
        if !options.inline_bootstrap {
            blob.compressed_size = size;
        }
    }
    let written = written.map_or_else(|| written_bootstrap(&tree), Ok)?;
    let named = |found: BlobId| if found == unnamed { id.clone() } else { found };
    let blob_ids = written.blobs.into_iter().map(named).collect();
    let bootstrap = written.bytes;
    Ok(BuiltLayer { entries, blobs, blob_ids, bootstrap, sha256, size, blob_meta })
}

/// The bytes of a tree's bootstrap.
///
/// # Errors
/// [`BuildError::Format`] for a tree that the format cannot hold.
pub fn write_bootstrap(tree: &Tree) -> Result<Vec<u8>, BuildError> {
    written_bootstrap(tree).map(|written| written.bytes)
}

fn written_bootstrap(tree: &Tree) -> Result<WrittenBootstrap, BuildError> {
    BootstrapWriter::new(tree).write().map_err(|error| match error {
        FormatError::Inode { nid, what, problem } => {
            let path = u32::try_from(nid).ok().and_then(|id| tree.path_of(InodeId(id)));
            BuildError::entry(&path.unwrap_or_default(), format!("cannot be written: its {what} {problem}"))
        }
        other => BuildError::format("bootstrap")(other),
    })
}

/// Cuts the stored table and its header out of the tail, and makes the local form of them.
fn local_meta(tail: &BlobTail, data_len: u64) -> Result<Vec<u8>, BuildError> {
    const HEADER: usize = 4096;
    let in_memory = |n: u64| usize::try_from(n).expect("the table is in memory");
    let table = &tail.bytes[in_memory(tail.blob.ci.offset - data_len)..];
    let (table, rest) = table.split_at(in_memory(tail.blob.ci.compressed_size));
    rafs::blob::local_blob_meta(&tail.blob, table, &rest[..HEADER]).map_err(BuildError::format("blob meta"))
}

#[cfg(test)]
mod tests {
    use rafs::{Inode, Kind, Meta};

    use super::*;

    #[test]
    fn attributes_that_do_not_fit_are_an_error_of_their_file() {
        for sizes in [&[65_536][..], &[65_000; 5]] {
            let mut tree = Tree::new(1 << 20);
            let names = (0..sizes.len()).map(|number| format!("user.{number}").into_bytes());
            let xattrs = names.zip(sizes.iter().map(|size| vec![0; *size])).collect();
            let file = tree.add(Inode { meta: Meta { xattrs, ..Meta::default() }, kind: Kind::Fifo });
            let directory =
                Inode { meta: Meta::default(), kind: Kind::Directory([(b"pipe".to_vec(), file)].into()) };
            let directory = tree.add(directory);
            tree.children_mut(Tree::ROOT).unwrap().insert(b"dir".to_vec(), directory);
            let error = write_bootstrap(&tree).unwrap_err().to_string();
            assert!(error.contains("\"/dir/pipe\"") && error.contains("extended attribute"), "{error}");
        }
    }
}
