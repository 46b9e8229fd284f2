//! The thread that makes caches durable, some time after they were written.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::Duration,
};

use super::{BlobCache, lock};

/// How long writes are gathered before they are made durable.
const GATHER: Duration = Duration::from_millis(500);
/// How many bytes are gathered at most.
const GATHER_BYTES: usize = 32 << 20;

/// Caches that have something to make durable.
#[derive(Default)]
pub(crate) struct FlushQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Weak: a cache that ends before its turn flushes itself.
    caches: Vec<Weak<BlobCache>>,
    bytes: usize,
    stopping: bool,
}

impl fmt::Debug for FlushQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushQueue").finish_non_exhaustive()
    }
}

impl FlushQueue {
    /// Tells of bytes written, and of a cache that was clean before.
    pub(super) fn wrote(&self, bytes: usize, cache: Option<&Arc<BlobCache>>) {
        let mut state = lock(&self.state);
        state.bytes += bytes;
        state.caches.extend(cache.map(Arc::downgrade));
        if cache.is_some() || state.bytes >= GATHER_BYTES {
            self.changed.notify_one();
        }
    }

    /// Waits for work and gathers some; `None` when stopped and nothing is left.
    fn gather(&self) -> Option<Vec<Weak<BlobCache>>> {
        let idle = |state: &mut State| state.caches.is_empty() && !state.stopping;
        let state = self.changed.wait_while(lock(&self.state), idle).unwrap_or_else(PoisonError::into_inner);
        let gathering = |state: &mut State| state.bytes < GATHER_BYTES && !state.stopping;
        let waited = self.changed.wait_timeout_while(state, GATHER, gathering);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.bytes = 0;
        let caches = std::mem::take(&mut state.caches);
        (!caches.is_empty() || !state.stopping).then_some(caches)
    }
}

/// The thread; dropping it flushes what is left and waits for it.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: Arc<FlushQueue>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start() -> std::io::Result<Self> {
        let queue = Arc::new(FlushQueue::default());
        let gathered = queue.clone();
        let run = move || {
            while let Some(caches) = gathered.gather() {
                caches.iter().filter_map(Weak::upgrade).for_each(|cache| cache.flush());
            }
        };
        let thread =
            std::thread::Builder::new().name("cache-flush".into()).stack_size(256 << 10).spawn(run)?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(crate) fn queue(&self) -> &Arc<FlushQueue> {
        &self.queue
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        lock(&self.queue.state).stopping = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the cache flusher panicked");
        }
    }
}
