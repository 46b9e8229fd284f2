//! No faster than somebody said.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes that may come at once.
const BURST: f64 = 64.0 * 1024.0;

/// Holds bytes back.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate: Option<f64>,
    /// When all that came was due.
    due: Instant,
}

impl Pace {
    #[allow(clippy::cast_precision_loss, reason = "rates need no more digits")]
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1) as f64), due: Instant::now() }
    }

    /// Waits until so many bytes may have come.
    #[allow(clippy::cast_precision_loss, reason = "lengths need no more digits")]
    pub(super) async fn wait(&mut self, len: usize) {
        let Some(rate) = self.rate else { return };
        let earliest = Instant::now().checked_sub(Duration::from_secs_f64(BURST / rate));
        self.due = earliest.map_or(self.due, |earliest| self.due.max(earliest));
        self.due += Duration::from_secs_f64(len as f64 / rate);
        sleep_until(self.due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_none_without_a_rate() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(1 << 20));
        for _ in 0..40 {
            pace.wait(256 << 10).await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..10.5).contains(&took), "{took}");
        Pace::new(None).wait(1 << 30).await;
        assert!(began.elapsed().as_secs_f64() - took < 0.1);
    }
}
