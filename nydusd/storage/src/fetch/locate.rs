//! Learns from a blob which of its chunks share units.

use std::{ops::Range, sync::Arc};

use tokio::time::{Instant, timeout};

use super::Fetcher;
use crate::{
    backend::{BackendError, Priority},
    blob::Blob,
    cache::inflight::Failure,
    history::Beginning,
};

impl Fetcher {
    /// Reads the table of a batch blob, unless that is done; one does it for all who need it. Ends within the deadline
    /// of reads.
    pub(crate) async fn locate(&self, blob: &Arc<Blob>) -> Result<(), Failure> {
        match timeout(self.policy.deadline, self.take_turn(blob)).await {
            Ok(located) => located,
            Err(_) => Err(Failure::Lost),
        }
    }

    async fn take_turn(&self, blob: &Arc<Blob>) -> Result<(), Failure> {
        let Some(batch) = &blob.batch else { return Ok(()) };
        let _turn = batch.turn.lock().await;
        if batch.units().is_some() {
            return Ok(());
        }
        let mut backoff = self.policy.backoff;
        let mut retries = 0..self.policy.retries;
        loop {
            let failure = match self.read_units(blob).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fetch(error)) if !error.retryable => return Err(Failure::Fetch(error)),
                Err(failure) => failure,
            };
            if retries.next().is_none() {
                return Err(failure);
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    async fn read_units(&self, blob: &Arc<Blob>) -> Result<(), Failure> {
        let Some(batch) = &blob.batch else { return Ok(()) };
        let range = batch.table.stored();
        let bytes = self.whole(blob, range.clone()).await.map_err(|error| Failure::Fetch(Arc::new(error)))?;
        let known = Arc::clone(blob);
        let read = move || {
            let Some(batch) = &known.batch else { return Ok(()) };
            batch.table.read(&known.table, &bytes).map(|units| batch.learn(units))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.backend.distrust(&blob.id, range);
                Err(Failure::Table(error))
            }
            Err(_) => Err(Failure::Lost),
        }
    }

    /// The bytes of a range, which is small enough to be held at once.
    async fn whole(&self, blob: &Blob, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let len = range.end - range.start;
        let (asked, priority) = (Instant::now(), Priority::Demand);
        let read = self.history.begin(Beginning { blob: blob.index, range, priority, attempt: 0, asked });
        let reading = async {
            let mut bytes = Vec::new();
            let mut stream = self.open(&blob.id, &read.0).await?;
            while (bytes.len() as u64) < len {
                let piece = self.piece(&blob.id, &read.0, &mut stream).await?;
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        let ended = reading.await;
        read.end(ended.as_ref().err());
        ended
    }
}
