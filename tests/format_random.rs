//! What is written reads back, whatever the tree; what is broken is refused, without panic or endless loop.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "fuzz/src/explore.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets are another crate")]
mod explore;
#[path = "format/listing.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod listing;
#[path = "format/random.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod random;
#[path = "format/stored.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod stored;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rafs::blob::{CiLocation, feature, read_batches, read_ci, read_toc};
use rafs::{
    Blob, BlobId, BlobIndex, Bootstrap, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, Chunks, Compressor,
    Digest, DigestAlgorithm, Inode, InodeId, Kind, Meta, Tree,
};
use random::{image, steps};
use stored::StoredBlob;

/// The tree as the reader numbers it: breadth first, names sorted, nothing unreachable.
fn canonical(tree: &Tree) -> Tree {
    let mut to = Tree { inodes: Vec::new(), ..tree.clone() };
    let mut ids = HashMap::from([(Tree::ROOT, InodeId(0))]);
    to.add(tree.inode(Tree::ROOT).clone());
    let mut directories = VecDeque::from([Tree::ROOT]);
    while let Some(old) = directories.pop_front() {
        let mut children = BTreeMap::new();
        for (name, child) in tree.children(old).unwrap() {
            let id = *ids.entry(*child).or_insert_with(|| {
                if matches!(tree.inode(*child).kind, Kind::Directory(_)) {
                    directories.push_back(*child);
                }
                to.add(tree.inode(*child).clone())
            });
            children.insert(name.clone(), id);
        }
        to.inode_mut(ids[&old]).kind = Kind::Directory(children);
    }
    to.prefetch =
        if tree.blobs.is_empty() { Vec::new() } else { tree.prefetch.iter().map(|id| ids[id]).collect() };
    to
}

fn sample(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)).unwrap()
}

/// A blob that claims `count` chunks and tells of the last one alone.
fn boastful(number: u8, count: u32, features: u32) -> Blob {
    let record = if features & feature::CHUNK_INFO_V2 == 0 { 16 } else { 24 };
    let uncompressed_size = u64::from(count) * 4096;
    let chunk = Chunk {
        digest: Digest([1; 32]),
        compressed_offset: 0,
        compressed_size: 100,
        uncompressed_offset: uncompressed_size - 4096,
        uncompressed_size: 100,
        is_compressed: false,
        crc32c: None,
    };
    Blob {
        id: BlobId::from_sha256(&[number; 32]),
        compressor: Compressor::Zstd,
        digest_algorithm: DigestAlgorithm::Blake3,
        features: feature::ALIGNED | features,
        compressed_size: 1 << 30,
        uncompressed_size,
        chunk_count: count,
        ci: CiLocation {
            compressor: Compressor::Zstd,
            offset: 1 << 29,
            compressed_size: 1000,
            uncompressed_size: record * u64::from(count),
        },
        toc_size: 0,
        toc_digest: [0; 32],
        chunks: Chunks::from_iter([(ChunkIndex(count - 1), chunk)]),
    }
}

/// The most memory that opening and walking takes at one time, in bytes.
fn memory(bytes: &[u8]) -> u64 {
    let walk = || drop(Bootstrap::open(bytes).and_then(|bootstrap| bootstrap.to_tree()));
    let check = || drop(Bootstrap::open(bytes).and_then(|bootstrap| bootstrap.check_all()));
    allocation_counter::measure(walk).bytes_max.max(allocation_counter::measure(check).bytes_max)
}

/// What may be taken for so many bytes of a bootstrap: a record of a few bytes becomes an inode in memory.
fn allowance(bytes: &[u8]) -> u64 {
    32 * bytes.len() as u64
}

fn compressor() -> impl Strategy<Value = Compressor> {
    prop::sample::select(vec![Compressor::None, Compressor::Lz4Block, Compressor::Zstd])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_written_tree_reads_back(steps in steps(60), compressor in compressor()) {
        let image = image(&steps, compressor);
        let written = BootstrapWriter::new(&image.tree).write().unwrap();
        let bootstrap = Bootstrap::open(written.bytes).unwrap();
        prop_assert_eq!(bootstrap.to_tree().unwrap(), canonical(&image.tree));
        prop_assert_eq!(bootstrap.check_all(), Ok(()));
        let mut blobs: Vec<_> = bootstrap.blobs().iter().map(|_| StoredBlob::open(&bootstrap, 0, image.blob.clone())).collect();
        let listing = listing::read(&bootstrap, &mut blobs);
        prop_assert_eq!(listing.len() as u64, bootstrap.summary().inodes);
        prop_assert!(blobs.iter_mut().all(|blob| blob.image() == image.device));
        if let Some(blob) = bootstrap.blobs().first() {
            let toc = read_toc(&image.blob[image.blob.len() - blob.toc_size as usize..], image.blob.len() as u64);
            let names: Vec<_> = toc.unwrap().unwrap().into_iter().map(|entry| entry.name).collect();
            prop_assert_eq!(names, ["image.blob", "blob.meta", "blob.meta.header", "blob.digest"]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_corrupt_bootstrap_is_explored_to_an_end(
        name in prop::sample::select(vec!["lz4_block/bootstrap", "layers/bootstrap", "tarfs/bootstrap", "batch/bootstrap"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        // Most of a bootstrap is content; faults in its head and first inodes say more.
        head in any::<bool>(),
    ) {
        let mut bytes = sample(name);
        let end = if head { 16384 } else { bytes.len() };
        for (at, value) in changes {
            bytes[at.index(end)] = value;
        }
        explore::bootstrap(&bytes);
        prop_assert!(memory(&bytes) <= allowance(&bytes), "{}", memory(&bytes));
    }

    #[test]
    fn memory_follows_the_bytes_and_not_the_chunks_that_they_claim(
        // From 64 on, the table that a blob claims is longer than the 1,000 bytes it is stored in, as the writer demands.
        blobs in prop::collection::vec((64u32..=1 << 24, any::<bool>()), 1..254),
    ) {
        let mut tree = Tree::new(4096);
        for (index, (count, v2)) in (0..).zip(blobs) {
            tree.blobs.push(boastful(index, count, if v2 { feature::CHUNK_INFO_V2 } else { 0 }));
            let chunks = vec![ChunkRef { blob: BlobIndex(index), chunk: ChunkIndex(count - 1) }];
            let file = tree.add(Inode { meta: Meta::default(), kind: Kind::File { size: 100, chunks } });
            tree.children_mut(Tree::ROOT).unwrap().insert(format!("{index}").into(), file);
        }
        let bytes = BootstrapWriter::new(&tree).write().unwrap().bytes;
        prop_assert!(Bootstrap::open(&bytes).unwrap().to_tree().is_ok());
        prop_assert!(memory(&bytes) <= allowance(&bytes), "{} for {}", memory(&bytes), bytes.len());
    }

    #[test]
    fn a_chunk_table_takes_no_memory_for_what_its_bytes_cannot_give(
        count in 1u32..=1 << 24,
        features in prop::sample::select(vec![0, feature::CHUNK_INFO_V2, feature::CHUNK_INFO_V2 | feature::BATCH]),
        bytes in prop::collection::vec(any::<u8>(), 1000),
    ) {
        let blob = boastful(0, count, features);
        let read = || {
            drop(read_ci(&blob, &bytes, None));
            drop(read_batches(&blob, &bytes, None));
        };
        // Random bytes may claim to be a frame of one repeated byte.
        let most = allocation_counter::measure(read).bytes_max;
        prop_assert!(most <= 40 << 20, "{most}");
    }

    #[test]
    fn a_truncated_bootstrap_is_explored_to_an_end(len in any::<prop::sample::Index>(), blocks in any::<bool>()) {
        let mut bytes = sample("layers/bootstrap");
        let len = len.index(bytes.len());
        bytes.truncate(if blocks { len / 4096 * 4096 } else { len });
        explore::bootstrap(&bytes);
    }

    #[test]
    fn a_corrupt_blob_is_explored_to_an_end(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0..2000usize,
    ) {
        let mut bytes = sample("layers/af8586f848d68ac539d39e5fd59faf98637e2846f9a244bfe5118eaa57cc7828");
        let end = bytes.len();
        for (at, value) in changes {
            bytes[end - 1 - at.index(4096)] = value;
        }
        bytes.drain(..cut);
        explore::blob_tail(&bytes);
    }

    #[test]
    fn random_bytes_are_explored_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        explore::bootstrap(&bytes);
        explore::blob_tail(&bytes);
    }
}

#[test]
fn an_empty_chunk_table_is_empty_wherever_it_claims_to_stand() {
    let mut bytes = sample("lz4_block/bootstrap");
    bytes[1176..1184].copy_from_slice(&(u64::MAX << 12).to_le_bytes());
    bytes[1184..1192].fill(0);
    let bootstrap = Bootstrap::open(bytes.as_slice()).unwrap();
    assert_eq!(bootstrap.chunk_records().count(), 0);
    explore::bootstrap(&bytes);
}

/// A tree of a root and one directory in it.
fn two_directories() -> (Tree, InodeId) {
    let mut tree = Tree::new(4096);
    let inner = tree.add(rafs::Inode { meta: rafs::Meta::default(), kind: Kind::Directory(BTreeMap::new()) });
    tree.children_mut(Tree::ROOT).unwrap().insert(b"inner".to_vec(), inner);
    (tree, inner)
}

#[test]
fn a_name_that_leads_to_a_named_directory_or_nowhere_is_not_written() {
    let (tree, inner) = two_directories();
    assert!(BootstrapWriter::new(&tree).write().is_ok());
    let wrong: [(InodeId, &[u8], InodeId); 6] = [
        (inner, b"root", Tree::ROOT),
        (inner, b"itself", inner),
        (inner, b"none", InodeId(9)),
        (Tree::ROOT, b"again", inner),
        (Tree::ROOT, b"..", inner),
        (Tree::ROOT, b"a/b", inner),
    ];
    for (directory, name, to) in wrong {
        let mut tree = tree.clone();
        tree.children_mut(directory).unwrap().insert(name.to_vec(), to);
        assert!(BootstrapWriter::new(&tree).write().is_err(), "{}", name.escape_ascii());
    }
}

#[test]
fn a_directory_that_contains_itself_is_not_walked() {
    let (tree, _) = two_directories();
    let mut bytes = BootstrapWriter::new(&tree).write().unwrap().bytes;
    let bootstrap = Bootstrap::open(bytes.as_slice()).unwrap();
    let root = bootstrap.root();
    let (inner, _) = bootstrap.lookup(root, b"inner").unwrap().unwrap();
    // The root stands first, so this is its entry of the inner directory.
    let entry = bytes.windows(8).position(|window| window == inner.0.to_le_bytes()).unwrap();
    bytes[entry..entry + 8].copy_from_slice(&root.0.to_le_bytes());
    let looped = Bootstrap::open(bytes).unwrap();
    assert!(looped.to_tree().unwrap_err().to_string().contains("reached twice"));
    assert!(looped.check_all().unwrap_err().to_string().contains("reached twice"));
}
