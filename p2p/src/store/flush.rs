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
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start() -> io::Result<Self> {
        let (writes, written) = sync_channel(WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        let gathered = bytes.clone();
        let run = move || {
            while let Some(tasks) = gather(&written, &gathered) {
                tasks.iter().filter_map(Weak::upgrade).for_each(|files| flush(&files));
            }
        };
        let thread =
            std::thread::Builder::new().name("piece-flush".into()).stack_size(256 << 10).spawn(run)?;
        Ok(Self { writes: Some(writes), bytes, thread: Some(thread) })
    }

    /// Tells of good pieces that are not durable.
    pub(super) fn wrote(&self, files: &Arc<Files>, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let told = self.writes.as_ref().map(|writes| writes.try_send(Arc::downgrade(files)));
        // The disk does not keep up: whoever writes does it.
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = told {
            flush(files);
        }
    }
}

/// Waits for writes and gathers some; `None` when there will be no more.
fn gather(written: &Receiver<Weak<Files>>, bytes: &AtomicUsize) -> Option<Vec<Weak<Files>>> {
    let mut tasks = vec![written.recv().ok()?];
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

fn flush(files: &Files) {
    if let Err(error) = files.flush() {
        tracing::error!(error = &error as &dyn std::error::Error, "pieces are not durable");
    }
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
