//! What was read from the backend of an image, and which read brought which chunk.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rafs::BlobIndex;
use tokio::time::Instant;

use crate::{
    backend::{BackendError, Priority, Via, Way},
    cache::lock,
    error::in_one_line,
};

/// Reads of one image that are remembered, the last ones: about 5 MB at most.
const REMEMBERED: usize = 32_768;
/// Chunks whose arrival is noted side by side: memory is taken for neighbourhoods in which one came.
const NEIGHBOURS: usize = 512;

/// A read of the backend of an image.
#[derive(Debug)]
pub struct BackendRead {
    /// Counts from 1.
    pub(crate) number: u32,
    /// Which blob.
    pub blob: BlobIndex,
    /// Which bytes of its file.
    pub range: Range<u64>,
    /// How urgent it was.
    pub priority: Priority,
    /// Reads before it that were to bring the same chunks and did not.
    pub attempt: u32,
    /// When its chunks were first asked for, since the image was mounted.
    pub asked: Duration,
    /// How long it stood back before the backend was asked: for others, or after an attempt that failed.
    pub queued: Duration,
    asked_at: Instant,
    began: Instant,
    pub(crate) via: Via,
    progress: Mutex<Progress>,
}

/// How far a read has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// How long the backend took to the first byte.
    pub first: Option<Duration>,
    /// And to the end, well or not. `None`: it is under way.
    pub took: Option<Duration>,
    /// Bytes that came.
    pub bytes: u64,
    /// Why it failed, if it did.
    pub error: Option<Arc<str>>,
}

impl BackendRead {
    /// From where its bytes came.
    #[must_use]
    pub fn way(&self) -> Way {
        self.via.way()
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Time since its chunks were asked for.
    pub(crate) fn waited(&self) -> Duration {
        self.asked_at.elapsed()
    }

    /// So many bytes more have come.
    pub(crate) fn came(&self, bytes: usize) {
        let mut progress = lock(&self.progress);
        progress.bytes += bytes as u64;
        progress.first.get_or_insert_with(|| self.began.elapsed());
    }

    fn end(&self, error: Option<Arc<str>>) {
        let mut progress = lock(&self.progress);
        if progress.took.is_none() {
            progress.took = Some(self.began.elapsed());
            progress.error = error;
        }
    }
}

/// A read that ends with this at the latest.
#[derive(Debug)]
pub(crate) struct UnderWay(pub(crate) Arc<BackendRead>);

impl UnderWay {
    /// It has ended, with this error if there is one.
    pub(crate) fn end(&self, error: Option<&BackendError>) {
        self.0.end(error.map(|error| in_one_line(error).into()));
    }

    /// So many chunks were not what the image says that they are.
    pub(crate) fn brought_wrong(&self, chunks: usize) {
        if chunks > 0 {
            let text = || format!("{chunks} of its chunks came wrong").into();
            lock(&self.0.progress).error.get_or_insert_with(text);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end(Some("given up: the reader's deadline was over, or the image was unmounted".into()));
    }
}

/// The last reads of an image.
#[derive(Debug)]
pub(crate) struct History {
    opened: Instant,
    reads: Mutex<Reads>,
}

#[derive(Debug, Default)]
struct Reads {
    forgotten: u32,
    kept: VecDeque<Arc<BackendRead>>,
}

/// A read that begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    pub(crate) blob: BlobIndex,
    pub(crate) range: Range<u64>,
    pub(crate) priority: Priority,
    pub(crate) attempt: u32,
    /// When its chunks were first asked for.
    pub(crate) asked: Instant,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), reads: Mutex::default() }
    }

    /// Time since it began.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// A read begins; the oldest one is forgotten where there are many.
    pub(crate) fn begin(&self, read: Beginning) -> UnderWay {
        let Beginning { blob, range, priority, attempt, asked } = read;
        let began = Instant::now();
        let mut reads = lock(&self.reads);
        if reads.kept.len() >= REMEMBERED {
            reads.kept.pop_front();
            reads.forgotten = reads.forgotten.saturating_add(1);
        }
        let read = Arc::new(BackendRead {
            number: reads.forgotten.saturating_add(u32::try_from(reads.kept.len() + 1).unwrap_or(u32::MAX)),
            blob,
            range,
            priority,
            attempt,
            asked: asked.saturating_duration_since(self.opened),
            queued: began.saturating_duration_since(asked),
            asked_at: asked,
            began,
            via: Via::default(),
            progress: Mutex::default(),
        });
        reads.kept.push_back(Arc::clone(&read));
        UnderWay(read)
    }

    /// How many reads are forgotten, and the others in their order.
    pub(crate) fn all(&self) -> (u32, Vec<Arc<BackendRead>>) {
        let reads = lock(&self.reads);
        (reads.forgotten, reads.kept.iter().cloned().collect())
    }
}

/// Which read brought a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The number of the read.
    pub(crate) read: u32,
    /// Time from when the chunk was first asked for to its checked bytes.
    pub(crate) waited: Duration,
}

/// Arrivals of the chunks of one blob, by place in its table.
#[derive(Debug)]
pub(crate) struct Arrivals(Box<[OnceLock<Box<[AtomicU64; NEIGHBOURS]>>]>);

impl Arrivals {
    pub(crate) fn new(chunks: usize) -> Self {
        Self((0..chunks.div_ceil(NEIGHBOURS)).map(|_| OnceLock::new()).collect())
    }

    /// The chunk at `place` has come.
    pub(crate) fn note(&self, place: usize, read: &BackendRead) {
        let Some(neighbourhood) = self.0.get(place / NEIGHBOURS) else { return };
        let slots = neighbourhood.get_or_init(|| Box::new([const { AtomicU64::new(0) }; NEIGHBOURS]));
        let micros = u32::try_from(read.waited().as_micros()).unwrap_or(u32::MAX);
        let packed = u64::from(read.number) << 32 | u64::from(micros);
        slots[place % NEIGHBOURS].store(packed, Ordering::Relaxed);
    }

    /// How the chunk at `place` came, if it did.
    pub(crate) fn get(&self, place: usize) -> Option<Arrival> {
        let packed = self.0.get(place / NEIGHBOURS)?.get()?[place % NEIGHBOURS].load(Ordering::Relaxed);
        let (read, micros) = (u32::try_from(packed >> 32).ok()?, packed & u64::from(u32::MAX));
        (read > 0).then_some(Arrival { read, waited: Duration::from_micros(micros) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(history: &History, start: u64) -> UnderWay {
        let (blob, asked) = (BlobIndex(1), Instant::now());
        history.begin(Beginning {
            blob,
            range: start..start + 1,
            priority: Priority::Demand,
            attempt: 0,
            asked,
        })
    }

    #[tokio::test]
    async fn the_oldest_reads_are_forgotten_and_numbers_go_on() {
        let history = History::new();
        for start in 0..REMEMBERED as u64 + 3 {
            begin(&history, start).end(None);
        }
        let (forgotten, reads) = history.all();
        assert_eq!((forgotten, reads.len()), (3, REMEMBERED));
        assert!(reads.iter().zip(4..).all(|(read, number)| read.number == number));
        assert_eq!(reads[0].range, 3..4);
    }

    #[tokio::test]
    async fn a_read_whose_reader_is_gone_has_ended_too() {
        let history = History::new();
        let read = begin(&history, 0);
        read.0.came(7);
        assert_eq!(read.0.progress().took, None);
        drop(read);
        let (_, reads) = history.all();
        let progress = reads[0].progress();
        assert!(progress.took.is_some() && progress.first.is_some() && progress.bytes == 7);
        assert!(progress.error.unwrap().starts_with("given up"));
    }

    #[tokio::test]
    async fn chunks_remember_their_read() {
        let (history, arrivals) = (History::new(), Arrivals::new(NEIGHBOURS + 1));
        let reads = [begin(&history, 0), begin(&history, 1)];
        arrivals.note(NEIGHBOURS, &reads[1].0);
        arrivals.note(3 * NEIGHBOURS, &reads[0].0);
        assert_eq!(arrivals.get(NEIGHBOURS).map(|arrival| arrival.read), Some(2));
        assert!(arrivals.get(0).is_none() && arrivals.get(3 * NEIGHBOURS).is_none());
    }
}
