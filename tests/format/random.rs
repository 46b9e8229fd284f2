//! Random images: a tree with every kind of inode, its chunks, and the blob file that holds them.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rafs::blob::{BlobLayout, BlobTail};
use rafs::{
    BlobIndex, Chunk, ChunkIndex, ChunkRef, Compressor, Digest, DigestAlgorithm, Encoder, Inode, InodeId,
    Kind, Meta, Tree,
};

pub(crate) const CHUNK: usize = 4096;

/// What to add to a tree; numbers choose among what is there.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Directory,
    File {
        len: usize,
        seed: u8,
    },
    /// Many files at once, for directories of several blocks.
    Crowd {
        count: u16,
    },
    HardLink {
        of: prop::sample::Index,
    },
    Symlink(Vec<u8>),
    Device {
        block: bool,
        rdev: u32,
    },
    Fifo,
    Socket,
}

/// One step, where, by which name, and with which attributes.
pub(crate) type Placed = (prop::sample::Index, Vec<u8>, Meta, Step);

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Directory),
        6 => (prop_oneof![Just(0), 1..200usize, 1..6 * CHUNK], any::<u8>())
            .prop_map(|(len, seed)| Step::File { len, seed }),
        1 => (1..400u16).prop_map(|count| Step::Crowd { count }),
        2 => any::<prop::sample::Index>().prop_map(|of| Step::HardLink { of }),
        2 => prop_oneof![prop::collection::vec(1..=255u8, 1..60), prop::collection::vec(1..=255u8, 3900..4096)]
            .prop_map(Step::Symlink),
        1 => (any::<bool>(), any::<u32>()).prop_map(|(block, rdev)| Step::Device { block, rdev }),
        1 => Just(Step::Fifo),
        1 => Just(Step::Socket),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = || (1..=255u8).prop_filter("no slash", |b| *b != b'/');
    prop_oneof![
        4 => prop::collection::vec(byte(), 1..12),
        1 => prop::collection::vec(byte(), 200..=255),
    ]
    .prop_filter("special names", |name| !matches!(name.as_slice(), b"." | b".."))
}

fn meta() -> impl Strategy<Value = Meta> {
    let rest = prop::collection::vec(1..=255u8, 1..20);
    let prefix = prop::sample::select(vec![b"user.".as_slice(), b"trusted.", b"security."]);
    let xattr_name = (prefix, rest).prop_map(|(prefix, rest)| [prefix, &rest].concat());
    let value = prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..40), 1 => prop::collection::vec(any::<u8>(), 5000)];
    let xattrs =
        prop_oneof![3 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(xattr_name, value, 1..4)];
    // The kernel cuts times at what its time type holds.
    let mtime = prop_oneof![-2_000_000_000..4_000_000_000i64, Just(0)];
    (0..0o10000u16, 0..u32::MAX, 0..u32::MAX, mtime, 0..1_000_000_000u32, xattrs).prop_map(
        |(permissions, uid, gid, mtime, mtime_nsec, xattrs)| Meta {
            permissions,
            uid,
            gid,
            mtime,
            mtime_nsec,
            xattrs,
        },
    )
}

/// Steps of a random tree.
pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Placed>> {
    prop::collection::vec((any::<prop::sample::Index>(), name(), meta(), step()), 0..most)
}

/// A tree, what is in its files, and the blob file without an end for the bootstrap.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) tree: Tree,
    pub(crate) blob: Vec<u8>,
    /// The uncompressed image of the blob.
    pub(crate) device: Vec<u8>,
}

/// Makes the image of some steps.
pub(crate) fn image(steps: &[Placed], compressor: Compressor) -> Image {
    let mut tree = Tree::new(u32::try_from(CHUNK).unwrap());
    let mut chunks = Chunks::new(compressor);
    let mut directories = vec![Tree::ROOT];
    let mut files = Vec::new();
    for (at, name, meta, step) in steps {
        let parent = *at.get(&directories);
        if tree.children(parent).unwrap().contains_key(name) {
            continue;
        }
        let kind = match step {
            Step::HardLink { of } if files.is_empty() => Kind::Symlink(vec![b'x'; of.index(9) + 1]),
            Step::HardLink { of } => {
                let file = *of.get(&files);
                tree.children_mut(parent).unwrap().insert(name.clone(), file);
                continue;
            }
            Step::Directory | Step::Crowd { .. } => Kind::Directory(BTreeMap::new()),
            Step::File { len, seed } => chunks.file(&content(*len, *seed)),
            Step::Symlink(target) => Kind::Symlink(target.clone()),
            Step::Device { block: true, rdev } => Kind::BlockDevice(*rdev),
            Step::Device { block: false, rdev } => Kind::CharDevice(*rdev),
            Step::Fifo => Kind::Fifo,
            Step::Socket => Kind::Socket,
        };
        let is_file = matches!(kind, Kind::File { .. });
        let id = add(&mut tree, parent, name, Inode { meta: meta.clone(), kind });
        match step {
            Step::Directory => directories.push(id),
            Step::Crowd { count } => crowd(&mut tree, id, *count),
            _ if is_file => files.push(id),
            _ => {}
        }
    }
    tree.prefetch = files.iter().rev().take(3).copied().chain([Tree::ROOT]).collect();
    chunks.finish(tree)
}

fn add(tree: &mut Tree, parent: InodeId, name: &[u8], inode: Inode) -> InodeId {
    let id = tree.add(inode);
    tree.children_mut(parent).unwrap().insert(name.to_vec(), id);
    id
}

fn crowd(tree: &mut Tree, directory: InodeId, count: u16) {
    for number in 0..count {
        let name = format!("{number}-{}", "n".repeat(usize::from(number) % 40));
        let kind = Kind::File { size: 0, chunks: Vec::new() };
        add(tree, directory, name.as_bytes(), Inode { meta: Meta::default(), kind });
    }
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    // Periods longer than a chunk, so that most chunks differ; seeds of few values, so that some do not.
    (0..len).map(|at| (at / 97).to_le_bytes()[0] ^ (seed & 0xF) ^ (at % 31).to_le_bytes()[0]).collect()
}

struct Chunks {
    compressor: Compressor,
    encoder: Encoder,
    known: HashMap<(Digest, usize), ChunkIndex>,
    chunks: Vec<Chunk>,
    blob: Vec<u8>,
    device: Vec<u8>,
}

impl Chunks {
    fn new(compressor: Compressor) -> Self {
        let encoder = Encoder::new(compressor).unwrap();
        let known = HashMap::new();
        Self { compressor, encoder, known, chunks: Vec::new(), blob: Vec::new(), device: Vec::new() }
    }

    fn file(&mut self, content: &[u8]) -> Kind {
        let chunks =
            content.chunks(CHUNK).map(|chunk| ChunkRef { blob: BlobIndex(0), chunk: self.chunk(chunk) });
        Kind::File { size: content.len() as u64, chunks: chunks.collect() }
    }

    fn chunk(&mut self, plain: &[u8]) -> ChunkIndex {
        let digest = DigestAlgorithm::Blake3.digest(plain);
        if let Some(known) = self.known.get(&(digest, plain.len())) {
            return *known;
        }
        let packed = self.encoder.encode(plain);
        let stored = packed.unwrap_or(plain);
        self.chunks.push(Chunk {
            digest,
            compressed_offset: self.blob.len() as u64,
            compressed_size: u32::try_from(stored.len()).unwrap(),
            uncompressed_offset: self.device.len() as u64,
            uncompressed_size: u32::try_from(plain.len()).unwrap(),
            is_compressed: packed.is_some(),
            crc32c: None,
        });
        self.blob.extend_from_slice(stored);
        self.device.extend_from_slice(plain);
        self.device.resize(self.device.len().next_multiple_of(4096), 0);
        let index = ChunkIndex(u32::try_from(self.chunks.len() - 1).unwrap());
        self.known.insert((digest, plain.len()), index);
        index
    }

    fn finish(mut self, mut tree: Tree) -> Image {
        let layout = BlobLayout {
            compressor: self.compressor,
            digest_algorithm: DigestAlgorithm::Blake3,
            inline_bootstrap: false,
            toc: true,
        };
        let tail = BlobTail::new(layout, &self.chunks, tree.chunk_size).unwrap();
        if !self.chunks.is_empty() {
            self.blob.extend_from_slice(&tail.bytes);
            self.blob.extend_from_slice(&tail.finish(None, [0; 32]).unwrap());
            let chunks = self.chunks.into_iter().collect();
            tree.blobs.push(rafs::Blob { chunks, ..tail.blob });
            assert_eq!(self.blob.len() as u64, tree.blobs[0].compressed_size);
        }
        Image { tree, blob: self.blob, device: self.device }
    }
}
