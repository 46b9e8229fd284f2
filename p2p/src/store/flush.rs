//! The thread that makes pieces durable, some time after they were written.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::files::Files;

/// How long writes are gathered.
const GATHER: Duration = Duration::from_millis(500);
/// How many bytes are gathered at most.
const GATHER_BYTES: usize = 32 << 20;
/// How many writes may wait to be gathered.
const WAITING: usize = 1024;

#[derive(Debug)]
pub(super) struct Flusher {
    /// Weak: a task that is deleted meanwhile needs no flush.
    writes: Option<SyncSender<Weak<Files>>>,
    bytes: Arc<AtomicUsize>,
    failed: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start() -> io::Result<Self> {
        let (writes, written) = sync_channel(WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(Notify::new());
        let (gathered, tell) = (bytes.clone(), failed.clone());
        let run = move || {
            let mut again = Vec::new();
            while let Some(mut tasks) = gather(&written, &gathered, again) {
                tasks.retain(|files| files.upgrade().is_some_and(|files| !flush(&files, &tell)));
                again = tasks;
            }
        };
        let thread =
            std::thread::Builder::new().name("piece-flush".into()).stack_size(256 << 10).spawn(run)?;
        Ok(Self { writes: Some(writes), bytes, failed, thread: Some(thread) })
    }

    /// Tells of good pieces that are not durable.
    pub(super) fn wrote(&self, files: &Arc<Files>, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let told = self.writes.as_ref().map(|writes| writes.try_send(Arc::downgrade(files)));
        // The disk does not keep up: whoever writes does it.
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = told {
            flush(files, &self.failed);
        }
    }

    /// Returns when a flush has failed since this last returned.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }
}

/// Waits for writes and gathers some, besides those that are to be tried `again`; `None` when there will be no more.
fn gather(
    written: &Receiver<Weak<Files>>,
    bytes: &AtomicUsize,
    again: Vec<Weak<Files>>,
) -> Option<Vec<Weak<Files>>> {
    let mut tasks = again;
    let first = written.recv().ok()?;
    if !tasks.iter().any(|known| Weak::ptr_eq(known, &first)) {
        tasks.push(first);
    }
    let deadline = Instant::now() + GATHER;
    while bytes.load(Ordering::Relaxed) < GATHER_BYTES {
        match written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(files) if tasks.iter().any(|known| Weak::ptr_eq(known, &files)) => {}
            Ok(files) => tasks.push(files),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    bytes.store(0, Ordering::Relaxed);
    Some(tasks)
}

/// Says whether it went well; else tells who waits to hear that it did not.
fn flush(files: &Files, failed: &Notify) -> bool {
    let Err(error) = files.flush() else { return true };
    tracing::error!(error = &error as &dyn std::error::Error, "pieces are not durable");
    failed.notify_one();
    false
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the piece flusher panicked");
        }
    }
}
