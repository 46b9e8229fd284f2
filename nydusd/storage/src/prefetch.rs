//! Fetches what an image will want, in order, below what readers wait for.

use std::{ops::Range, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    backend::Priority,
    blob::Blob,
    cache::inflight::Joined,
    chunks::Entry,
    fetch::{Fetcher, Request, Wanted},
};

/// Fetches chunks, given as places in the table of their blob. What is wanted soon is gathered into large requests,
/// so that a list of small files does not cost a round trip each.
pub(crate) async fn run(fetcher: Arc<Fetcher>, list: Vec<(Arc<Blob>, Range<usize>)>) {
    let batch_bytes = fetcher.policy.prefetch_batch;
    let mut places =
        list.into_iter().flat_map(|(blob, places)| places.map(move |place| (blob.clone(), place)));
    let mut running = JoinSet::new();
    loop {
        let batch = gather(&mut places, batch_bytes);
        if batch.is_empty() {
            break;
        }
        for (blob, places) in batch {
            for request in requests(&fetcher, &blob, places) {
                while running.len() >= fetcher.policy.prefetch_requests.max(1) {
                    running.join_next().await;
                }
                let fetcher = fetcher.clone();
                running.spawn(async move { fetcher.run(request).await });
            }
        }
    }
    while running.join_next().await.is_some() {}
}

/// The next missing chunks of about `bytes` in all, by blob.
fn gather(places: &mut impl Iterator<Item = (Arc<Blob>, usize)>, bytes: u64) -> Vec<(Arc<Blob>, Vec<usize>)> {
    let mut batch: Vec<(Arc<Blob>, Vec<usize>)> = Vec::new();
    let mut gathered = 0;
    for (blob, place) in places {
        if blob.is_ready(place) {
            continue;
        }
        gathered += u64::from(blob.table.entries[place].compressed_size);
        match batch.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &blob)) {
            Some((_, places)) => places.push(place),
            None => batch.push((blob, vec![place])),
        }
        if gathered >= bytes {
            break;
        }
    }
    batch
}

fn requests(fetcher: &Fetcher, blob: &Arc<Blob>, places: Vec<usize>) -> Vec<Request> {
    let lead = |place: usize| {
        let entry = blob.table.entries[place];
        let is_ready = || blob.cache.is_ready(entry.number());
        match blob.cache.inflight.join(&entry, Priority::Prefetch, 0, is_ready) {
            Joined::Lead(lead) => Some(Wanted { entry, lead, suspect: false }),
            Joined::Ready | Joined::Wait(_) => None,
        }
    };
    let wanted = places.into_iter().filter_map(lead).collect();
    Request::plan(blob, wanted, &fetcher.policy, |_: &Entry| Priority::Prefetch)
}
