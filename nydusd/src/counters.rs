//! Counts of requests of one image, in the classes that the original tells.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

/// Kinds of requests, in the order of the metrics' arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "FUSE's own names")]
pub enum Op {
    Getattr,
    Readlink,
    Open,
    Release,
    Read,
    Statfs,
    Getxattr,
    Listxattr,
    Opendir,
    Lookup,
    Readdir,
    Readdirplus,
    Access,
    Forget,
    BatchForget,
}

const OPS: usize = Op::BatchForget as usize + 1;
const CLASSES: usize = 8;
/// Upper ends of the classes of read sizes in bytes; the last class is open.
const SIZES: [u64; CLASSES - 1] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 512 << 10, 1 << 20];
/// Upper ends of the classes of latencies in microseconds; the last class is open.
const LATENCIES: [u64; CLASSES - 1] = [1_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 2_000_000];

/// Counters of one image; every field only grows.
#[derive(Debug, Default)]
pub struct Counters {
    hits: [AtomicU64; OPS],
    errors: [AtomicU64; OPS],
    latency_us: [AtomicU64; OPS],
    data_read: AtomicU64,
    sizes: [AtomicU64; CLASSES],
    latencies: [AtomicU64; CLASSES],
}

impl Counters {
    /// Counts a request that was answered.
    pub fn answered(&self, op: Op, took: Duration) {
        add(&self.hits[op as usize], 1);
        add(&self.latency_us[op as usize], micros(took));
    }

    /// Counts a request that failed.
    pub fn failed(&self, op: Op) {
        add(&self.errors[op as usize], 1);
    }

    /// Counts the bytes of a read that was answered.
    pub fn read(&self, len: usize, took: Duration) {
        self.answered(Op::Read, took);
        let len = len as u64;
        add(&self.data_read, len);
        add(&self.sizes[class(&SIZES, len)], 1);
        add(&self.latencies[class(&LATENCIES, micros(took))], 1);
    }

    /// The original's metrics of a file system.
    #[must_use]
    pub fn to_json(&self, id: &str) -> Value {
        json!({
            "files_account_enabled": false,
            "access_pattern_enabled": false,
            "record_latest_read_files_enabled": false,
            "measure_latency": true,
            "id": id,
            "nr_opens": 0,
            "nr_max_opens": 0,
            "data_read": get(&self.data_read),
            "block_count_read": all(&self.sizes),
            "fop_hits": all(&self.hits),
            "fop_errors": all(&self.errors),
            "fop_cumulative_latency_total": all(&self.latency_us),
            "read_latency_dist": all(&self.latencies),
        })
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn all(counters: &[AtomicU64]) -> Vec<u64> {
    counters.iter().map(get).collect()
}

fn class(ends: &[u64], value: u64) -> usize {
    ends.partition_point(|end| *end < value)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_counted_in_its_classes() {
        let counters = Counters::default();
        counters.read(4096, Duration::from_millis(30));
        counters.read(2 << 20, Duration::from_secs(9));
        counters.failed(Op::Getxattr);
        let json = counters.to_json("/");
        assert_eq!(json["block_count_read"], json!([0, 1, 0, 0, 0, 0, 0, 1]));
        assert_eq!(json["read_latency_dist"], json!([0, 0, 1, 0, 0, 0, 0, 1]));
        assert_eq!(json["fop_hits"][4], 2);
        assert_eq!(json["fop_errors"][6], 1);
        assert_eq!(json["data_read"], 4096 + (2 << 20));
    }
}
