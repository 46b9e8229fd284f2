//! Content to chunks: read, cut, hash and compress on threads, append in order.
//!
//! ```text
//! reader --batch--> N workers (hash, compress) --batch--> appender (order, deduplicate, write)
//!   ^------------------------- empty batches -----------------------------'
//! ```
//! A fixed number of batches goes round, which bounds memory and holds the reader back. Which bytes come out does not
//! depend on the number of workers: the first chunk in reading order is the one that is kept.

mod append;
mod batch;

use std::{
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Scope, ScopedJoinHandle},
};

use rafs::{Chunk, Compressor, Digest, DigestAlgorithm, Encoder};

use self::{append::Appender, batch::Batch};
use crate::BuildError;

pub use append::{Known, Place, Sink};

/// How content is cut and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Bytes of a chunk, a power of two from 4 KiB to 16 MiB.
    pub chunk_size: u32,
    /// How chunks are compressed.
    pub compressor: Compressor,
    /// How chunks are hashed.
    pub digest: DigestAlgorithm,
    /// Threads that hash and compress, at least one.
    pub jobs: usize,
}

/// Content on its way: the reading end of a pipeline.
#[derive(Debug)]
pub struct Feed {
    chunk_size: usize,
    open: Option<Batch>,
    empty: Receiver<Batch>,
    full: Sender<Batch>,
    batches: u64,
    chunks: u32,
}

/// Everything that went through a pipeline.
#[derive(Debug)]
pub struct Chunked<S> {
    /// Where the chunks went.
    pub sink: S,
    /// The chunks in the sink, in order.
    pub chunks: Vec<Chunk>,
    /// For each chunk fed, in order, where its content stands.
    pub order: Vec<Place>,
}

/// Handle on the threads of a pipeline.
#[derive(Debug)]
pub struct Pipeline<'scope, S> {
    appender: ScopedJoinHandle<'scope, Result<Chunked<S>, BuildError>>,
}

/// Starts a pipeline into `sink`. Dropping the feed ends it.
///
/// `known` is content that is not stored again.
///
/// # Errors
/// [`BuildError::Format`] for a compressor that cannot write.
pub fn start<'scope, 'env, S: Sink + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    options: ChunkOptions,
    sink: S,
    known: &'scope Known,
) -> Result<(Feed, Pipeline<'scope, S>), BuildError> {
    let jobs = options.jobs.max(1);
    let ((full, work), (done, finished), (spent, empty)) = (channel::<Batch>(), channel(), channel());
    for _ in 0..2 * jobs + 2 {
        spent.send(Batch::new(options.chunk_size)).expect("the receiver stands above");
    }
    // Channels need no bound of their own: there are no more batches than these.
    let work = std::sync::Arc::new(Mutex::new(work));
    for _ in 0..jobs {
        let encoder = Encoder::new(options.compressor).map_err(BuildError::format("compressor"))?;
        let (work, done) = (work.clone(), done.clone());
        scope.spawn(move || run_worker(encoder, options.digest, known, &work, &done));
    }
    let appender = scope.spawn(move || Appender::new(sink, known).run(&finished, &spent));
    let chunk_size = options.chunk_size as usize;
    let feed = Feed { chunk_size, open: None, empty, full, batches: 0, chunks: 0 };
    Ok((feed, Pipeline { appender }))
}

fn run_worker(
    mut encoder: Encoder,
    digest: DigestAlgorithm,
    known: &Known,
    work: &Mutex<Receiver<Batch>>,
    done: &Sender<Batch>,
) {
    loop {
        let received = work.lock().expect("no worker panics with the lock").recv();
        let Ok(mut batch) = received else { return };
        batch.encode(&mut encoder, digest, known);
        if done.send(batch).is_err() {
            return;
        }
    }
}

impl<S> Pipeline<'_, S> {
    /// Waits for the end, once the feed is dropped.
    ///
    /// # Errors
    /// [`BuildError::Write`] where the sink failed.
    pub fn finish(self) -> Result<Chunked<S>, BuildError> {
        self.appender.join().expect("the appender does not panic")
    }
}

impl Feed {
    /// Number of chunks fed so far: the number that the next one will have.
    #[must_use]
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Feeds a file of `size` bytes, which `read` brings piece by piece.
    ///
    /// # Errors
    /// What `read` returns; [`BuildError::Cancelled`] where the pipeline ended early: its `finish` tells why.
    pub fn file(
        &mut self,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let mut left = size;
        while left > 0 {
            let len = usize::try_from(left).map_or(self.chunk_size, |left| left.min(self.chunk_size));
            if self.open.as_ref().is_some_and(|batch| batch.room() < len) {
                self.flush()?;
            }
            let batch = match self.open.take() {
                Some(batch) => self.open.insert(batch),
                None => self.open.insert(self.empty.recv().map_err(|_| BuildError::Cancelled)?),
            };
            read(batch.next_chunk(len))?;
            batch.push(len);
            self.chunks += 1;
            left -= len as u64;
        }
        Ok(())
    }

    /// Sends what is gathered.
    ///
    /// # Errors
    /// [`BuildError::Cancelled`] where the pipeline ended early.
    pub fn flush(&mut self) -> Result<(), BuildError> {
        let Some(mut batch) = self.open.take() else { return Ok(()) };
        batch.number = self.batches;
        self.batches += 1;
        self.full.send(batch).map_err(|_| BuildError::Cancelled)
    }
}

/// A chunk that is the same as another has the same digest and length.
pub(crate) type ChunkKey = (Digest, u32);
