//! What a read costs when its bytes are in the cache, and what planning costs when they are not.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "../../rafs/benches/support/ratio.rs"]
mod ratio;

use std::{fs::File, hint::black_box, ops::Range, os::unix::fs::FileExt};

use criterion::{Criterion, criterion_group, criterion_main};
use rafs::BlobIndex;
use storage::{
    BlobSet, CacheDir, ReadPolicy, plan,
    testing::{MemBackend, TestBlob},
};

const AT: u64 = 12_288;

/// A hit against a plain read of the same bytes from a file.
fn hit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let blob = TestBlob::new(1, &[256 << 10; 64]);
    let _entered = runtime.enter();
    let cache = CacheDir::open(dir.path()).unwrap();
    let backend = MemBackend::new(&[&blob]);
    let set = BlobSet::from_blobs(std::slice::from_ref(&blob.blob), &cache, backend, ReadPolicy::default());
    let set = set.unwrap();
    let len = u32::try_from(blob.image.len()).unwrap();
    runtime.block_on(set.clone().read(BlobIndex(0), 0, len)).unwrap();
    runtime.block_on(set.close());
    let path = dir.path().join("plain");
    std::fs::write(&path, &blob.image).unwrap();
    let plain = File::open(path).unwrap();
    for size in [4 << 10, 128 << 10, 1 << 20] {
        let (mut theirs, mut ours) = (vec![0; size], vec![0; size]);
        ratio::compare(
            c,
            &format!("hit of {} KiB", size >> 10),
            ("a plain read", || plain.read_exact_at(black_box(&mut theirs), AT).unwrap()),
            || assert!(set.try_read(BlobIndex(0), AT, black_box(&mut ours)).unwrap()),
        );
    }
}

/// Planning against looking at every range once.
fn plan(c: &mut Criterion) {
    let wanted: Vec<Range<u64>> = (0..1000).map(|n| n * 5000..n * 5000 + 3000 + n % 3000).collect();
    ratio::compare(
        c,
        "merge of 1000 ranges",
        ("adding up their lengths", || black_box(&wanted).iter().map(|r| r.end - r.start).sum::<u64>()),
        || plan::merge(black_box(&wanted), 64 << 10, 4 << 20),
    );
}

criterion_group!(benches, hit, plan);
criterion_main!(benches);
