//! A process that fills a cache is killed at any instant; what the cache trusts afterwards is right.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::super::CacheDir;
use crate::{chunks::ChunkTable, testing::TestBlob};

const DIRECTORY: &str = "SHOAL_TEST_KILLED_CACHE";
const ROUNDS: u64 = 30;

fn blob() -> TestBlob {
    TestBlob::new(5, &[20_000; 200])
}

/// Fills the cache until it is killed; does nothing where it is not the child of the test below.
#[test]
fn child_that_fills_a_cache() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (blob, dir) = (blob(), CacheDir::open(Path::new(&directory)).unwrap());
    let mut table = ChunkTable::new(&blob.blob).unwrap();
    let cache = dir.attach(&blob.blob.id, &mut table);
    println!("filling");
    for (n, entry) in table.entries.iter().enumerate() {
        cache.store(entry, blob.plain(n));
        if n % 7 == 0 {
            cache.flush();
        }
    }
    std::process::abort();
}

#[test]
fn after_kill_9_at_any_instant_every_trusted_chunk_is_right() {
    let (blob, dir) = (blob(), tempfile::tempdir().unwrap());
    let mut most = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache::tests::killed::child_that_fills_a_cache", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("filling")));
        let lifetime = Duration::from_micros(round * 7919 % 60_000);
        let begin = Instant::now();
        while begin.elapsed() < lifetime {
            std::thread::park_timeout(lifetime.saturating_sub(begin.elapsed()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        most = most.max(trusted(dir.path(), &blob));
    }
    assert!(most > 0, "no child lived long enough to store anything");
}

/// Opens the cache as the next process does and checks every chunk that it trusts; gives their number.
fn trusted(path: &Path, blob: &TestBlob) -> usize {
    let dir = CacheDir::open(path).unwrap();
    let mut table = ChunkTable::new(&blob.blob).unwrap();
    let cache = dir.attach(&blob.blob.id, &mut table);
    let ready = table.entries.iter().filter(|e| cache.is_ready(e.number()));
    let right = |entry: &crate::chunks::Entry| {
        let mut buf = vec![0; entry.size as usize];
        cache.read(&mut buf, entry.offset()).unwrap();
        assert_eq!(table.algorithm.digest(&buf), entry.digest);
    };
    ready.map(right).count()
}
