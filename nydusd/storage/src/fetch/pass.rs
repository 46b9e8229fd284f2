//! One pass of a request's stream.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Wanted, splitter::Splitter};
use crate::{
    blob::Blob,
    cache::inflight::Failure,
    verify::{unpack, verify},
};

/// Received bytes that may wait while others are being checked; above it the stream waits.
const BACKLOG: usize = 1 << 20;

/// Cuts the stream into chunks and has them checked beside it.
#[derive(Debug)]
pub(super) struct Pass {
    blob: Arc<Blob>,
    range: Range<u64>,
    splitter: Splitter,
    /// The wanted chunks of each unit; none once it is received.
    wanted: Vec<Vec<Wanted>>,
    received: Vec<(Vec<Wanted>, Bytes)>,
    backlog: usize,
    checking: Option<JoinHandle<Wrong>>,
    wrong: Wrong,
}

/// Chunks that came wrong, and why.
type Wrong = Vec<(Wanted, Failure)>;

impl Pass {
    /// `wanted` is not empty, sorted by units, and these do not overlap.
    pub(super) fn new(blob: Arc<Blob>, wanted: Vec<Wanted>) -> Self {
        let mut units: Vec<Vec<Wanted>> = Vec::new();
        for chunk in wanted {
            match units.last_mut() {
                Some(unit) if unit[0].at.unit == chunk.at.unit => unit.push(chunk),
                _ => units.push(vec![chunk]),
            }
        }
        let ranges: Vec<_> = units.iter().map(|unit| unit[0].at.unit.stored()).collect();
        let range = ranges.first().map_or(0, |r| r.start)..ranges.last().map_or(0, |r| r.end);
        Self {
            blob,
            range,
            splitter: Splitter::new(ranges),
            wanted: units,
            received: Vec::new(),
            backlog: 0,
            checking: None,
            wrong: Vec::new(),
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
            received.push((std::mem::take(&mut wanted[place]), bytes));
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
        self.wrong.extend(task.await.into_iter().flatten());
        self.checking = None;
    }

    /// Ends the pass: everything received is checked; gives the chunks that are still to come, and those that came
    /// wrong.
    pub(super) async fn finish(mut self) -> (Vec<Wanted>, Wrong) {
        self.backlog = BACKLOG;
        self.work().await;
        self.settle().await;
        (self.wanted.into_iter().flatten().collect(), self.wrong)
    }
}

/// Checks chunks, hands them out and stores them; gives back those that are wrong.
fn check(blob: &Blob, batch: Vec<(Vec<Wanted>, Bytes)>) -> Wrong {
    let mut wrong = Vec::new();
    for (chunks, stored) in batch {
        let Some(unit) = chunks.first().map(|first| first.at.unit) else { continue };
        let unpacked = unpack(&blob.table, &unit, stored);
        for wanted in chunks {
            let verified =
                unpacked.clone().and_then(|u| verify(&blob.table, &wanted.entry, &u, wanted.at.begin));
            match verified {
                Ok(plain) => {
                    wanted.lead.deliver(plain.clone());
                    blob.cache.store(&wanted.entry, &plain);
                }
                Err(failure) => wrong.push((wanted, failure)),
            }
        }
    }
    wrong
}
