mod batch;

use std::time::Instant;

use futures_util::future::join_all;

use super::*;
use crate::testing::{Fault, FaultBackend, MemBackend, SlowBackend, TestBlob};

const BLOB: BlobIndex = BlobIndex(0);

struct Setup {
    dir: tempfile::TempDir,
    cache: Arc<CacheDir>,
    blob: TestBlob,
    memory: Arc<MemBackend>,
}

fn setup(sizes: &[u32]) -> Setup {
    setup_of(TestBlob::new(1, sizes))
}

fn setup_of(blob: TestBlob) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let cache = CacheDir::open(dir.path()).unwrap();
    let memory = MemBackend::new(&[&blob]);
    Setup { dir, cache, blob, memory }
}

fn quick() -> ReadPolicy {
    let (deadline, stall) = (Duration::from_secs(5), Duration::from_millis(300));
    ReadPolicy { deadline, stall, backoff: Duration::from_millis(5), ..ReadPolicy::default() }
}

impl Setup {
    fn open(&self, backend: Arc<dyn Backend>, policy: ReadPolicy) -> Arc<BlobSet> {
        BlobSet::from_blobs(std::slice::from_ref(&self.blob.blob), &self.cache, backend, policy).unwrap()
    }

    fn faulty(&self, faults: &[(usize, Fault)]) -> Arc<BlobSet> {
        self.open(FaultBackend::new(self.memory.clone(), faults.iter().copied()), quick())
    }

    async fn assert_reads(&self, set: &Arc<BlobSet>, offset: usize, len: usize) {
        let bytes = set.clone().read(BLOB, offset as u64, u32::try_from(len).unwrap()).await.unwrap();
        assert!(bytes == self.blob.image[offset..offset + len], "{offset}+{len}");
    }
}

/// Waits until all fetches have ended.
async fn settle(set: &BlobSet) {
    for _ in 0..1000 {
        if set.fetcher.tasks.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("fetches do not end");
}

#[tokio::test]
async fn a_read_gives_the_bytes_of_the_image_first_from_the_backend_then_from_the_cache() {
    let setup = setup(&[5000, 100, 40_000, 4096]);
    let set = setup.open(setup.memory.clone(), quick());
    let mut buf = vec![1; 9000];
    assert!(!set.try_read(BLOB, 4000, &mut buf).unwrap());
    setup.assert_reads(&set, 4000, 9000).await;
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
    settle(&set).await;
    assert!(set.try_read(BLOB, 4000, &mut buf).unwrap());
    assert_eq!(buf, setup.blob.image[4000..13_000]);
    let reads = set.reads();
    assert_eq!((reads.ready_chunks, reads.chunks, reads.failures), (4, 4, 0));
    assert_eq!(reads.fetched_bytes, setup.blob.file.len() as u64);
}

#[tokio::test]
async fn a_range_outside_the_blob_is_refused() {
    let setup = setup(&[5000]);
    let set = setup.open(setup.memory.clone(), quick());
    let refused = |result| matches!(result, Err(StorageError::OutOfRange { .. }));
    assert!(refused(set.try_read(BLOB, 8000, &mut [0; 500]).map(drop)));
    assert!(refused(set.try_read(BlobIndex(1), 0, &mut [0; 5]).map(drop)));
    assert!(refused(set.try_read(BLOB, u64::MAX - 1, &mut [0; 5]).map(drop)));
    assert!(refused(set.clone().read(BLOB, u64::MAX, 9).await.map(drop)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_readers_make_one_fetch_of_each_chunk() {
    let setup = Arc::new(setup(&[30_000; 60]));
    let slow = SlowBackend::new(setup.memory.clone(), Duration::from_millis(2), 50_000_000);
    let policy = ReadPolicy { window: 0, ..quick() };
    let set = setup.open(slow, policy);
    let read = |n: usize| {
        let (setup, set) = (setup.clone(), set.clone());
        tokio::spawn(async move {
            for i in 0..60 {
                setup.assert_reads(&set, (i * 7 + n * 13) % 60 * 32_768 + n % 100, 20_000).await;
            }
        })
    };
    for reader in join_all((0..300).map(read)).await {
        reader.unwrap();
    }
    settle(&set).await;
    assert_eq!(set.reads().fetched_bytes, setup.blob.file.len() as u64, "no byte came twice");
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_stop_the_fetch() {
    let setup = setup(&[30_000; 4]);
    let slow = SlowBackend::new(setup.memory.clone(), Duration::from_millis(50), 50_000_000);
    let set = setup.open(slow, quick());
    let read = tokio::time::timeout(Duration::from_millis(10), set.clone().read(BLOB, 0, 100));
    assert!(read.await.is_err());
    settle(&set).await;
    assert!(set.try_read(BLOB, 0, &mut [0; 100]).unwrap());
}

#[tokio::test]
async fn a_refused_broken_or_short_answer_is_asked_for_again() {
    for fault in [Fault::Refuse { retryable: true }, Fault::Break, Fault::Short, Fault::Stall, Fault::Corrupt]
    {
        let setup = setup(&[60_000; 3]);
        let set = setup.faulty(&[(0, fault)]);
        setup.assert_reads(&set, 0, setup.blob.image.len()).await;
        assert_eq!(set.reads().failures, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_for_good_fails_the_read_and_the_next_read_tries_again() {
    let setup = setup(&[6000; 3]);
    let set = setup.faulty(&[(0, Fault::Refuse { retryable: false })]);
    let error = set.clone().read(BLOB, 0, 100).await.unwrap_err();
    assert!(matches!(error, StorageError::Fetch { chunk: rafs::ChunkIndex(0), .. }), "{error}");
    setup.assert_reads(&set, 0, 100).await;
    assert_eq!(set.reads().failures, 1);
}

#[tokio::test]
async fn a_flipped_blob_fails_reads_until_it_is_right_again() {
    let setup = setup(&[6000; 3]);
    let set = setup.open(setup.memory.clone(), quick());
    let mut flipped = setup.blob.file.to_vec();
    let last = flipped.len() - 9;
    flipped[last] ^= 4;
    setup.memory.put(setup.blob.blob.id.clone(), flipped.into());
    let error = set.clone().read(BLOB, 2 * 8192, 100).await.unwrap_err();
    let named = matches!(error, StorageError::Digest { chunk, .. } | StorageError::Decode { chunk, .. } if chunk.0 == 2);
    assert!(named, "{error}");
    assert!(!set.try_read(BLOB, 2 * 8192, &mut [0; 1]).unwrap());
    setup.assert_reads(&set, 0, 100).await;
    setup.memory.put(setup.blob.blob.id.clone(), setup.blob.file.clone());
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
}

#[tokio::test]
async fn a_read_ends_at_its_deadline() {
    let setup = setup(&[6000; 3]);
    let policy = ReadPolicy { deadline: Duration::from_millis(100), ..quick() };
    let stalled = (0..100).map(|n| (n, Fault::Stall));
    let set = setup.open(FaultBackend::new(setup.memory.clone(), stalled), policy);
    let begin = Instant::now();
    let error = set.clone().read(BLOB, 0, 100).await.unwrap_err();
    assert!(matches!(error, StorageError::Deadline { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    settle(&set).await;
}

#[tokio::test]
async fn closing_fails_waiting_reads_and_ends_every_task() {
    let setup = setup(&[6000; 3]);
    let set = setup.faulty(&[(0, Fault::Stall), (1, Fault::Stall)]);
    let waiting = tokio::spawn(set.clone().read(BLOB, 0, 100));
    tokio::time::sleep(Duration::from_millis(20)).await;
    set.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(StorageError::Closed { .. })));
    assert!(set.fetcher.tasks.is_empty());
}

#[tokio::test]
async fn a_closed_cache_is_there_for_the_next_process() {
    let setup = setup(&[6000; 30]);
    let set = setup.open(setup.memory.clone(), quick());
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
    set.close().await;
    drop(set);
    let again = CacheDir::open(setup.dir.path()).unwrap();
    let nothing = MemBackend::new(&[]);
    let set = BlobSet::from_blobs(std::slice::from_ref(&setup.blob.blob), &again, nothing, quick()).unwrap();
    let mut buf = vec![0; setup.blob.image.len()];
    assert!(set.try_read(BLOB, 0, &mut buf).unwrap());
    assert_eq!(buf, setup.blob.image);
}

#[tokio::test]
async fn a_second_daemon_on_the_same_directory_has_a_cache_of_its_own() {
    let setup = setup(&[6000; 3]);
    let first = setup.open(setup.memory.clone(), quick());
    let other = CacheDir::open(setup.dir.path()).unwrap();
    let second =
        BlobSet::from_blobs(std::slice::from_ref(&setup.blob.blob), &other, setup.memory.clone(), quick())
            .unwrap();
    setup.assert_reads(&first, 0, setup.blob.image.len()).await;
    setup.assert_reads(&second, 0, setup.blob.image.len()).await;
    assert_eq!(setup.memory.requests().len(), 2);
}

#[tokio::test]
async fn images_that_agree_share_a_cache_and_one_that_does_not_poisons_nobody() {
    let setup = setup(&[6000; 3]);
    let hostile = {
        let mut blob = setup.blob.blob.clone();
        let mut chunks: Vec<_> = blob.chunks.iter().map(|(_, chunk)| *chunk).collect();
        chunks[1].digest = chunks[0].digest;
        blob.chunks = chunks.into_iter().collect();
        BlobSet::from_blobs(&[blob], &setup.cache, setup.memory.clone(), quick()).unwrap()
    };
    assert!(hostile.clone().read(BLOB, 8192, 100).await.is_err());
    let first = setup.open(setup.memory.clone(), quick());
    setup.assert_reads(&first, 0, setup.blob.image.len()).await;
    let second = setup.open(MemBackend::new(&[]), quick());
    settle(&first).await;
    setup.assert_reads(&second, 0, setup.blob.image.len()).await;
    assert!(hostile.clone().read(BLOB, 8192, 100).await.is_err());
}

#[tokio::test]
async fn an_image_whose_source_is_dead_does_not_hold_up_another_with_the_same_blob() {
    let setup = setup(&[6000; 3]);
    let dead = SlowBackend::new(setup.memory.clone(), Duration::from_secs(600), 1);
    let (dead, alive) = (setup.open(dead, quick()), setup.open(setup.memory.clone(), quick()));
    let waiting = tokio::spawn(dead.clone().read(BLOB, 0, 100));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begin = Instant::now();
    setup.assert_reads(&alive, 0, 100).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(waiting.await.unwrap().is_ok(), "what one has fetched is everyone's");
}

#[tokio::test]
async fn without_a_usable_disk_reads_come_from_the_network() {
    let setup = setup(&[6000; 3]);
    // A file where the blob's directory should be.
    std::fs::write(setup.dir.path().join(setup.blob.blob.id.as_str()), "").unwrap();
    let set = setup.open(setup.memory.clone(), quick());
    for _ in 0..2 {
        setup.assert_reads(&set, 0, setup.blob.image.len()).await;
        settle(&set).await;
    }
    assert!(!set.try_read(BLOB, 0, &mut [0; 1]).unwrap());
}

#[tokio::test]
async fn a_miss_brings_its_neighbours_in_one_request() {
    let setup = setup(&[6000; 40]);
    let policy = ReadPolicy { window: 20_000, ..quick() };
    let set = setup.open(setup.memory.clone(), policy);
    setup.assert_reads(&set, 8192, 100).await;
    settle(&set).await;
    let requests = setup.memory.requests();
    assert_eq!(requests.len(), 1);
    let len = requests[0].1.end - requests[0].1.start;
    assert!((10_000..=20_000).contains(&len), "{len}");
}

#[tokio::test]
async fn reading_through_a_blob_takes_few_and_large_requests() {
    let setup = setup(&[65_536; 100]);
    let policy = ReadPolicy { window: 100_000, max_request: 1 << 20, ..quick() };
    let set = setup.open(setup.memory.clone(), policy);
    for place in 0..100 {
        let mut buf = [0; 65_536];
        if !set.try_read(BLOB, place * 65_536, &mut buf).unwrap() {
            setup.assert_reads(&set, usize::try_from(place).unwrap() * 65_536, 65_536).await;
        }
    }
    settle(&set).await;
    let requests = setup.memory.requests().len();
    assert!(requests <= 12, "{requests} requests for {} bytes", setup.blob.file.len());
    assert_eq!(set.reads().fetched_bytes, setup.blob.file.len() as u64);
}

#[tokio::test]
async fn the_demanded_chunk_is_answered_before_its_neighbours_have_come() {
    let setup = setup(&[60_000; 16]);
    let slow = SlowBackend::new(setup.memory.clone(), Duration::ZERO, 500_000);
    let set = setup.open(slow, quick());
    let begin = Instant::now();
    setup.assert_reads(&set, 0, 100).await;
    let (answered, received) = (begin.elapsed(), set.reads().fetched_bytes);
    assert!(received < setup.blob.file.len() as u64 / 2, "{answered:?}, {received} bytes");
}

#[tokio::test]
async fn prefetch_fetches_its_ranges_in_large_requests_below_readers() {
    let setup = setup(&[6000; 100]);
    let set = setup.open(setup.memory.clone(), quick());
    set.prefetch(vec![(BLOB, 8192 * 50..8192 * 60), (BLOB, 0..8192 * 20), (BlobIndex(9), 0..1)]);
    settle(&set).await;
    let requests = setup.memory.requests();
    assert!(requests.len() <= 2, "{requests:?}");
    assert!(requests.iter().all(|(_, _, priority)| *priority == crate::backend::Priority::Prefetch));
    let (figures, all) = (set.reads().prefetch, set.reads());
    assert_eq!((figures.bytes, figures.requests), (all.fetched_bytes, all.requests));
    assert_eq!((figures.chunks, figures.running), (30, 0));
    assert!(figures.began.is_some() && figures.ended >= figures.began);
    assert!(set.try_read(BLOB, 8192 * 50, &mut [0; 80_000]).unwrap());
    assert!(!set.try_read(BLOB, 8192 * 60, &mut [0; 10]).unwrap());
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_prefetch_that_is_far_from_its_chunk() {
    let setup = setup(&[60_000; 60]);
    let slow = SlowBackend::new(setup.memory.clone(), Duration::from_millis(1), 1_000_000);
    let policy = ReadPolicy { window: 0, patience: 100_000, ..quick() };
    let set = setup.open(slow, policy);
    set.prefetch(vec![(BLOB, 0..setup.blob.blob.uncompressed_size)]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    setup.assert_reads(&set, 59 * 61_440, 100).await;
    let whole = Duration::from_secs_f64(setup.blob.file.len() as f64 / 1e6);
    assert!(begin.elapsed() < whole / 2, "{:?} of {whole:?}", begin.elapsed());
    set.close().await;
}

#[tokio::test]
async fn a_prefetch_of_very_many_tiny_chunks_brings_all_of_them() {
    let setup = setup(&[1; 20_000]);
    let set = setup.open(setup.memory.clone(), quick());
    set.prefetch(vec![(BLOB, 0..setup.blob.blob.uncompressed_size)]);
    settle(&set).await;
    assert_eq!(set.reads().ready_chunks, 20_000);
}

#[tokio::test]
async fn a_chunk_that_the_disk_loses_is_fetched_again() {
    let setup = setup(&[6000; 3]);
    let set = setup.open(setup.memory.clone(), quick());
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
    settle(&set).await;
    let data = setup.dir.path().join(setup.blob.blob.id.as_str()).join("0/data");
    std::fs::OpenOptions::new().write(true).open(data).unwrap().set_len(0).unwrap();
    assert!(!set.try_read(BLOB, 0, &mut [0; 100]).unwrap());
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_right_bytes_or_an_error_whatever_the_backend_does() {
    let faults = [Fault::Refuse { retryable: true }, Fault::Break, Fault::Short, Fault::Corrupt];
    let setup = Arc::new(setup(&[20_000; 50]));
    let set = setup.faulty(&(0..400).map(|n| (n * 2, faults[n % 4])).collect::<Vec<_>>());
    let readers = (0..20).map(|n| tokio::spawn(read_about(setup.clone(), set.clone(), n)));
    for reader in join_all(readers).await {
        reader.unwrap();
    }
}

async fn read_about(setup: Arc<Setup>, set: Arc<BlobSet>, seed: usize) {
    for n in (0..50).map(|n| (seed * 50 + n) * 7919) {
        let (offset, len) = (n % 900_000, n % 60_000 + 1);
        if let Ok(bytes) = set.clone().read(BLOB, offset as u64, u32::try_from(len).unwrap()).await {
            assert!(bytes == setup.blob.image[offset..offset + len]);
        }
    }
}

#[tokio::test]
async fn memory_of_an_image_follows_its_chunk_records_and_not_the_chunks_it_claims() {
    let dir = tempfile::tempdir().unwrap();
    let cache = CacheDir::open(dir.path()).unwrap();
    let blobs = (0..254_u8).map(|number| {
        let blob = TestBlob::new(number.into(), &[100]).blob;
        let chunk = *blob.chunks.get(rafs::ChunkIndex(0)).unwrap();
        let count = 1 << 24;
        let chunks = [(rafs::ChunkIndex(count - 1), chunk)].into_iter().collect();
        rafs::Blob { chunk_count: count, chunks, ..blob }
    });
    let blobs: Vec<_> = blobs.collect();
    let backend = MemBackend::new(&[]);
    let mut set = None;
    let open = || set = Some(BlobSet::from_blobs(&blobs, &cache, backend, quick()).unwrap());
    let most = allocation_counter::measure(open).bytes_max;
    assert_eq!(set.unwrap().reads().chunks, 254);
    assert!(most < 32 << 20, "{most}");
}
