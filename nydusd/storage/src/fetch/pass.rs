//! One pass of a request's stream.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Wanted, splitter::Splitter};
use crate::{blob::Blob, verify::verify};

/// Received bytes that may wait while others are being checked; above it the stream waits.
const BACKLOG: usize = 1 << 20;

/// Cuts the stream into chunks and has them checked beside it.
#[derive(Debug)]
pub(super) struct Pass {
    blob: Arc<Blob>,
    range: Range<u64>,
    splitter: Splitter,
    /// By place among the wanted; `None` once received.
    wanted: Vec<Option<Wanted>>,
    received: Vec<(Wanted, Bytes)>,
    backlog: usize,
    checking: Option<JoinHandle<Vec<Wanted>>>,
    /// Came wrong for the first time.
    suspects: Vec<Wanted>,
}

impl Pass {
    /// `wanted` is not empty, sorted by place in the blob file, and does not overlap.
    pub(super) fn new(blob: Arc<Blob>, wanted: Vec<Wanted>) -> Self {
        let ranges: Vec<_> = wanted.iter().map(|w| w.entry.stored()).collect();
        let range = ranges.first().map_or(0, |r| r.start)..ranges.last().map_or(0, |r| r.end);
        Self {
            blob,
            range,
            splitter: Splitter::new(ranges),
            wanted: wanted.into_iter().map(Some).collect(),
            received: Vec::new(),
            backlog: 0,
            checking: None,
            suspects: Vec::new(),
        }
    }

    /// The bytes to ask for.
    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether everything has been received.
    pub(super) fn is_received(&self) -> bool {
        self.splitter.is_done()
    }

    /// Takes the next piece of the stream; gives how far it has come.
    pub(super) fn push(&mut self, piece: Bytes) -> u64 {
        let Self { splitter, wanted, received, backlog, .. } = self;
        splitter.push(piece, |place, bytes| {
            *backlog += bytes.len();
            received.extend(wanted[place].take().map(|w| (w, bytes)));
        });
        splitter.position()
    }

    /// Has what is received checked, beside the stream as long as that keeps up.
    pub(super) async fn work(&mut self) {
        let busy = self.checking.as_ref().is_some_and(|task| !task.is_finished());
        if self.received.is_empty() || busy && self.backlog < BACKLOG {
            return;
        }
        self.settle().await;
        let (blob, batch) = (self.blob.clone(), std::mem::take(&mut self.received));
        self.backlog = 0;
        self.checking = Some(tokio::task::spawn_blocking(move || check(&blob, batch)));
    }

    async fn settle(&mut self) {
        let Some(task) = &mut self.checking else { return };
        // A panic has dropped its chunks, which wakes their readers.
        self.suspects.extend(task.await.into_iter().flatten());
        self.checking = None;
    }

    /// Ends the pass: everything received is checked; gives the chunks that are still to come, in order.
    pub(super) async fn finish(mut self) -> Vec<Wanted> {
        self.backlog = BACKLOG;
        self.work().await;
        self.settle().await;
        let mut left: Vec<_> = self.wanted.into_iter().flatten().chain(self.suspects).collect();
        left.sort_unstable_by_key(|w| w.entry.compressed_offset);
        left
    }
}

/// Checks chunks, hands them out and stores them; gives back those that came wrong for the first time.
fn check(blob: &Blob, batch: Vec<(Wanted, Bytes)>) -> Vec<Wanted> {
    let mut suspects = Vec::new();
    for (wanted, stored) in batch {
        match verify(&blob.table, &wanted.entry, stored) {
            Ok(plain) => {
                wanted.lead.deliver(plain.clone());
                blob.cache.store(&wanted.entry, &plain);
            }
            Err(failure) if wanted.suspect => wanted.lead.fail(failure),
            Err(_) => suspects.push(Wanted { suspect: true, ..wanted }),
        }
    }
    suspects
}
