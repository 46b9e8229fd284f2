//! Fetches what an image will want, in order, below what readers wait for.

mod figures;

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use tokio::task::JoinSet;

use crate::{
    backend::Priority,
    blob::Blob,
    cache::inflight::Joined,
    fetch::{Fetcher, Request, Wanted},
};

/// Most chunks that are gathered at a time, however few bytes they have.
const MAX_CHUNKS: usize = 8192;
pub(crate) use figures::PrefetchCounters;
pub use figures::Prefetched;

/// Fetches chunks, given as places in the table of their blob. What is wanted soon is gathered into large requests,
/// so that a list of small files does not cost a round trip each.
pub(crate) async fn run(fetcher: Arc<Fetcher>, list: Vec<(Arc<Blob>, Range<usize>)>) {
    let batch_bytes = fetcher.policy.prefetch_batch;
    let mut places =
        list.into_iter().flat_map(|(blob, places)| places.map(move |place| (blob.clone(), place)));
    let mut running = JoinSet::new();
    fetcher.counters.prefetch.begin();
    loop {
        let batch = gather(&mut places, batch_bytes);
        if batch.is_empty() {
            break;
        }
        for (blob, places) in batch {
            fetcher.counters.prefetch.chunks.fetch_add(places.len() as u64, Ordering::Relaxed);
            for request in requests(&fetcher, &blob, places).await {
                while running.len() >= fetcher.policy.prefetch_requests.max(1) {
                    running.join_next().await;
                }
                let fetcher = fetcher.clone();
                running.spawn(async move {
                    let _running = fetcher.counters.prefetch.run();
                    fetcher.run(request).await;
                });
            }
        }
    }
    while running.join_next().await.is_some() {}
}

/// The next missing chunks of about `bytes` in all, by blob.
fn gather(places: &mut impl Iterator<Item = (Arc<Blob>, usize)>, bytes: u64) -> Vec<(Arc<Blob>, Vec<usize>)> {
    let mut batch: Vec<(Arc<Blob>, Vec<usize>)> = Vec::new();
    let (mut gathered, mut chunks) = (0, 0);
    for (blob, place) in places {
        if blob.is_ready(place) {
            continue;
        }
        let entry = &blob.table.entries[place];
        gathered += u64::from(if entry.is_member() { entry.size } else { entry.compressed_size });
        match batch.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &blob)) {
            Some((_, places)) => places.push(place),
            None => batch.push((blob, vec![place])),
        }
        chunks += 1;
        if gathered >= bytes || chunks >= MAX_CHUNKS {
            break;
        }
    }
    batch
}

async fn requests(fetcher: &Fetcher, blob: &Arc<Blob>, places: Vec<usize>) -> Vec<Request> {
    if places.iter().any(|place| blob.stands(*place).is_none())
        && let Err(failure) = fetcher.locate(blob).await
    {
        tracing::debug!(image = fetcher.image(), blob = blob.id.short(), ?failure, "not prefetched");
        return Vec::new();
    }
    let lead = |place: usize| match blob.join(place, Priority::Prefetch, 0, false) {
        Joined::Lead(lead) => Wanted::new(blob, place, lead),
        Joined::Ready | Joined::Wait(_) => None,
    };
    let whole = places.into_iter().flat_map(|place| blob.with_siblings(place..place + 1));
    Request::plan(blob, whole.filter_map(lead).collect(), &fetcher.policy, |_| Priority::Prefetch)
}
