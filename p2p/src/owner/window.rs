//! How many pieces may leave the origin at a time.
//!
//! Too few leave its link idle; too many share it, so that all come late and nothing can be passed on meanwhile. As TCP
//! Vegas does for a path: the best time seen for a piece says what one costs on an idle origin; how much longer they take
//! now says how many of them only wait.

use std::time::Duration;

/// Pieces at a time before anything is known.
const FIRST: f64 = 4.0;
/// Fewest pieces at a time: one that arrives and one that is asked for.
const LEAST: f64 = 2.0;
/// Most pieces at a time.
const MOST: f64 = 1024.0;
/// The window grows while fewer pieces than this wait.
const FEW_WAIT: f64 = 3.0;
/// The window shrinks while more pieces than this wait.
const MANY_WAIT: f64 = 6.0;

/// Bounds the pieces under way from one origin.
#[derive(Debug)]
pub(super) struct OriginWindow {
    limit: f64,
    fastest: Option<Duration>,
    doubling: bool,
}

impl OriginWindow {
    pub(super) const fn new() -> Self {
        Self { limit: FIRST, fastest: None, doubling: true }
    }

    /// How many pieces may be under way.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 2 and 1024")]
    pub(super) const fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A full piece came from the origin, `took` after its lease was given.
    pub(super) fn completed(&mut self, took: Duration) {
        let fastest = self.fastest.map_or(took, |fastest| fastest.min(took));
        self.fastest = Some(fastest);
        if took.is_zero() {
            return;
        }
        let waiting = self.limit * (1.0 - fastest.as_secs_f64() / took.as_secs_f64());
        if waiting < FEW_WAIT {
            self.limit += if self.doubling { 1.0 } else { 1.0 / self.limit };
        } else if waiting > MANY_WAIT {
            self.doubling = false;
            self.limit -= 1.0 / FEW_WAIT.max(self.limit / 4.0);
        }
        self.limit = self.limit.clamp(LEAST, MOST);
    }

    /// The origin failed or was not heard of in time: half as much at a time.
    pub(super) fn failed(&mut self) {
        self.doubling = false;
        self.limit = (self.limit / 2.0).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window after `rounds` completions at an origin that sends at most `width` pieces at full speed.
    fn settled(width: f64, rounds: u32) -> OriginWindow {
        let mut window = OriginWindow::new();
        for _ in 0..rounds {
            let slower = (window.limit / width).max(1.0);
            window.completed(Duration::from_millis(100).mul_f64(slower));
        }
        window
    }

    #[test]
    fn the_window_settles_a_little_above_what_the_origin_sends_at_full_speed() {
        for width in [1.0, 5.0, 20.0, 100.0] {
            let limit = settled(width, 600).limit;
            assert!((width..=width + MANY_WAIT + 1.0).contains(&limit), "{width}: {limit}");
        }
    }

    #[test]
    fn a_strong_origin_is_found_within_a_few_rounds() {
        assert!(settled(64.0, 64).limit >= 60.0);
    }

    #[test]
    fn failures_shrink_it_but_never_to_nothing() {
        let mut window = settled(20.0, 200);
        (0..20).for_each(|_| window.failed());
        assert_eq!(window.limit(), 2);
    }
}
