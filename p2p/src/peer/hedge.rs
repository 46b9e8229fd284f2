//! Asking a second node for what the first is slow with: when, and how often.

use std::{collections::VecDeque, time::Duration};

/// Answers that are remembered.
const REMEMBERED: usize = 128;
/// Answers before their times say anything.
const ENOUGH: usize = 8;
/// Bytes asked for twice are at most one in so many of all that came.
const EXTRA: u64 = 20;

/// Times of past answers, and what may still be asked for twice.
#[derive(Debug, Default)]
pub(super) struct Hedge {
    took: VecDeque<Duration>,
    /// The same, ascending: they are asked for far more often than they change.
    sorted: Vec<Duration>,
    came: u64,
    twice: u64,
}

impl Hedge {
    /// A piece of `len` bytes came `took` after it was asked for.
    pub(super) fn answered(&mut self, took: Duration, len: u32) {
        if self.took.len() == REMEMBERED
            && let Some(oldest) = self.took.pop_front()
        {
            self.sorted.remove(self.sorted.partition_point(|other| *other < oldest));
        }
        self.took.push_back(took);
        self.sorted.insert(self.sorted.partition_point(|other| *other < took), took);
        self.came += u64::from(len);
    }

    /// The time within which `tenths` tenths of the answers came.
    pub(super) fn quantile(&self, tenths: usize) -> Option<Duration> {
        if self.sorted.len() < ENOUGH {
            return None;
        }
        self.sorted.get((self.sorted.len() * tenths / 10).min(self.sorted.len() - 1)).copied()
    }

    /// Whether `len` bytes may be asked for twice; if so they count.
    pub(super) fn spend(&mut self, len: u32) -> bool {
        let fits = (self.twice + u64::from(len)) * EXTRA <= self.came;
        self.twice += if fits { u64::from(len) } else { 0 };
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_asked_for_twice_stay_within_a_twentieth() {
        let mut hedge = Hedge::default();
        let mut twice = 0;
        for _ in 0..1000 {
            hedge.answered(Duration::from_millis(1), 100);
            twice += u64::from(hedge.spend(100));
        }
        assert_eq!(twice, 50);
    }

    #[test]
    fn the_quantile_is_that_of_the_last_answers() {
        let mut hedge = Hedge::default();
        assert_eq!(hedge.quantile(9), None);
        (0..1000).for_each(|_| hedge.answered(Duration::from_secs(9), 1));
        (1..=128).for_each(|ms| hedge.answered(Duration::from_millis(ms), 1));
        assert_eq!(hedge.quantile(5), Some(Duration::from_millis(65)));
        assert_eq!(hedge.quantile(9), Some(Duration::from_millis(116)));
    }
}
