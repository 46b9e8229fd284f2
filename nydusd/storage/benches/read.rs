//! What a read costs when its bytes are in the cache, and what planning costs when they are not.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::{hint::black_box, ops::Range};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rafs::BlobIndex;
use storage::{
    BlobSet, CacheDir, ReadPolicy, plan,
    testing::{MemBackend, TestBlob},
};

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
    let mut group = c.benchmark_group("try_read_hit");
    for size in [4 << 10, 128 << 10, 1 << 20] {
        let mut buf = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{} KiB", size >> 10), |b| {
            b.iter(|| assert!(set.try_read(BlobIndex(0), 12_288, black_box(&mut buf)).unwrap()));
        });
    }
}

fn plan(c: &mut Criterion) {
    let wanted: Vec<Range<u64>> = (0..1000).map(|n| n * 5000..n * 5000 + 3000 + n % 3000).collect();
    c.bench_function("merge_1000", |b| b.iter(|| plan::merge(black_box(&wanted), 64 << 10, 4 << 20)));
}

criterion_group!(benches, hit, plan);
criterion_main!(benches);
