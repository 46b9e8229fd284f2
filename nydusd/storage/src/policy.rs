//! How reads of one image behave.

use std::time::Duration;

/// How reads of one image behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPolicy {
    /// How long a read waits for its bytes before it fails.
    pub deadline: Duration,
    /// How long the bytes of a request may stand still before it is made anew. Longer than the backend's own patience
    /// with a silent host, so that the backend notices first and goes to another.
    pub stall: Duration,
    /// Pause before a failed request is made again; doubled each time.
    pub backoff: Duration,
    /// How often a failed request is made again.
    pub retries: u32,
    /// Merge wanted chunks whose gap in the blob file is at most this many bytes.
    pub merge_gap: u64,
    /// Largest request to a backend, in bytes.
    pub max_request: u64,
    /// A miss that continues nothing is widened to a request of this many bytes: about what the link carries in a
    /// round trip or two. A reader that goes on where the last window ended doubles it, up to `max_request`.
    pub window: u64,
    /// A reader does not wait for a chunk that a less urgent request brings only after this many bytes more.
    pub patience: u64,
    /// Requests at a time for waiting readers.
    pub demand_requests: usize,
    /// Requests at a time for what readers are likely to want next.
    pub read_ahead_requests: usize,
    /// Requests at a time for prefetch lists.
    pub prefetch_requests: usize,
    /// So many bytes of a prefetch list are sorted by their place in the blob before they are requested: more make
    /// larger requests, fewer keep the order of the list.
    pub prefetch_batch: u64,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            stall: Duration::from_secs(20),
            backoff: Duration::from_millis(100),
            retries: 3,
            merge_gap: 64 << 10,
            max_request: 4 << 20,
            window: 384 << 10,
            patience: 1 << 20,
            demand_requests: 16,
            read_ahead_requests: 4,
            prefetch_requests: 8,
            prefetch_batch: 2 << 20,
        }
    }
}
