//! One pass of a request's stream.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Wanted, splitter::Splitter};
use crate::{
    blob::Blob,
    cache::inflight::Failure,
    history::BackendRead,
    verify::{unpack, verify},
};

/// Received bytes that may wait while others are being checked; above it the stream waits.
const BACKLOG: usize = 1 << 20;
/// Plain bytes that may wait for the disk.
const HELD: usize = 1 << 20;

/// Cuts the stream into chunks and has them checked beside it.
#[derive(Debug)]
pub(super) struct Pass {
    blob: Arc<Blob>,
    /// What brings it.
    read: Arc<BackendRead>,
    splitter: Splitter,
    /// The wanted chunks of each unit; none once it is received.
    wanted: Vec<Vec<Wanted>>,
    received: Vec<(Vec<Wanted>, Bytes)>,
    backlog: usize,
    checking: Option<JoinHandle<Wrong>>,
    wrong: Wrong,
}

/// Chunks that came wrong, and why.
type Wrong = Vec<(Wanted, Failure)>;

impl Pass {
    /// `wanted` is not empty, sorted by units, and these do not overlap.
    pub(super) fn new(blob: Arc<Blob>, wanted: Vec<Wanted>, read: Arc<BackendRead>) -> Self {
        let mut units: Vec<Vec<Wanted>> = Vec::new();
        for chunk in wanted {
            match units.last_mut() {
                Some(unit) if unit[0].at.unit == chunk.at.unit => unit.push(chunk),
                _ => units.push(vec![chunk]),
            }
        }
        let ranges: Vec<_> = units.iter().map(|unit| unit[0].at.unit.stored()).collect();
        Self {
            blob,
            read,
            splitter: Splitter::new(ranges),
            wanted: units,
            received: Vec::new(),
            backlog: 0,
            checking: None,
            wrong: Vec::new(),
        }
    }

    /// Whether everything has been received.
    pub(super) fn is_received(&self) -> bool {
        self.splitter.is_done()
    }

    /// Takes the next piece of the stream; gives how far it has come.
    pub(super) fn push(&mut self, piece: Bytes) -> u64 {
        let Self { splitter, wanted, received, backlog, .. } = self;
        splitter.push(piece, |place, bytes| {
            *backlog += bytes.len();
            received.push((std::mem::take(&mut wanted[place]), bytes));
        });
        splitter.position()
    }

    /// Has what is received checked, beside the stream as long as that keeps up.
    pub(super) async fn work(&mut self) {
        let busy = self.checking.as_ref().is_some_and(|task| !task.is_finished());
        if self.received.is_empty() || busy && self.backlog < BACKLOG {
            return;
        }
        self.settle().await;
        let (blob, read) = (self.blob.clone(), Arc::clone(&self.read));
        let batch = std::mem::take(&mut self.received);
        self.backlog = 0;
        self.checking = Some(tokio::task::spawn_blocking(move || check(&blob, &read, batch)));
    }

    async fn settle(&mut self) {
        let Some(task) = &mut self.checking else { return };
        // A panic has dropped its chunks, which wakes their readers.
        self.wrong.extend(task.await.into_iter().flatten());
        self.checking = None;
    }

    /// Ends the pass: everything received is checked; gives the chunks that are still to come, and those that came
    /// wrong.
    pub(super) async fn finish(mut self) -> (Vec<Wanted>, Wrong) {
        self.backlog = BACKLOG;
        self.work().await;
        self.settle().await;
        (self.wanted.into_iter().flatten().collect(), self.wrong)
    }
}

/// Checks chunks and hands them out, then stores them: no reader waits for the disk. Gives back those that are wrong.
fn check(blob: &Blob, read: &BackendRead, batch: Vec<(Vec<Wanted>, Bytes)>) -> Wrong {
    let mut wrong = Vec::new();
    let mut held = Held { blob, chunks: Vec::new(), bytes: 0 };
    for (chunks, stored) in batch {
        let Some(unit) = chunks.first().map(|first| first.at.unit) else { continue };
        let unpacked = unpack(&blob.table, &unit, stored);
        for wanted in chunks {
            let plain = unpacked.clone();
            match plain.and_then(|unit| verify(&blob.table, &wanted.entry, &unit, wanted.at.begin)) {
                Ok(plain) => {
                    blob.arrivals.note(wanted.place, read);
                    wanted.lead.deliver(plain.clone());
                    held.push(wanted, plain);
                }
                Err(failure) => wrong.push((wanted, failure)),
            }
        }
    }
    held.store();
    wrong
}

/// Chunks that were handed out and wait to be stored; until then readers get them from here.
struct Held<'a> {
    blob: &'a Blob,
    chunks: Vec<(Wanted, Bytes)>,
    bytes: usize,
}

impl Held<'_> {
    fn push(&mut self, wanted: Wanted, plain: Bytes) {
        self.bytes += plain.len();
        self.chunks.push((wanted, plain));
        if self.bytes >= HELD {
            self.store();
        }
    }

    fn store(&mut self) {
        self.bytes = 0;
        for (wanted, plain) in self.chunks.drain(..) {
            self.blob.cache.store(&wanted.entry, &plain);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Condvar, Mutex},
        time::Duration,
    };

    use rafs::BlobIndex;

    use super::*;
    use crate::{
        backend::Priority,
        cache::{
            BlobCache,
            directory::{CacheFile, Directory},
            inflight::Joined,
            layout::Subject,
            lock,
        },
        chunks::ChunkTable,
        history::{Beginning, History},
        testing::TestBlob,
    };

    /// Files in memory whose writes of data stand still until they are let go.
    #[derive(Debug, Clone, Default)]
    struct Jammed(Arc<(Mutex<bool>, Condvar)>);

    impl Jammed {
        fn let_go(&self) {
            *lock(&self.0.0) = true;
            self.0.1.notify_all();
        }
    }

    impl Directory for Jammed {
        fn open(&self, name: &str) -> io::Result<Arc<dyn CacheFile>> {
            if name == "data" { Ok(Arc::new(self.clone())) } else { Ok(Arc::new(tempfile::tempfile()?)) }
        }

        fn read(&self, _: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    impl CacheFile for Jammed {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            drop(self.0.1.wait_while(lock(&self.0.0), |free| !*free).unwrap());
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn clear(&self) -> io::Result<()> {
            Ok(())
        }

        fn size(&self) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[tokio::test]
    async fn readers_have_every_chunk_of_a_batch_while_the_disk_stands_still() {
        let (sample, disk) = (TestBlob::new(1, &[6000; 8]), Jammed::default());
        let table = ChunkTable::new(&sample.blob).unwrap();
        let (id, count) = (sample.blob.id.clone(), table.count);
        let subject = Subject { id, count, algorithm: table.algorithm };
        let cache = BlobCache::open(Box::new(disk.clone()), subject, Arc::default()).unwrap();
        let blob = Arc::new(Blob::with_cache(BlobIndex(0), &sample.blob, table, Arc::new(cache)).unwrap());
        let (mut batch, mut waiters) = (Vec::new(), Vec::new());
        for place in 0..8 {
            let Joined::Lead(lead) = blob.join(place, Priority::Demand, 0, false) else { panic!() };
            waiters.push(lead.waiter());
            let wanted = Wanted::new(&blob, place, lead).unwrap();
            let stored = wanted.at.unit.stored();
            let stored = usize::try_from(stored.start).unwrap()..usize::try_from(stored.end).unwrap();
            batch.push((vec![wanted], sample.file.slice(stored)));
        }
        let checked = blob.clone();
        let (range, priority, asked) = (0..1, Priority::Demand, tokio::time::Instant::now());
        let read = History::new().begin(Beginning { blob: BlobIndex(0), range, priority, attempt: 0, asked });
        let checking = tokio::task::spawn_blocking(move || check(&checked, &read.0, batch));
        for (place, waiter) in waiters.into_iter().enumerate() {
            let outcome = tokio::time::timeout(Duration::from_secs(5), waiter.outcome()).await;
            assert_eq!(outcome.expect("it does not wait for the disk").unwrap(), sample.plain(place));
        }
        assert!(!blob.is_ready(0) && !checking.is_finished());
        disk.let_go();
        assert!(checking.await.unwrap().is_empty());
        assert!((0..8).all(|place| blob.is_ready(place)));
    }
}
