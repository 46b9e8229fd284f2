//! The cache of one blob: a sparse file of its uncompressed image, and which chunks of it are there.
//!
//! A chunk is *ready* once its verified bytes are written, and then read without a lock. It is *durable*, and trusted
//! by the next process, once the data was made durable and its bit in the chunk map after it; see [`flush`].

pub(crate) mod chunk_map;
mod dir;
pub(crate) mod directory;
pub(crate) mod flush;
pub(crate) mod inflight;
pub(crate) mod layout;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    chunk_map::{Bits, MapFile},
    directory::{CacheFile, Directory},
    flush::FlushQueue,
    inflight::Inflight,
    layout::{Agreement, Subject},
};
use crate::chunks::Entry;

pub use self::dir::CacheDir;

/// How long nothing is written after the disk refused a write.
const REST: Duration = Duration::from_secs(30);

/// A lock whose holder cannot leave it half-changed: a panic there leaves values that are each whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cache of one blob, shared by the images that agree on its chunks.
pub(crate) struct BlobCache {
    subject: Subject,
    ready: Bits,
    /// All chunks that some image told of.
    known: Mutex<Arc<[Entry]>>,
    pub(crate) inflight: Arc<Inflight>,
    /// `None`: there is no disk for it; every read is fetched.
    store: Option<Store>,
}

impl fmt::Debug for BlobCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobCache")
            .field("blob", &self.subject.id)
            .field("stored", &self.store.is_some())
            .finish()
    }
}

struct Store {
    directory: Box<dyn Directory>,
    data: Arc<dyn CacheFile>,
    map: Arc<dyn CacheFile>,
    /// What is durable. Held during a flush, so that there is one at a time.
    durable: Mutex<Durable>,
    written: Mutex<Written>,
    /// In the flusher's queue.
    queued: AtomicBool,
    queue: Arc<FlushQueue>,
    resting_until: Mutex<Option<Instant>>,
    complained: AtomicBool,
}

/// Chunks written since the last flush began.
#[derive(Default)]
struct Written {
    numbers: Vec<u32>,
    /// Goes up when the disk has failed to keep what was written; a write that began before does not count.
    losses: u64,
}

struct Durable {
    map: MapFile,
    /// The layout on disk; chunks that it does not tell of get no bit.
    known: Arc<[Entry]>,
}

impl BlobCache {
    /// Opens the cache in `directory`. What does not check out is thrown away, with a log line.
    pub(crate) fn open(
        directory: Box<dyn Directory>,
        subject: Subject,
        queue: Arc<FlushQueue>,
    ) -> io::Result<Self> {
        let (data, map) = (directory.open("data")?, directory.open("map")?);
        let (loaded, known) = match load(&*directory, (&*data, &*map), &subject)? {
            Some(loaded) => loaded,
            None => {
                let fresh = MapFile::create(&*map, &subject)?;
                data.clear()?;
                (fresh, Arc::from([]))
            }
        };
        let ready = Bits::new(subject.count);
        known.iter().map(Entry::number).filter(|n| loaded.get(*n)).for_each(|n| ready.set(n));
        let store = Store {
            directory,
            data,
            map,
            durable: Mutex::new(Durable { map: loaded, known: known.clone() }),
            written: Mutex::default(),
            queued: AtomicBool::new(false),
            queue,
            resting_until: Mutex::new(None),
            complained: AtomicBool::new(false),
        };
        Ok(Self { subject, ready, known: Mutex::new(known), inflight: Arc::default(), store: Some(store) })
    }

    /// A cache that keeps nothing: readers still share what is on its way.
    pub(crate) fn without_disk(subject: Subject) -> Self {
        let ready = Bits::new(0);
        Self { subject, ready, known: Mutex::new(Arc::from([])), inflight: Arc::default(), store: None }
    }

    pub(crate) fn is_of(&self, subject: &Subject) -> bool {
        self.subject == *subject
    }

    /// Lets an image in if it agrees on every chunk: gives its chunks, shared with other images where they are the
    /// same. `None`: it needs a cache of its own.
    pub(crate) fn admit(&self, image: &Arc<[Entry]>) -> Option<Arc<[Entry]>> {
        let mut known = lock(&self.known);
        match layout::agree(&known, image) {
            Agreement::Differs => return None,
            Agreement::Contained if known.len() == image.len() => return Some(known.clone()),
            Agreement::Contained => {}
            Agreement::Grown(union) if union.len() == image.len() => *known = image.clone(),
            Agreement::Grown(union) => *known = union.into(),
        }
        Some(image.clone())
    }

    /// Whether a chunk's bytes can be read.
    pub(crate) fn is_ready(&self, number: u32) -> bool {
        self.ready.get(number)
    }

    /// Reads bytes of chunks that are ready. On an error the caller is to [`Self::forget`] them.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.store {
            Some(store) => store.data.read_at(buf, offset),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The disk has lost a chunk: it is fetched again.
    pub(crate) fn forget(&self, number: u32, cause: &io::Error) {
        self.ready.clear(number);
        self.complain("read", cause);
    }

    /// Stores verified bytes. Never fails: a chunk that the disk does not take is just not ready.
    pub(crate) fn store(self: &Arc<Self>, entry: &Entry, bytes: &[u8]) {
        let Some(store) = &self.store else { return };
        if self.ready.get(entry.number()) || store.is_resting() {
            return;
        }
        let losses = lock(&store.written).losses;
        if let Err(e) = store.data.write_at(bytes, entry.offset()) {
            *lock(&store.resting_until) = Some(Instant::now() + REST);
            return self.complain("write", &e);
        }
        let mut written = lock(&store.written);
        if written.losses == losses {
            self.ready.set(entry.number());
            written.numbers.push(entry.number());
        }
        drop(written);
        let first = !store.queued.swap(true, Ordering::AcqRel);
        store.queue.wrote(bytes.len(), first.then_some(self));
    }

    /// Makes what is written durable: layout, data, then bits, each before the next begins.
    pub(crate) fn flush(&self) {
        let Some(store) = &self.store else { return };
        let mut durable = lock(&store.durable);
        store.queued.store(false, Ordering::Release);
        let written = std::mem::take(&mut lock(&store.written).numbers);
        if written.is_empty() {
            return;
        }
        if let Err(e) = store.data.sync() {
            // The kernel says so once and may drop what it could not write, what came since the flush began included.
            let mut since = lock(&store.written);
            since.losses += 1;
            written.iter().chain(&since.numbers).for_each(|n| self.ready.clear(*n));
            since.numbers.clear();
            return self.complain("sync", &e);
        }
        if let Err(e) = self.commit(store, &mut durable, &written) {
            lock(&store.written).numbers.extend(written);
            self.complain("sync", &e);
        }
    }

    fn commit(&self, store: &Store, durable: &mut Durable, written: &[u32]) -> io::Result<()> {
        let known = lock(&self.known).clone();
        if known.len() != durable.known.len() {
            store.directory.replace("chunks", &layout::encode(&self.subject, &known))?;
            durable.known = known;
        }
        durable.map.commit(&*store.map, written)
    }

    /// Says once per blob that its disk fails.
    fn complain(&self, what: &str, cause: &io::Error) {
        let Some(store) = &self.store else { return };
        if !store.complained.swap(true, Ordering::Relaxed) {
            let blob = self.subject.id.short();
            tracing::warn!(blob, what, %cause, "the cache disk fails; serving straight from the network");
        }
    }
}

impl Drop for BlobCache {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Store {
    fn is_resting(&self) -> bool {
        lock(&self.resting_until).is_some_and(|until| Instant::now() < until)
    }
}

/// What the files say, where all of them can be trusted.
fn load(
    directory: &dyn Directory,
    (data, map): (&dyn CacheFile, &dyn CacheFile),
    subject: &Subject,
) -> io::Result<Option<(MapFile, Arc<[Entry]>)>> {
    let is_new = map.size()? == 0;
    let loaded = MapFile::load(map, subject)?;
    let known = match directory.read("chunks", layout::max_len(subject) + 1)? {
        Some(bytes) => layout::decode(subject, &bytes),
        None => Some(Arc::from([])),
    };
    if let (Some(loaded), Some(known)) = (loaded, known) {
        let ready = known.iter().filter(|e| loaded.get(e.number()));
        let end = ready.clone().next_back().map_or(0, Entry::end);
        // A bit without a record would become one of whatever chunk is recorded under its number later.
        if ready.count() == loaded.count() && data.size()? >= end {
            return Ok(Some((loaded, known)));
        }
    }
    if !is_new {
        tracing::warn!(blob = subject.id.short(), "the cache of this blob is broken and begun anew");
    }
    Ok(None)
}
