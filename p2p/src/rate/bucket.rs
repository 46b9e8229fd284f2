//! A token bucket, told the time.

use std::{num::NonZeroU64, time::Duration};

use super::STEP;

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU64>);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// So many bytes per second.
    #[must_use]
    pub const fn per_second(bytes: NonZeroU64) -> Self {
        Self(Some(bytes))
    }

    /// How many, where there is a limit.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }

    /// How long so many bytes take.
    #[must_use]
    pub fn time(self, bytes: u32) -> Duration {
        self.bytes().map_or(Duration::ZERO, |rate| Duration::from_secs_f64(f64::from(bytes) / rate))
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact to the byte")]
    fn bytes(self) -> Option<f64> {
        self.0.map(|bytes| bytes.get() as f64)
    }
}

/// Timers are not finer than this, so that so much must be able to go at once.
const TICK: f64 = 0.01;

/// What may go now, and when more may.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Duration, rate: Rate) -> Self {
        Self { rate, tokens: depth(rate), at: now }
    }

    /// From when on a step may go.
    pub(super) fn ready(&mut self, now: Duration, bytes: u32) -> Duration {
        let Some(rate) = self.rate.bytes() else { return now };
        self.refill(now, rate);
        let missing = f64::from(bytes.min(STEP)) - self.tokens;
        if missing <= 0.0 {
            return now;
        }
        // Rounded up, or a waiter would wake a moment too early and find nothing.
        self.at + Duration::from_secs_f64(missing / rate) + Duration::from_nanos(1)
    }

    /// Takes what [`Self::ready`] allowed.
    pub(super) fn take(&mut self, bytes: u32) {
        if self.rate != Rate::UNLIMITED {
            self.tokens -= f64::from(bytes.min(STEP));
        }
    }

    pub(super) fn set_rate(&mut self, now: Duration, rate: Rate) {
        if let Some(old) = self.rate.bytes() {
            self.refill(now, old);
        }
        *self = Self { rate, tokens: self.tokens.min(depth(rate)), at: now };
    }

    fn refill(&mut self, now: Duration, rate: f64) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(depth(self.rate));
        self.at = self.at.max(now);
    }
}

/// How much gathers while nobody takes: two steps, so that nothing is lost when the first is taken a little late.
fn depth(rate: Rate) -> f64 {
    rate.bytes().map_or(0.0, |bytes| (bytes * TICK).max(2.0 * f64::from(STEP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> Rate {
        Rate::per_second(NonZeroU64::new(bytes).unwrap())
    }

    /// Takes steps as soon as they are ready; how many bytes went until `end`.
    fn drain(bucket: &mut Bucket, mut now: Duration, end: Duration) -> u64 {
        let mut taken = 0;
        loop {
            now = now.max(bucket.ready(now, STEP));
            if now > end {
                return taken;
            }
            bucket.take(STEP);
            taken += u64::from(STEP);
        }
    }

    #[test]
    fn what_goes_in_a_time_is_the_rate_and_one_filling() {
        for bytes in [100_000, 10_000_000, 1_000_000_000] {
            let mut bucket = Bucket::new(Duration::ZERO, rate(bytes));
            let taken = drain(&mut bucket, Duration::ZERO, Duration::from_secs(10));
            let most = bytes * 10 + (2 * u64::from(STEP)).max(bytes / 100);
            assert!(taken <= most && taken > most - 2 * u64::from(STEP), "{taken} of {most}");
        }
    }

    #[test]
    fn an_idle_time_does_not_add_up() {
        let mut bucket = Bucket::new(Duration::ZERO, rate(1_000_000));
        let begin = Duration::from_hours(1);
        let taken = drain(&mut bucket, begin, begin + Duration::from_secs(1));
        assert!(taken <= 1_000_000 + 2 * u64::from(STEP), "{taken}");
    }

    #[test]
    fn another_rate_holds_from_then_on() {
        let mut bucket = Bucket::new(Duration::ZERO, rate(100_000));
        let (second, two) = (Duration::from_secs(1), Duration::from_secs(2));
        drain(&mut bucket, Duration::ZERO, second);
        bucket.set_rate(second, rate(10_000_000));
        let taken = drain(&mut bucket, second, two);
        assert!((9_800_000..=10_100_000).contains(&taken), "{taken}");
        bucket.set_rate(two, Rate::UNLIMITED);
        assert_eq!(bucket.ready(two, STEP), two);
    }
}
