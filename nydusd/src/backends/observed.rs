//! Counts of reads from a backend, in the classes that the original tells.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use storage::backend::{BackendError, ByteStream};

const CLASSES: usize = 8;
/// Upper ends of the classes of read sizes in KiB; the last class is open.
const SIZES_KIB: [u64; CLASSES - 1] = [1, 4, 16, 64, 128, 512, 1024];
/// Upper ends of the classes of latencies in milliseconds; the last class is open.
const LATENCIES_MS: [u64; CLASSES - 1] = [1, 20, 50, 100, 500, 1000, 2000];

/// Counts of reads from a backend; they only grow.
#[derive(Debug, Default)]
pub struct BackendCounters {
    errors: AtomicU64,
    amount: AtomicU64,
    latency_ms: AtomicU64,
    /// Reads by class of size, then of latency.
    reads: [[AtomicU64; CLASSES]; CLASSES],
}

impl BackendCounters {
    fn count(&self, bytes: u64, took_ms: u64) {
        self.amount.fetch_add(bytes, Ordering::Relaxed);
        self.latency_ms.fetch_add(took_ms, Ordering::Relaxed);
        let size = SIZES_KIB.partition_point(|end| end << 10 < bytes);
        let latency = LATENCIES_MS.partition_point(|end| *end < took_ms);
        self.reads[size][latency].fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The original's metrics of a backend.
    #[must_use]
    pub fn to_json(&self, id: &str, kind: Value) -> Value {
        let reads: Vec<Vec<u64>> =
            self.reads.iter().map(|row| row.iter().map(|n| n.load(Ordering::Relaxed)).collect()).collect();
        let by_size: Vec<u64> = reads.iter().map(|row| row.iter().sum()).collect();
        let by_latency: Vec<u64> = (0..CLASSES).map(|i| reads.iter().map(|row| row[i]).sum()).collect();
        json!({
            "id": id,
            "backend_type": kind,
            "read_count": by_size.iter().sum::<u64>(),
            "read_errors": self.errors.load(Ordering::Relaxed),
            "read_amount_total": self.amount.load(Ordering::Relaxed),
            "read_cumulative_latency_millis_total": self.latency_ms.load(Ordering::Relaxed),
            "read_cumulative_latency_millis_dist": by_latency,
            "read_count_block_size_dist": by_size,
            "read_latency_sizes_dist": reads,
        })
    }
}

/// One read under way; counted when it is dropped.
struct Observation {
    counters: Arc<BackendCounters>,
    started: Instant,
    bytes: u64,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let took = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counters.count(self.bytes, took);
    }
}

/// Counts a read and its bytes as they come.
pub(super) async fn observe(
    counters: Arc<BackendCounters>,
    read: impl Future<Output = Result<ByteStream, BackendError>>,
) -> Result<ByteStream, BackendError> {
    let mut observation = Observation { counters: Arc::clone(&counters), started: Instant::now(), bytes: 0 };
    let stream = read.await.inspect_err(|_| counters.fail())?;
    let counted = stream.inspect(move |part| match part {
        Ok(bytes) => observation.bytes += bytes.len() as u64,
        Err(_) => observation.counters.fail(),
    });
    Ok(counted.boxed())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_read_is_counted_when_its_stream_ends() {
        let counters = Arc::new(BackendCounters::default());
        let parts = stream::iter([Ok(Bytes::from_static(&[0; 3000])), Ok(Bytes::from_static(&[0; 2000]))]);
        let mut stream = observe(Arc::clone(&counters), async { Ok(parts.boxed()) }).await.unwrap();
        while stream.next().await.is_some() {}
        drop(stream);
        let json = counters.to_json("/", "registry".into());
        assert_eq!(json["read_amount_total"], 5000);
        assert_eq!(json["read_count_block_size_dist"], json!([0, 0, 1, 0, 0, 0, 0, 0]));
    }
}
