//! How long a source that gives next to nothing is waited for.

use std::time::Duration;

use registry::{BlobStream, RegistryError};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;

/// So many bytes come, at least,
const LEAST: usize = 64 << 10;
/// in so much time that is spent waiting for them.
const WINDOW: Duration = Duration::from_secs(30);

/// Too little came.
#[derive(Debug, thiserror::Error)]
#[error("less than {LEAST} bytes came within {WINDOW:?}")]
pub(super) struct Trickle;

/// Counts what comes, and the time spent waiting for it. Time in which the caller holds bytes back is not the source's.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waited: Duration,
    came: usize,
}

impl Patience {
    /// The next bytes, `None` at the end.
    pub(super) async fn next(
        &mut self,
        body: &mut BlobStream,
    ) -> Result<Option<Result<bytes::Bytes, RegistryError>>, Trickle> {
        let began = Instant::now();
        let next = timeout(WINDOW.saturating_sub(self.waited), body.next()).await.map_err(|_| Trickle)?;
        self.waited += began.elapsed();
        if let Some(Ok(bytes)) = &next {
            self.came += bytes.len();
        }
        if self.came >= LEAST {
            *self = Self::default();
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// So many bytes every `pause`, `count` times.
    fn source(len: usize, pause: Duration, count: usize) -> BlobStream {
        let items = (0..count).map(move |_| len);
        let paced = tokio_stream::iter(items).then(move |len| async move {
            sleep(pause).await;
            Ok(vec![0; len].into())
        });
        Box::pin(paced)
    }

    async fn read(mut body: BlobStream, held_back: Duration) -> Result<usize, Trickle> {
        let (mut patience, mut came) = (Patience::default(), 0);
        while let Some(bytes) = patience.next(&mut body).await? {
            came += bytes.unwrap().len();
            sleep(held_back).await;
        }
        Ok(came)
    }

    #[tokio::test(start_paused = true)]
    async fn who_trickles_or_is_silent_is_left_and_who_is_held_back_is_not() {
        let second = Duration::from_secs(1);
        assert!(read(source(1000, second, 100), Duration::ZERO).await.is_err(), "a trickle");
        assert!(read(source(1 << 20, second * 31, 2), Duration::ZERO).await.is_err(), "silence");
        assert_eq!(read(source(LEAST, second * 29, 20), Duration::ZERO).await.unwrap(), 20 * LEAST);
        assert_eq!(
            read(source(3000, second * 2, 10), Duration::ZERO).await.unwrap(),
            30_000,
            "it ends in time"
        );
        assert_eq!(read(source(1000, Duration::ZERO, 100), second * 10).await.unwrap(), 100_000);
    }
}
