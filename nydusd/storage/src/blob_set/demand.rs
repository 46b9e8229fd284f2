//! Reads that a process waits for.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    StorageError,
    backend::Priority,
    blob::Blob,
    cache::{
        inflight::{Failure, Joined, Outcome, Waiter},
        lock,
    },
    chunks::Entry,
    fetch::{Fetcher, Request, Wanted},
    plan,
};

/// How often a read begins anew when what it relied on goes away: another's fetch, or the disk.
const ATTEMPTS: usize = 3;

/// Reads `range`, which the chunks at `places` hold.
pub(super) async fn read(
    fetcher: &Arc<Fetcher>,
    blob: &Arc<Blob>,
    places: Range<usize>,
    range: Range<u64>,
) -> Result<Bytes, StorageError> {
    let deadline = Instant::now() + fetcher.policy.deadline;
    let mut waits_for = places.start;
    let attempts = async {
        let mut failed = (places.start, Failure::Lost);
        for attempt in 0..ATTEMPTS {
            let is_unplaced = |place| !blob.is_ready(place) && blob.stands(place).is_none();
            if let Some(place) = places.clone().find(|place| is_unplaced(*place)) {
                fetcher.locate(blob).await.map_err(|failure| (place, failure))?;
            }
            let parts = join(fetcher, blob, places.clone(), attempt > 0);
            match gather(fetcher, blob, places.clone().zip(parts), &mut waits_for).await {
                Ok(parts) => {
                    if let Some(bytes) = assemble(blob, places.clone(), range.clone(), parts).await {
                        return Ok(bytes);
                    }
                }
                Err(Failed::Own(place, failure)) => return Err((place, failure)),
                Err(Failed::Others(place, failure)) => failed = (place, failure),
            }
        }
        Err(failed)
    };
    let timed = tokio::time::timeout_at(deadline, attempts);
    let failed = match fetcher.closing.run_until_cancelled(timed).await {
        None => return Err(StorageError::Closed { blob: blob.id.clone() }),
        Some(Ok(Ok(bytes))) => return Ok(bytes),
        Some(Ok(Err(failed))) => failed,
        Some(Err(_)) => (waits_for, Failure::Lost),
    };
    Err(error(fetcher, blob, failed))
}

/// Where a chunk of a read comes from.
enum Part {
    Cached,
    /// A fetch that this read began.
    Own(Waiter),
    /// A fetch that began before, and may fail for what has passed since.
    Others(Waiter),
}

/// The chunk that did not come, by whose fetch.
enum Failed {
    Own(usize, Failure),
    Others(usize, Failure),
}

/// Waits for all parts; those that are in the cache are `None`.
async fn gather(
    fetcher: &Fetcher,
    blob: &Blob,
    parts: impl Iterator<Item = (usize, Part)>,
    waits_for: &mut usize,
) -> Result<Vec<Option<Bytes>>, Failed> {
    let mut gathered = Vec::new();
    for (place, part) in parts {
        *waits_for = place;
        gathered.push(match part {
            Part::Cached => None,
            Part::Own(waiter) => Some(waiter.outcome().await.map_err(|failure| match failure {
                Failure::Lost => Failed::Others(place, failure),
                // What the blob says of the place of such a chunk may have been wrong.
                Failure::Digest | Failure::Decode(_) if blob.table.entries[place].is_member() => {
                    Failed::Others(place, failure)
                }
                _ => Failed::Own(place, failure),
            })?),
            Part::Others(waiter) => {
                let outcome = outcome(fetcher, blob, waiter).await;
                Some(outcome.map_err(|failure| Failed::Others(place, failure))?)
            }
        });
    }
    Ok(gathered)
}

/// What another's fetch brings. One of another image may have a source that is dead: it is not waited for to the end.
async fn outcome(fetcher: &Fetcher, blob: &Blob, waiter: Waiter) -> Outcome {
    if waiter.owner == blob.owner {
        return waiter.outcome().await;
    }
    let patience = fetcher.policy.stall.min(fetcher.policy.deadline / 3);
    tokio::time::timeout(patience, waiter.outcome()).await.unwrap_or(Err(Failure::Lost))
}

fn error(fetcher: &Fetcher, blob: &Blob, (place, failure): (usize, Failure)) -> StorageError {
    let id = blob.id.clone();
    let Some(chunk) = blob.table.entries.get(place).map(Entry::index) else {
        return StorageError::OutOfRange { blob: id, range: 0..0 };
    };
    match failure {
        Failure::Fetch(source) => StorageError::Fetch { blob: id, chunk, source },
        Failure::Digest => StorageError::Digest { blob: id, chunk },
        Failure::Decode(source) => StorageError::Decode { blob: id, chunk, source },
        Failure::Table(source) => StorageError::Table { blob: id, source },
        Failure::Lost => StorageError::Deadline { blob: id, chunk, deadline: fetcher.policy.deadline },
    }
}

/// Joins the readers of the chunks at `places` and launches what nobody fetches yet.
fn join(fetcher: &Arc<Fetcher>, blob: &Arc<Blob>, places: Range<usize>, impatient: bool) -> Vec<Part> {
    let mut wanted = Vec::new();
    let mut missed: Option<Range<usize>> = None;
    let mut waited = None;
    let mut parts = Vec::with_capacity(places.len());
    for place in places {
        parts.push(match blob.join(place, Priority::Demand, fetcher.policy.patience, impatient) {
            Joined::Ready => Part::Cached,
            Joined::Wait(waiter) => {
                waited = Some(place);
                Part::Others(waiter)
            }
            Joined::Lead(lead) => {
                let waiter = lead.waiter();
                if let Some(chunk) = Wanted::new(blob, place, lead) {
                    wanted.push(chunk);
                    missed = Some(missed.map_or(place..place + 1, |m| m.start..place + 1));
                }
                Part::Own(waiter)
            }
        });
    }
    match (missed, waited) {
        (Some(missed), _) => launch(fetcher, blob, wanted, missed),
        (None, Some(waited)) => read_ahead(fetcher, blob, waited),
        (None, None) => {}
    }
    parts
}

/// Fetches the missed chunks, and as much around them as is likely to be wanted next.
fn launch(fetcher: &Arc<Fetcher>, blob: &Arc<Blob>, mut wanted: Vec<Wanted>, missed: Range<usize>) {
    let policy = &fetcher.policy;
    let window = lock(&blob.streams).missed(missed.start, policy, |place| blob.is_touched(place));
    let whole = blob.with_siblings(missed.clone());
    let siblings: Vec<_> = (whole.start..missed.start).chain(missed.end..whole.end).collect();
    wanted.extend(leads(blob, &siblings));
    let widened = plan::widen(&**blob, whole.clone(), window, policy.merge_gap);
    lock(&blob.streams).fetched(widened.ahead.last().map_or(whole.end, |last| last + 1));
    let behind = leads(blob, &widened.behind);
    wanted.extend(leads(blob, &widened.ahead));
    let is_missed =
        |entry: &Entry| blob.table.entries[missed.clone()].iter().any(|e| e.number() == entry.number());
    let priority = |entry: &Entry| if is_missed(entry) { Priority::Demand } else { Priority::ReadAhead };
    let requests = Request::plan(blob, wanted, policy, priority);
    let behind = Request::plan(blob, behind, policy, |_| Priority::ReadAhead);
    requests.into_iter().chain(behind).for_each(|request| fetcher.launch(request));
}

/// Fetches the next window of a reader that goes through the blob, before it asks.
fn read_ahead(fetcher: &Arc<Fetcher>, blob: &Arc<Blob>, waited: usize) {
    let policy = &fetcher.policy;
    let Some((begin, window)) = lock(&blob.streams).waits(waited, policy) else { return };
    if begin >= blob.table.entries.len() {
        return;
    }
    let ahead = plan::widen(&**blob, begin..begin + 1, window, policy.merge_gap).ahead;
    lock(&blob.streams).fetched(ahead.last().map_or(begin + 1, |last| last + 1));
    let wanted = leads(blob, &[&[begin], &ahead[..]].concat());
    let requests = Request::plan(blob, wanted, policy, |_| Priority::ReadAhead);
    requests.into_iter().for_each(|request| fetcher.launch(request));
}

fn leads(blob: &Blob, places: &[usize]) -> Vec<Wanted> {
    let wanted = |place: &usize| match blob.join(*place, Priority::ReadAhead, 0, false) {
        Joined::Lead(lead) => Wanted::new(blob, *place, lead),
        Joined::Ready | Joined::Wait(_) => None,
    };
    places.iter().filter_map(wanted).collect()
}

/// Puts a read together from fetched chunks and, where a part is `None`, the cache. `None`: the cache has lost some.
async fn assemble(
    blob: &Arc<Blob>,
    places: Range<usize>,
    range: Range<u64>,
    parts: Vec<Option<Bytes>>,
) -> Option<Bytes> {
    if let [Some(only)] = &parts[..] {
        let begin = range.start - blob.table.entries[places.start].offset();
        let within = usize::try_from(begin).ok().zip(usize::try_from(range.end - range.start).ok());
        if let Some((begin, len)) = within.filter(|(begin, len)| begin + len <= only.len()) {
            return Some(only.slice(begin..begin + len));
        }
    }
    let is_stored = parts.iter().any(Option::is_none);
    let blob = blob.clone();
    let copy = move || copy(&blob, places, &range, &parts);
    if is_stored { tokio::task::spawn_blocking(copy).await.ok()? } else { copy() }
}

fn copy(blob: &Blob, places: Range<usize>, range: &Range<u64>, parts: &[Option<Bytes>]) -> Option<Bytes> {
    let len = usize::try_from(range.end - range.start).ok()?;
    let mut out = BytesMut::zeroed(len);
    for (place, part) in places.zip(parts) {
        let entry = &blob.table.entries[place];
        let (from, to) = (range.start.max(entry.offset()), range.end.min(entry.end()));
        if from >= to {
            continue;
        }
        let (begin, len) = (usize::try_from(from - range.start).ok()?, usize::try_from(to - from).ok()?);
        let slot = &mut out[begin..begin + len];
        match part {
            Some(bytes) => {
                let skip = usize::try_from(from - entry.offset()).ok()?;
                slot.copy_from_slice(bytes.get(skip..skip + len)?);
            }
            None if blob.read_cached(place..place + 1, slot, from) => {}
            None => return None,
        }
    }
    Some(out.freeze())
}
