//! Blobs whose small chunks share compressed units.

use super::*;

/// Ten units of eight chunks, and a chunk of its own behind each.
fn batched() -> Setup {
    let unit = [100, 5000, 3000, 1, 700, 4096, 2000, 1300, 20_000];
    setup_of(TestBlob::batched(1, &unit.repeat(10), 16_200))
}

/// Where chunk `number` begins in the image.
fn place(setup: &Setup, number: u32) -> usize {
    let chunk = setup.blob.blob.chunks.get(rafs::ChunkIndex(number)).unwrap();
    usize::try_from(chunk.uncompressed_offset).unwrap()
}

#[tokio::test]
async fn every_byte_of_a_batch_blob_is_read_and_each_is_fetched_once() {
    let setup = batched();
    let set = setup.open(setup.memory.clone(), quick());
    setup.assert_reads(&set, 0, setup.blob.image.len()).await;
    settle(&set).await;
    let mut buf = vec![0; setup.blob.image.len()];
    assert!(set.try_read(BLOB, 0, &mut buf).unwrap());
    assert_eq!(buf, setup.blob.image);
    let reads = set.reads();
    assert_eq!((reads.ready_chunks, reads.chunks, reads.failures), (90, 90, 0));
    assert_eq!(reads.fetched_bytes, setup.blob.file.len() as u64);
}

#[tokio::test]
async fn one_chunk_brings_its_whole_unit_by_one_request_after_that_for_the_table() {
    let setup = batched();
    let set = setup.open(setup.memory.clone(), ReadPolicy { window: 0, ..quick() });
    setup.assert_reads(&set, place(&setup, 30), 700).await;
    settle(&set).await;
    let requests = setup.memory.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(requests[0].1.end, setup.blob.file.len() as u64, "the table stands at the end");
    assert_eq!(set.reads().ready_chunks, 8);
    setup.assert_reads(&set, place(&setup, 27), 100).await;
    setup.assert_reads(&set, place(&setup, 40), 100).await;
    settle(&set).await;
    assert_eq!(setup.memory.requests().len(), 3, "the table is read once");
}

#[tokio::test]
async fn reading_through_a_batch_blob_takes_few_requests() {
    let setup = batched();
    let set = setup.open(setup.memory.clone(), quick());
    for number in 0..90 {
        setup.assert_reads(&set, place(&setup, number), 1).await;
    }
    settle(&set).await;
    assert!(setup.memory.requests().len() <= 3, "{:?}", setup.memory.requests());
    assert_eq!(set.reads().fetched_bytes, setup.blob.file.len() as u64);
}

#[tokio::test]
async fn a_prefetch_of_small_files_fetches_their_units_in_one_request() {
    let setup = batched();
    let set = setup.open(setup.memory.clone(), quick());
    set.prefetch((0..40).map(|n| (BLOB, place(&setup, n) as u64..place(&setup, n) as u64 + 1)).collect());
    settle(&set).await;
    assert!(setup.memory.requests().len() <= 2, "{:?}", setup.memory.requests());
    assert_eq!(set.reads().ready_chunks, 44, "with the rest of the last unit");
}

#[tokio::test]
async fn a_cached_unit_is_read_without_the_blob() {
    let setup = batched();
    let set = setup.open(setup.memory.clone(), ReadPolicy { window: 0, ..quick() });
    setup.assert_reads(&set, place(&setup, 30), 700).await;
    // Chunks are given to readers first and stored then.
    let neighbour = place(&setup, 27) as u64;
    let stored = async {
        while !set.try_read(BLOB, neighbour, &mut [0; 100]).unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored).await.expect("the whole unit is stored in the end");
    set.close().await;
    drop(set);
    let again = CacheDir::open(setup.dir.path()).unwrap();
    let nothing = MemBackend::new(&[]);
    let set = BlobSet::from_blobs(std::slice::from_ref(&setup.blob.blob), &again, nothing, quick()).unwrap();
    assert!(set.try_read(BLOB, place(&setup, 27) as u64, &mut [0; 100]).unwrap());
    setup.assert_reads(&set, place(&setup, 34), 100).await;
    let error = set.clone().read(BLOB, 0, 1).await.unwrap_err();
    assert!(matches!(error, StorageError::Fetch { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_unit_or_table_fails_reads_until_it_is_right_again() {
    let setup = batched();
    let (id, ci) = (setup.blob.blob.id.clone(), setup.blob.blob.ci);
    let ci = usize::try_from(ci.offset).unwrap();
    // A byte of the first unit, a member's place in its unit, a unit's length, and the header's mark.
    for at in [20, ci + 24 + 17, ci + 90 * 24 + 4, setup.blob.file.len() - 1] {
        let cache = tempfile::tempdir().unwrap();
        let cache = CacheDir::open(cache.path()).unwrap();
        let mut wrong = setup.blob.file.to_vec();
        wrong[at] ^= 0x41;
        setup.memory.put(id.clone(), wrong.into());
        let blobs = std::slice::from_ref(&setup.blob.blob);
        let set = BlobSet::from_blobs(blobs, &cache, setup.memory.clone(), quick()).unwrap();
        let unit = u32::try_from(place(&setup, 8)).unwrap();
        let error = set.clone().read(BLOB, 0, unit).await.unwrap_err();
        let named = matches!(
            error,
            StorageError::Digest { .. } | StorageError::Decode { .. } | StorageError::Table { .. }
        );
        assert!(named, "{at}: {error:?}");
        setup.memory.put(id.clone(), setup.blob.file.clone());
        setup.assert_reads(&set, 0, setup.blob.image.len()).await;
        settle(&set).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_batch_blob_get_right_bytes_or_an_error_whatever_the_backend_does() {
    let faults = [Fault::Refuse { retryable: true }, Fault::Break, Fault::Short, Fault::Corrupt];
    for first in 0..4 {
        let setup = Arc::new(batched());
        let set = setup.faulty(&(0..200).map(|n| (n * 2, faults[(n + first) % 4])).collect::<Vec<_>>());
        let readers = (0..20).map(|n| tokio::spawn(read_about(setup.clone(), set.clone(), n)));
        for reader in join_all(readers).await {
            reader.unwrap();
        }
        settle(&set).await;
        setup.assert_reads(&set, 0, setup.blob.image.len()).await;
    }
}
