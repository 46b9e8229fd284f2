mod killed;
mod recorded;

use proptest::prelude::*;

use self::recorded::{Disk, Files, RecordedDirectory, cut};
use super::{flush::Flusher, *};
use crate::{chunks::ChunkTable, testing::TestBlob};

const SIZES: [u32; 10] = [5000, 4096, 10, 9000, 700, 4097, 1, 8192, 300, 20_000];

struct Sample {
    blob: TestBlob,
    table: ChunkTable,
    subject: Subject,
}

fn sample(seed: u64) -> Sample {
    let blob = TestBlob::new(seed, &SIZES);
    let table = ChunkTable::new(&blob.blob).unwrap();
    let subject =
        Subject { id: BlobId::new("blob").unwrap(), count: table.count, algorithm: table.algorithm };
    Sample { blob, table, subject }
}

use rafs::BlobId;

impl Sample {
    fn open(&self, disk: &Arc<Disk>) -> Arc<BlobCache> {
        let directory = Box::new(RecordedDirectory(disk.clone()));
        let cache = BlobCache::open(directory, self.subject.clone(), Arc::default()).unwrap();
        Arc::new(cache)
    }

    fn store(&self, cache: &Arc<BlobCache>, place: usize) {
        cache.store(&self.table.entries[place], self.blob.plain(place));
    }

    /// Every chunk that the cache trusts has the right bytes; gives their number.
    fn check(&self, cache: &BlobCache) -> usize {
        let ready = self.table.entries.iter().filter(|e| cache.is_ready(e.number()));
        let right = |entry: &Entry| {
            let mut buf = vec![0; entry.size as usize];
            cache.read(&mut buf, entry.offset()).unwrap();
            assert_eq!(self.table.algorithm.digest(&buf), entry.digest, "chunk {}", entry.number());
        };
        ready.map(right).count()
    }
}

#[test]
fn what_was_flushed_is_trusted_after_a_restart_and_nothing_else() {
    let (sample, disk) = (sample(1), Disk::with(Files::new()));
    let cache = sample.open(&disk);
    cache.admit(&sample.table.entries).unwrap();
    (0..4).for_each(|place| sample.store(&cache, place));
    cache.flush();
    sample.store(&cache, 7);
    assert_eq!(sample.check(&cache), 5);
    let again = sample.open(&disk);
    assert!(again.admit(&sample.table.entries).is_some());
    assert_eq!(sample.check(&again), 4);
    assert!(!again.is_ready(sample.table.entries[7].number()));
}

#[test]
fn a_broken_map_or_layout_begins_the_cache_anew() {
    for (name, at) in [("map", 20), ("chunks", 200)] {
        let (sample, disk) = (sample(1), Disk::with(Files::new()));
        let cache = sample.open(&disk);
        cache.admit(&sample.table.entries).unwrap();
        (0..4).for_each(|place| sample.store(&cache, place));
        cache.flush();
        lock(&disk.files).get_mut(name).unwrap()[at] ^= 1;
        let again = sample.open(&disk);
        assert_eq!(sample.check(&again), 0, "{name}");
        again.admit(&sample.table.entries).unwrap();
        sample.store(&again, 5);
        again.flush();
        assert_eq!(sample.check(&sample.open(&disk)), 1, "{name}");
    }
}

#[test]
fn a_lost_layout_or_data_file_begins_the_cache_anew() {
    for name in ["data", "chunks"] {
        let (sample, disk) = (sample(1), Disk::with(Files::new()));
        let cache = sample.open(&disk);
        cache.admit(&sample.table.entries).unwrap();
        (0..4).for_each(|place| sample.store(&cache, place));
        cache.flush();
        lock(&disk.files).remove(name);
        assert_eq!(sample.check(&sample.open(&disk)), 0, "{name}");
    }
}

#[test]
fn an_image_that_tells_otherwise_of_a_chunk_is_not_let_in() {
    let (honest, disk) = (sample(1), Disk::with(Files::new()));
    let cache = honest.open(&disk);
    assert!(cache.admit(&honest.table.entries).is_some());
    assert!(cache.admit(&sample(2).table.entries).is_none());
    assert!(cache.admit(&honest.table.entries[3..5].into()).is_some());
}

#[test]
fn what_an_image_told_of_a_chunk_still_holds_after_a_restart() {
    let (honest, disk) = (sample(1), Disk::with(Files::new()));
    let cache = honest.open(&disk);
    cache.admit(&honest.table.entries).unwrap();
    honest.store(&cache, 2);
    cache.flush();
    let again = honest.open(&disk);
    assert!(again.admit(&sample(2).table.entries).is_none());
    assert!(again.admit(&honest.table.entries).is_some());
}

#[test]
fn images_with_the_same_chunks_share_one_table() {
    let (sample, disk) = (sample(1), Disk::with(Files::new()));
    let cache = sample.open(&disk);
    let first = cache.admit(&sample.table.entries).unwrap();
    let second = cache.admit(&sample.table.entries.to_vec().into()).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn a_full_disk_leaves_chunks_unready_and_is_left_alone_for_a_while() {
    let (sample, disk) = (sample(1), Disk::with(Files::new()));
    let cache = sample.open(&disk);
    cache.admit(&sample.table.entries).unwrap();
    sample.store(&cache, 0);
    disk.is_full.store(true, Ordering::SeqCst);
    sample.store(&cache, 1);
    disk.is_full.store(false, Ordering::SeqCst);
    sample.store(&cache, 2);
    assert_eq!(sample.check(&cache), 1);
    *lock(&cache.store.as_ref().unwrap().resting_until) = Some(Instant::now());
    sample.store(&cache, 2);
    assert_eq!(sample.check(&cache), 2);
}

#[test]
fn what_the_disk_lost_in_a_flush_is_not_trusted_any_more() {
    let (sample, disk) = (sample(1), Disk::with(Files::new()));
    let cache = sample.open(&disk);
    cache.admit(&sample.table.entries).unwrap();
    sample.store(&cache, 0);
    cache.flush();
    sample.store(&cache, 1);
    disk.loses_writes.store(true, Ordering::SeqCst);
    cache.flush();
    assert!(cache.is_ready(0) && !cache.is_ready(1));
    disk.loses_writes.store(false, Ordering::SeqCst);
    cache.flush();
    assert_eq!(sample.check(&sample.open(&disk)), 1);
}

#[test]
fn the_flusher_makes_writes_durable_by_itself_and_at_the_latest_when_it_ends() {
    let (sample, disk) = (sample(1), Disk::with(Files::new()));
    let flusher = Flusher::start().unwrap();
    let directory = Box::new(RecordedDirectory(disk.clone()));
    let cache = BlobCache::open(directory, sample.subject.clone(), flusher.queue().clone()).unwrap();
    let cache = Arc::new(cache);
    cache.admit(&sample.table.entries).unwrap();
    sample.store(&cache, 0);
    drop(flusher);
    assert_eq!(sample.check(&sample.open(&disk)), 1);
}

/// One step of a cache's life.
#[derive(Debug, Clone)]
enum Step {
    Store(usize),
    Flush,
    /// Another image, which knows the chunks up to here.
    Admit(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..SIZES.len()).prop_map(Step::Store),
        2 => Just(Step::Flush),
        1 => (0..SIZES.len()).prop_map(Step::Admit),
        1 => Just(Step::Restart),
    ]
}

/// Files of an older cache: right, of another blob, or broken.
fn older(kind: u8) -> Files {
    let (old, disk) = (sample(if kind == 0 { 1 } else { 9 }), Disk::with(Files::new()));
    let subject = if kind == 2 { Subject { count: 11, ..old.subject.clone() } } else { old.subject.clone() };
    let directory = Box::new(RecordedDirectory(disk.clone()));
    let cache = Arc::new(BlobCache::open(directory, subject, Arc::default()).unwrap());
    cache.admit(&old.table.entries).unwrap();
    (0..SIZES.len()).for_each(|place| old.store(&cache, place));
    cache.flush();
    let mut files = std::mem::take(&mut *lock(&disk.files));
    match kind {
        3 => files.get_mut("chunks").unwrap()[100] ^= 1,
        4 => drop(files.remove("chunks")),
        5 => files.clear(),
        _ => {}
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn after_a_power_cut_at_any_write_or_flush_every_trusted_chunk_is_right(
        kind in prop_oneof![Just(0u8), Just(2), Just(3), Just(4), Just(5)],
        steps in prop::collection::vec(step(), 1..40),
        seed in any::<u64>(),
    ) {
        let (sample, begin) = (sample(1), older(kind));
        let disk = Disk::with(begin.clone());
        let mut cache = sample.open(&disk);
        for step in steps {
            match step {
                Step::Store(place) => {
                    let known: Arc<[Entry]> = sample.table.entries[..=place].into();
                    prop_assert!(cache.admit(&known).is_some());
                    sample.store(&cache, place);
                }
                Step::Flush => cache.flush(),
                Step::Admit(end) => prop_assert!(cache.admit(&sample.table.entries[..end].into()).is_some()),
                Step::Restart => {
                    drop(cache);
                    cache = sample.open(&disk);
                }
            }
        }
        let log = lock(&disk.log).clone();
        let mut state = seed;
        for end in 0..=log.len() {
            let coin = || { state = state.wrapping_mul(6364136223846793005).wrapping_add(1); state >> 63 == 1 };
            let left = Disk::with(cut(&begin, &log[..end], coin));
            let again = sample.open(&left);
            if again.admit(&sample.table.entries).is_some() {
                sample.check(&again);
            }
        }
    }
}
