//! Reads: a hit is answered on the worker's thread, a miss moves with its reply into a task.

use std::{
    cell::RefCell,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fuser::{Errno, ReplyData};
use tokio::{runtime::Handle, sync::Semaphore};

use super::report::{Place, report};
use crate::{
    counters::Op,
    events::Events,
    fs::{FsError, Span},
    mounts::Image,
};

/// Misses that are worked on at a time; each holds at most one read's bytes.
const MAX_MISSES: usize = 256;

thread_local! {
    /// Where hits are read to. It grows to the largest read of its thread and stays.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One read.
pub(super) struct ReadRequest {
    pub(super) image: Arc<Image>,
    /// What is read, a file of the image or one of its blobs.
    pub(super) place: Place,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) unique: u64,
    pub(super) started: Instant,
}

/// A read that waits for its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Inflight {
    /// The inode number in its image; of a blob, its number in the mount.
    pub inode: u64,
    /// FUSE's number of the request.
    pub unique: u64,
    /// When it came, in seconds since 1970.
    pub timestamp_secs: u64,
}

/// Where reads go.
#[derive(Debug)]
pub struct ReadQueue {
    runtime: Handle,
    turns: Semaphore,
    patience: Duration,
    inflight: Mutex<HashMap<u64, Inflight>>,
    events: Arc<Events>,
}

impl ReadQueue {
    /// A queue whose misses run on `runtime`, each waiting at most `patience` for its turn.
    #[must_use]
    pub fn new(runtime: Handle, patience: Duration, events: Arc<Events>) -> Self {
        let turns = Semaphore::new(MAX_MISSES);
        Self { runtime, turns, patience, inflight: Mutex::default(), events }
    }

    /// Reads that wait for their bytes now.
    pub fn inflight(&self) -> Vec<Inflight> {
        self.lock_inflight().values().copied().collect()
    }

    pub(super) fn answer(self: &Arc<Self>, request: ReadRequest, reply: ReplyData) {
        let attempt = AssertUnwindSafe(|| plan_and_try(&request));
        match catch_unwind(attempt).unwrap_or(Err(FsError::Panic)) {
            Ok(Attempt::Hit(len)) => {
                // Before the reply: whoever has the bytes finds the read counted.
                request.image.counters().read(len, request.started.elapsed());
                BUFFER.with_borrow(|buffer| reply.data(&buffer[..len]));
            }
            Ok(Attempt::Miss(spans)) => {
                let queue = Arc::clone(self);
                let tracked = request.image.reads().token();
                self.runtime.spawn(async move {
                    queue.wait(request, spans, reply).await;
                    drop(tracked);
                });
            }
            Err(error) => fail(&self.events, &request, &error, reply),
        }
    }

    async fn wait(&self, request: ReadRequest, spans: Vec<Span>, reply: ReplyData) {
        let _entry = InflightEntry::new(self, &request);
        let turn = tokio::time::timeout(self.patience, self.turns.acquire()).await;
        let outcome = match turn {
            Ok(_turn) => request.image.rafs().read(&spans).await,
            Err(_) => Err(FsError::Queue(self.patience)),
        };
        match outcome {
            Ok(bytes) => {
                request.image.counters().read(bytes.len(), request.started.elapsed());
                reply.data(&bytes);
            }
            Err(error) => {
                let events = Arc::clone(&self.events);
                let told = self.runtime.spawn_blocking(move || fail(&events, &request, &error, reply));
                // Where it does not run any more, dropping the reply has answered EIO.
                drop(told.await);
            }
        }
    }

    /// Where failures are remembered.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    fn lock_inflight(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Inflight>> {
        self.inflight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Attempt {
    /// So many bytes are in the thread's buffer.
    Hit(usize),
    Miss(Vec<Span>),
}

fn plan_and_try(request: &ReadRequest) -> Result<Attempt, FsError> {
    let image = &request.image;
    let spans = match request.place {
        Place::Inode(nid) => {
            #[cfg(test)]
            super::tests::strike(nid);
            image.trace().note(nid, request.offset, request.size.into());
            image.rafs().plan(nid, request.offset, request.size.into())?
        }
        Place::Blob(blob, offset) => image.rafs().plan_blob(blob, offset, request.size).into_iter().collect(),
    };
    let len = spans.iter().map(|span| span.len as usize).sum();
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let hit = image.rafs().try_read(&spans, &mut buffer[..len])?;
        Ok(if hit { Attempt::Hit(len) } else { Attempt::Miss(spans) })
    })
}

/// Tells of a failed read, then answers it.
fn fail(events: &Events, request: &ReadRequest, error: &FsError, reply: ReplyData) {
    report(events, &request.image, request.place, Op::Read, error);
    reply.error(Errno::from_i32(error.errno()));
}

/// Keeps a waiting read listed until it is answered.
struct InflightEntry<'a> {
    queue: &'a ReadQueue,
    unique: u64,
}

impl<'a> InflightEntry<'a> {
    fn new(queue: &'a ReadQueue, request: &ReadRequest) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let inode = match request.place {
            Place::Inode(nid) => nid.0,
            Place::Blob(blob, _) => request.image.number().blob_ino(blob),
        };
        let entry = Inflight { inode, unique: request.unique, timestamp_secs: now.as_secs() };
        queue.lock_inflight().insert(request.unique, entry);
        Self { queue, unique: request.unique }
    }
}

impl Drop for InflightEntry<'_> {
    fn drop(&mut self) {
        self.queue.lock_inflight().remove(&self.unique);
    }
}
