//! Guesses how much to fetch at a miss from the misses before it.

use std::ops::Range;

use crate::ReadPolicy;

/// Readers that are told apart within one blob.
const STREAMS: usize = 8;

/// One reader's last window.
#[derive(Debug, Clone)]
struct Stream {
    /// Places in the chunk table.
    places: Range<usize>,
    window: u64,
    /// The reader went on where a window ended at least once.
    proven: bool,
}

/// The last windows of a blob, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Stream>);

impl Streams {
    /// How many bytes to fetch at a miss of `place`: the least for one that continues nothing; twice the last window
    /// for one that goes on where that ended, if most of it was used.
    pub(crate) fn missed(&mut self, place: usize, policy: &ReadPolicy, used: impl Fn(usize) -> bool) -> u64 {
        let continues = |s: &Stream| (s.places.end..=s.places.end + 1).contains(&place);
        let stream = match self.0.iter().rposition(continues) {
            Some(found) => {
                let last = self.0.remove(found);
                let read = last.places.clone().filter(|place| used(*place)).count();
                let proven = read * 2 >= last.places.len();
                let window = if proven { (last.window * 2).min(policy.max_request) } else { policy.window };
                Stream { places: place..place + 1, window, proven }
            }
            None => Stream { places: place..place + 1, window: policy.window, proven: false },
        };
        let window = stream.window;
        self.remember(stream);
        window
    }

    /// The newest window ends before `end`.
    pub(crate) fn fetched(&mut self, end: usize) {
        if let Some(stream) = self.0.last_mut() {
            stream.places.end = stream.places.end.max(end);
        }
    }

    /// A reader waits for `place`, which is on its way. Where it is in the second half of a proven reader's window,
    /// gives where the next one begins, and its size in bytes.
    pub(crate) fn waits(&mut self, place: usize, policy: &ReadPolicy) -> Option<(usize, u64)> {
        let half_read = |s: &Stream| {
            s.proven && s.places.contains(&place) && (place - s.places.start) * 2 >= s.places.len()
        };
        let mut stream = self.0.remove(self.0.iter().rposition(half_read)?);
        let begin = stream.places.end;
        stream.window = (stream.window * 2).min(policy.max_request);
        stream.places = begin..begin;
        let window = stream.window;
        self.remember(stream);
        Some((begin, window))
    }

    fn remember(&mut self, stream: Stream) {
        if self.0.len() == STREAMS {
            self.0.remove(0);
        }
        self.0.push(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> ReadPolicy {
        ReadPolicy { window: 100, max_request: 350, ..ReadPolicy::default() }
    }

    #[test]
    fn a_reader_that_goes_on_doubles_its_window_up_to_the_largest_request() {
        let mut streams = Streams::default();
        let mut windows = Vec::new();
        for place in [0, 10, 20, 30] {
            windows.push(streams.missed(place, &policy(), |_| true));
            streams.fetched(place + 10);
        }
        assert_eq!(windows, [100, 200, 350, 350]);
    }

    #[test]
    fn scattered_reads_keep_the_least_window() {
        let mut streams = Streams::default();
        for place in [0, 500, 20, 300] {
            assert_eq!(streams.missed(place, &policy(), |_| true), 100);
            streams.fetched(place + 10);
        }
    }

    #[test]
    fn a_window_that_was_hardly_used_does_not_grow() {
        let mut streams = Streams::default();
        streams.missed(0, &policy(), |_| true);
        streams.fetched(10);
        assert_eq!(streams.missed(10, &policy(), |place| place < 4), 100);
    }

    #[test]
    fn readers_of_one_blob_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        for (place, window) in [(0, 100), (1000, 100), (10, 200), (1010, 200)] {
            assert_eq!(streams.missed(place, &policy(), |_| true), window);
            streams.fetched(place + 10);
        }
    }

    #[test]
    fn a_proven_reader_in_the_second_half_asks_for_the_next_window_once() {
        let mut streams = Streams::default();
        streams.missed(0, &policy(), |_| true);
        streams.fetched(10);
        assert_eq!(streams.waits(9, &policy()), None, "not proven yet");
        streams.missed(10, &policy(), |_| true);
        streams.fetched(20);
        assert_eq!(streams.waits(11, &policy()), None, "first half");
        assert_eq!(streams.waits(15, &policy()), Some((20, 350)));
        streams.fetched(40);
        assert_eq!(streams.waits(16, &policy()), None);
    }
}
