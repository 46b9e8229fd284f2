//! Figures of what lists fetch ahead.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What was fetched ahead by lists, since the image was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefetched {
    /// Bytes of blob files received.
    pub bytes: u64,
    /// Requests made to backends.
    pub requests: u64,
    /// Chunks asked for, before they were merged into requests.
    pub chunks: u64,
    /// Requests under way now.
    pub running: u64,
    /// Time that requests took, added up.
    pub took: Duration,
    /// When the first list began, since 1970.
    pub began: Option<Duration>,
    /// When the last request ended, since 1970.
    pub ended: Option<Duration>,
}

/// The same, being counted. Times are milliseconds; zero stands for never.
#[derive(Debug, Default)]
pub(crate) struct PrefetchCounters {
    pub(crate) bytes: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(super) chunks: AtomicU64,
    running: AtomicU64,
    took: AtomicU64,
    began: AtomicU64,
    ended: AtomicU64,
}

/// A request under way; counted when it is dropped.
#[derive(Debug)]
pub(super) struct Running<'a> {
    counters: &'a PrefetchCounters,
    started: Instant,
}

impl PrefetchCounters {
    /// A list begins.
    pub(super) fn begin(&self) {
        // Only the first one counts; that another was faster is as good.
        self.began.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// A request begins.
    pub(super) fn run(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running { counters: self, started: Instant::now() }
    }

    pub(crate) fn figures(&self) -> Prefetched {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Some(get(counter)).filter(|t| *t > 0).map(Duration::from_millis);
        Prefetched {
            bytes: get(&self.bytes),
            requests: get(&self.requests),
            chunks: get(&self.chunks),
            running: get(&self.running),
            took: Duration::from_millis(get(&self.took)),
            began: time(&self.began),
            ended: time(&self.ended),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.running.fetch_sub(1, Ordering::Relaxed);
        self.counters.took.fetch_add(millis(self.started.elapsed()), Ordering::Relaxed);
        self.counters.ended.fetch_max(now(), Ordering::Relaxed);
    }
}

fn now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
