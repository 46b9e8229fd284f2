use super::*;
use crate::{
    CacheDir, ReadPolicy,
    backend::{Backend, Priority},
    testing::{Fault, FaultBackend, MemBackend, TestBlob},
};

const SIZE: u32 = 30_000;
/// Where chunks begin in the uncompressed image.
const STEP: u64 = 32_768;

fn open(blob: &TestBlob, cache: &Arc<CacheDir>, backend: Arc<dyn Backend>) -> Arc<BlobSet> {
    let policy = ReadPolicy {
        window: 0,
        merge_gap: 0,
        retries: 1,
        backoff: Duration::from_millis(1),
        ..ReadPolicy::default()
    };
    BlobSet::from_blobs(std::slice::from_ref(&blob.blob), cache, backend, policy).unwrap()
}

async fn read(set: &Arc<BlobSet>, place: u64) -> bool {
    Arc::clone(set).read(BlobIndex(0), place * STEP, 100).await.is_ok()
}

fn told(set: &BlobSet) -> Vec<ChunkStory> {
    set.stories().chunks().collect()
}

/// Waits until so many chunks are in the cache: readers do not wait for the disk.
async fn stored(set: &BlobSet, chunks: u64) {
    let is_stored = async {
        while set.reads().ready_chunks < chunks {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), is_stored).await.unwrap();
}

#[tokio::test]
async fn every_chunk_knows_how_it_came() {
    let (blob, dir) = (TestBlob::new(1, &[SIZE; 4]), tempfile::tempdir().unwrap());
    let cache = CacheDir::open(dir.path()).unwrap();
    let set = open(&blob, &cache, MemBackend::new(&[&blob]));
    assert!(told(&set).iter().all(|story| matches!(story.came, Came::Not { failed: None })));
    assert!(read(&set, 2).await && read(&set, 2).await && read(&set, 0).await);
    let stories = told(&set);
    let numbers: Vec<_> = stories
        .iter()
        .map(|story| match &story.came {
            Came::By { read, waited } => Some((read.number, read.priority, *waited >= read.queued)),
            _ => None,
        })
        .collect();
    let demand = |number| Some((number, Priority::Demand, true));
    assert_eq!(numbers, [demand(2), None, demand(1), None]);
    assert_eq!(stories.iter().map(|story| story.is_read).collect::<Vec<_>>(), [true, false, true, false]);
    let reads = set.stories().reads;
    assert_eq!(reads.len(), 2, "a chunk that is here is read from nowhere");
    for read in reads {
        assert_eq!(read.progress().bytes, read.range.end - read.range.start);
        assert_eq!(read.way(), Default::default());
    }

    stored(&set, 2).await;
    let other = open(&blob, &cache, MemBackend::new(&[&blob]));
    assert!(read(&other, 3).await);
    stored(&set, 3).await;
    assert!(matches!(told(&set)[3].came, Came::ForAnother));
    let stories = told(&other);
    assert!(matches!(stories[0].came, Came::Before) && matches!(stories[2].came, Came::Before));
    assert!(matches!(stories[1].came, Came::Not { .. }) && matches!(stories[3].came, Came::By { .. }));
}

#[tokio::test]
async fn attempts_and_failures_are_remembered() {
    let (blob, dir) = (TestBlob::new(1, &[SIZE; 3]), tempfile::tempdir().unwrap());
    let cache = CacheDir::open(dir.path()).unwrap();
    let faults = [
        (0, Fault::Refuse { retryable: true }),
        (2, Fault::Corrupt),
        (4, Fault::Refuse { retryable: false }),
    ];
    let set = open(&blob, &cache, FaultBackend::new(MemBackend::new(&[&blob]), faults));
    assert!(read(&set, 0).await && read(&set, 1).await && !read(&set, 2).await);
    let stories = told(&set);
    for story in &stories[..2] {
        let Came::By { read, .. } = &story.came else { panic!("{story:?}") };
        assert_eq!((read.attempt, read.progress().error), (1, None));
    }
    let Came::Not { failed: Some(read) } = &stories[2].came else { panic!("{:?}", stories[2]) };
    assert!(read.progress().error.unwrap().contains("has not given bytes"));
    let reads = set.stories().reads;
    assert_eq!(reads[2].progress().error.as_deref(), Some("1 of its chunks came wrong"));
    assert_eq!(reads.len(), 5);
}
