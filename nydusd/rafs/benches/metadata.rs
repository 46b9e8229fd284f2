//! The calls that a FUSE daemon makes for each request: lookup, attributes, extents.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

#[path = "support/ratio.rs"]
mod ratio;

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rafs::blob::{BlobLayout, BlobTail};
use rafs::{
    BlobIndex, Bootstrap, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, Compressor, Digest, DigestAlgorithm,
    Inode, Kind, Meta, Nid, Tree,
};

const FILES: u32 = 3000;
const CHUNK: u32 = 1 << 20;
const CHUNKS: u32 = 256;

fn name(number: u32) -> Vec<u8> {
    format!("entry-{number:04}-with-a-rather-long-file-name.txt").into_bytes()
}

/// A directory of many files, each with 256 MiB in the same chunks.
fn bootstrap() -> Bootstrap<Vec<u8>> {
    let chunk = |number: u32| Chunk {
        digest: Digest([1; 32]),
        compressed_offset: u64::from(number) * u64::from(CHUNK),
        compressed_size: CHUNK,
        uncompressed_offset: u64::from(number) * u64::from(CHUNK),
        uncompressed_size: CHUNK,
        is_compressed: false,
        crc32c: None,
    };
    let chunks: Vec<_> = (0..CHUNKS).map(chunk).collect();
    let layout = BlobLayout {
        compressor: Compressor::None,
        digest_algorithm: DigestAlgorithm::Blake3,
        inline_bootstrap: false,
        toc: false,
    };
    let tail = BlobTail::new(layout, &chunks, CHUNK).expect("chunks follow one another");
    let mut tree = Tree::new(CHUNK);
    tree.blobs.push(rafs::Blob { chunks: chunks.into_iter().collect(), ..tail.blob });
    let refs: Vec<_> =
        (0..CHUNKS).map(|chunk| ChunkRef { blob: BlobIndex(0), chunk: ChunkIndex(chunk) }).collect();
    let size = u64::from(CHUNK) * u64::from(CHUNKS);
    let mut children = BTreeMap::new();
    for number in 0..FILES {
        let kind = Kind::File { size, chunks: refs.clone() };
        children.insert(name(number), tree.add(Inode { meta: Meta::default(), kind }));
    }
    tree.inode_mut(Tree::ROOT).kind = Kind::Directory(children);
    let written = BootstrapWriter::new(&tree).write().expect("the tree is sound");
    Bootstrap::open(written.bytes).expect("what was written opens")
}

fn metadata(criterion: &mut Criterion) {
    let bootstrap = bootstrap();
    let names: Vec<_> = (0..FILES).map(name).collect();
    let lookup = |name: &[u8]| bootstrap.lookup(bootstrap.root(), name).expect("sound").expect("there").0;
    let nids: Vec<Nid> = names.iter().map(|name| lookup(name)).collect();
    // A stride without common factor visits all in an order that caches do not foresee.
    let mut at = 0;
    let mut next = move || {
        at = (at + 1009) % FILES as usize;
        at
    };
    let by_name: BTreeMap<&[u8], Nid> = names.iter().map(Vec::as_slice).zip(nids.iter().copied()).collect();
    let in_memory = |name: &[u8]| *by_name.get(name).expect("there");
    let mut other = next;
    ratio::compare(
        criterion,
        "lookup among 3000",
        ("a BTreeMap", || in_memory(black_box(&names[other()]))),
        || lookup(black_box(&names[next()])),
    );
    let attributes: HashMap<Nid, _> =
        nids.iter().map(|nid| (*nid, bootstrap.attributes(*nid).expect("sound"))).collect();
    ratio::compare(
        criterion,
        "attributes",
        ("a HashMap", || attributes.get(black_box(&nids[other()])).expect("there").size),
        || bootstrap.attributes(black_box(nids[next()])).expect("sound"),
    );
    ratio::compare(
        criterion,
        "extents of 128 KiB",
        ("its attributes", || bootstrap.attributes(black_box(nids[other()])).expect("sound")),
        || bootstrap.extents(black_box(nids[next()]), 77 << 20, 128 << 10).expect("sound"),
    );
    ratio::compare(
        criterion,
        "list 3000",
        ("a BTreeMap", || by_name.keys().map(|name| black_box(name).len()).sum::<usize>()),
        || bootstrap.read_dir(bootstrap.root(), 0).expect("sound").map_while(Result::ok).count(),
    );
}

criterion_group!(benches, metadata);
criterion_main!(benches);
