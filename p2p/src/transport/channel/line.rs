//! A node's way out or in: one step after the other, each for as long as its bytes take.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::rate::Rate;

/// Timers are rounded up to a millisecond; who comes so late has lost nothing.
const LATE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Line(Mutex<(Rate, Instant)>);

impl Line {
    pub(super) fn new(rate: Rate) -> Self {
        Self(Mutex::new((rate, Instant::now())))
    }

    /// Holds for steps that begin from now on.
    pub(super) fn set_rate(&self, rate: Rate) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = rate;
    }

    /// Takes the line for a step that may begin at `since`; when it begins and ends. The first to come is the first to go.
    pub(super) fn take(&self, since: Instant, bytes: u32) -> (Instant, Instant) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, free) = *line;
        let begin = since.checked_sub(LATE).map_or(free, |since| since.max(free));
        line.1 = begin + rate.time(bytes);
        (begin, line.1)
    }
}
