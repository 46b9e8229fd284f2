//! The calls that a FUSE daemon makes for each request: lookup, attributes, extents.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::collections::BTreeMap;
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
    criterion.bench_function("lookup among 3000", |bench| bench.iter(|| lookup(black_box(&names[next()]))));
    criterion.bench_function("attributes", |bench| {
        bench.iter(|| bootstrap.attributes(black_box(nids[next()])).expect("sound"));
    });
    criterion.bench_function("extents of 128 KiB", |bench| {
        bench.iter(|| bootstrap.extents(black_box(nids[next()]), 77 << 20, 128 << 10).expect("sound"));
    });
    criterion.bench_function("list 3000", |bench| {
        bench.iter(|| bootstrap.read_dir(bootstrap.root(), 0).expect("sound").map_while(Result::ok).count());
    });
}

criterion_group!(benches, metadata);
criterion_main!(benches);
