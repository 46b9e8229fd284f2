//! How many bytes go in a second, as far as they have come.

use std::time::Duration;

/// What comes is counted over so long.
const SPAN: Duration = Duration::from_secs(1);

/// The best of lately: a span that is less by a part of eight lowers it by as much at most.
#[derive(Debug, Default)]
pub(in crate::peer) struct Flow {
    since: Duration,
    bytes: u64,
    best: u64,
}

impl Flow {
    /// Bytes per second.
    pub(in crate::peer) const fn rate(&self) -> u64 {
        self.best
    }

    /// Bytes have come, of which all that could went.
    pub(in crate::peer) fn came(&mut self, now: Duration, bytes: u32) {
        self.bytes += u64::from(bytes);
        let span = now.saturating_sub(self.since);
        if span >= SPAN {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            let rate = self.bytes.saturating_mul(1000) / millis;
            self.best = rate.max(self.best - self.best / 8);
            self.begin(now);
        }
    }

    /// Counts from now on: what came before says nothing.
    pub(in crate::peer) const fn begin(&mut self, now: Duration) {
        self.since = now;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_goes_in_a_second_and_falls_slowly() {
        let mut flow = Flow::default();
        for tenth in 1..=20 {
            flow.came(Duration::from_millis(tenth * 100), 100_000);
        }
        assert_eq!(flow.rate(), 1_000_000);
        flow.came(Duration::from_secs(60), 100_000);
        assert_eq!(flow.rate(), 875_000);
        flow.begin(Duration::from_secs(100));
        flow.came(Duration::from_secs(101), 2_000_000);
        assert_eq!(flow.rate(), 2_000_000);
    }
}
