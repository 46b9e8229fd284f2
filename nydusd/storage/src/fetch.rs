//! Runs requests: fetch, verify, hand out, store.

mod lanes;
mod locate;
mod pass;
mod splitter;

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use rafs::BlobId;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{lanes::Lanes, pass::Pass};
use crate::{
    ReadPolicy,
    backend::{Backend, BackendError, ByteStream, Priority},
    blob::Blob,
    cache::inflight::{Failure, Lead, Track},
    chunks::Entry,
    history::{BackendRead, Beginning, History},
    plan,
    prefetch::PrefetchCounters,
    units::Place,
};

/// How long a less urgent request stands back for readers before it is made.
const GIVE_WAY: Duration = Duration::from_millis(20);

/// Figures that only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fetched_bytes: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) prefetch: PrefetchCounters,
}

/// A chunk to fetch.
#[derive(Debug)]
pub(crate) struct Wanted {
    entry: Entry,
    /// In the chunk table.
    place: usize,
    at: Place,
    lead: Lead,
    /// How often what came for it was wrong.
    wrong: u32,
}

impl Wanted {
    /// The chunk at `place` in the table of `blob`; `None` where it is not known where it stands.
    pub(crate) fn new(blob: &Blob, place: usize, lead: Lead) -> Option<Self> {
        let (entry, at) = (*blob.table.entries.get(place)?, blob.stands(place)?);
        Some(Self { entry, place, at, lead, wrong: 0 })
    }
}

/// Chunks that are fetched by one range of the blob file.
#[derive(Debug)]
pub(crate) struct Request {
    blob: Arc<Blob>,
    priority: Priority,
    wanted: Vec<Wanted>,
    track: Arc<Track>,
}

impl Request {
    /// Makes requests for chunks of one blob; those that hold a chunk of `demanded` are urgent.
    pub(crate) fn plan(
        blob: &Arc<Blob>,
        mut wanted: Vec<Wanted>,
        policy: &ReadPolicy,
        priority_of: impl Fn(&Entry) -> Priority,
    ) -> Vec<Self> {
        wanted.sort_unstable_by_key(|w| w.at.unit);
        let units: Vec<_> = wanted.chunk_by(|a, b| a.at.unit == b.at.unit).collect();
        let ranges: Vec<_> = units.iter().map(|chunks| chunks[0].at.unit.stored()).collect();
        let lens: Vec<_> = units.iter().map(|chunks| chunks.len()).collect();
        let groups = plan::merge(&ranges, policy.merge_gap, policy.max_request);
        let mut wanted = wanted.into_iter();
        let request = |group: Range<usize>| {
            let wanted: Vec<_> = wanted.by_ref().take(lens[group].iter().sum()).collect();
            let priority = wanted.iter().map(|w| priority_of(&w.entry)).max().unwrap_or(Priority::Background);
            let track = Arc::new(Track::default());
            wanted.iter().for_each(|w| w.lead.assign(&track));
            if let (Priority::Demand, Some(first)) = (priority, wanted.first()) {
                // Readers of its other chunks rather wait than ask again.
                track.reached(first.at.unit.offset.max(1));
            }
            Self { blob: blob.clone(), priority, wanted, track }
        };
        groups.into_iter().map(request).collect()
    }

    /// The bytes of the blob file that it asks for.
    fn range(&self) -> Range<u64> {
        let units = self.wanted.iter().map(|wanted| wanted.at.unit.stored());
        units.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or_default()
    }

    /// Where to count it, if a list wants it.
    fn of_list<'a>(&self, counters: &'a Counters) -> Option<&'a PrefetchCounters> {
        (self.priority == Priority::Prefetch).then_some(&counters.prefetch)
    }
}

/// Fetches for one image.
#[derive(Debug)]
pub(crate) struct Fetcher {
    backend: Arc<dyn Backend>,
    pub(crate) policy: ReadPolicy,
    pub(crate) counters: Counters,
    pub(crate) history: History,
    lanes: Lanes,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

impl Fetcher {
    pub(crate) fn new(backend: Arc<dyn Backend>, policy: ReadPolicy) -> Self {
        let lanes = Lanes::new(&policy);
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let (counters, history) = (Counters::default(), History::new());
        Self { backend, policy, counters, history, lanes, tasks, closing }
    }

    /// The image's name for messages.
    pub(crate) fn image(&self) -> String {
        self.backend.name()
    }

    /// Runs a request apart from whoever asked: it goes on when the reader is gone.
    pub(crate) fn launch(self: &Arc<Self>, request: Request) {
        let fetcher = self.clone();
        self.tasks.spawn(async move { fetcher.run(request).await });
    }

    /// Runs a request, within the deadline of reads and until the image is closed. Chunks that did not come are given
    /// up, which wakes their readers.
    pub(crate) async fn run(&self, request: Request) {
        let (blob, priority, range) = (request.blob.id.clone(), request.priority, request.range());
        let attempts = tokio::time::timeout(self.policy.deadline, self.attempts(request));
        if self.closing.run_until_cancelled(attempts).await.is_some_and(|done| done.is_err()) {
            tracing::debug!(image = self.image(), "a request took too long and is given up");
            // A source that drips never stands still. Less urgent requests may just have been too many.
            if priority == Priority::Demand {
                self.backend.distrust(&blob, range);
            }
        }
    }

    async fn attempts(&self, mut request: Request) {
        let asked = Instant::now();
        let _lane = self.lanes.enter(request.priority).await;
        if request.priority <= Priority::Prefetch && !request.track.is_urgent() {
            self.lanes.give_way(GIVE_WAY).await;
        }
        let mut backoff = self.policy.backoff;
        let mut retries = 0..self.policy.retries;
        for attempt in 0.. {
            // A reader that could not wait may have asked for some of them itself.
            request.wanted.retain(|w| w.lead.is_current());
            if request.wanted.is_empty() {
                return;
            }
            let (range, priority) = (request.range(), request.priority);
            let read =
                self.history.begin(Beginning { blob: request.blob.index, range, priority, attempt, asked });
            let wanted = std::mem::take(&mut request.wanted);
            let mut pass = Pass::new(request.blob.clone(), wanted, Arc::clone(&read.0));
            let ended = self.stream(&request, &mut pass, &read.0).await;
            read.end(ended.as_ref().err());
            let (left, wrong) = pass.finish().await;
            read.brought_wrong(wrong.len());
            request.wanted = left;
            request.wanted.extend(self.again(&request.blob, wrong));
            request.wanted.sort_unstable_by_key(|w| w.at.unit);
            let Err(error) = ended else { continue };
            if !error.retryable || retries.next().is_none() {
                let failure = Failure::Fetch(Arc::new(error));
                return request.wanted.into_iter().for_each(|w| w.lead.fail(failure.clone()));
            }
            tracing::debug!(image = self.image(), cause = %error.source, "asking again");
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    /// Complains of chunks that came wrong to where they came from; gives those that are worth another try: after the
    /// first time, and as long as they will come from elsewhere.
    fn again(&self, blob: &Blob, wrong: Vec<(Wanted, Failure)>) -> Vec<Wanted> {
        let mut again = Vec::new();
        let mut distrusted = None;
        for (mut wanted, failure) in wrong {
            let unit = wanted.at.unit;
            let elsewhere = match distrusted {
                Some((last, elsewhere)) if last == unit => elsewhere,
                _ => self.backend.distrust(&blob.id, unit.stored()),
            };
            distrusted = Some((unit, elsewhere));
            wanted.wrong += 1;
            if wanted.wrong == 1 || elsewhere && wanted.wrong <= self.policy.retries {
                again.push(wanted);
                continue;
            }
            if wanted.entry.is_member() {
                blob.batch.iter().for_each(|batch| batch.forget());
            }
            wanted.lead.fail(failure);
        }
        again
    }

    async fn stream(
        &self,
        request: &Request,
        pass: &mut Pass,
        read: &BackendRead,
    ) -> Result<(), BackendError> {
        let (blob, range) = (&request.blob.id, read.range.clone());
        request.track.reached(range.start.max(1));
        let of_list = request.of_list(&self.counters);
        of_list.map(|list| list.requests.fetch_add(1, Ordering::Relaxed));
        let mut stream = self.open(blob, read).await?;
        while !pass.is_received() {
            let piece = self.piece(blob, read, &mut stream).await?;
            of_list.map(|list| list.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed));
            request.track.reached(pass.push(piece));
            pass.work().await;
        }
        Ok(())
    }

    /// Asks the backend for a range. How long it waits for which host is its own to decide, within the deadline.
    async fn open(&self, blob: &BlobId, read: &BackendRead) -> Result<ByteStream, BackendError> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.backend.clone().read(blob.clone(), read.range.clone(), read.priority, read.via.clone()).await
    }

    /// The next bytes of a range.
    async fn piece(
        &self,
        blob: &BlobId,
        read: &BackendRead,
        stream: &mut ByteStream,
    ) -> Result<Bytes, BackendError> {
        let next = tokio::time::timeout(self.policy.stall, stream.next()).await;
        let next = next.map_err(|_| self.failure(blob, &read.range, io::ErrorKind::TimedOut))?;
        let piece = next.ok_or_else(|| self.failure(blob, &read.range, io::ErrorKind::UnexpectedEof))??;
        self.counters.fetched_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        read.came(piece.len());
        Ok(piece)
    }

    fn failure(&self, blob: &BlobId, range: &Range<u64>, kind: io::ErrorKind) -> BackendError {
        BackendError {
            backend: self.backend.name(),
            blob: blob.clone(),
            range: range.clone(),
            retryable: true,
            source: Box::new(io::Error::from(kind)),
        }
    }
}
