//! Decides what to request: pure functions over places in the blob file.

use std::ops::Range;

/// Groups of wanted ranges (sorted by their beginning) that become one request each: neighbours whose gap is at most
/// `gap` bytes, up to `max` bytes in all. Ranges that overlap are never in one group, since a stream passes once.
/// A single range above `max` is its own group.
#[must_use]
pub fn merge(wanted: &[Range<u64>], gap: u64, max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (i, range) in wanted.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if joins(&wanted[group.start], &wanted[group.end - 1], range, (gap, max)) => {
                group.end = i + 1
            }
            _ => groups.push(i..i + 1),
        }
    }
    groups
}

fn joins(first: &Range<u64>, last: &Range<u64>, next: &Range<u64>, (gap, max): (u64, u64)) -> bool {
    next.start >= last.end && next.start - last.end <= gap && next.end - first.start <= max
}

/// Most chunks that a miss is widened to on either side: each costs memory, however few bytes it has.
pub(crate) const MAX_NEIGHBOURS: usize = 4096;

/// Neighbours that a miss is widened to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Widened {
    /// Places behind the missed chunks, ascending.
    pub ahead: Vec<usize>,
    /// Places before the missed chunks, ascending.
    pub behind: Vec<usize>,
}

/// What [`widen`] looks at: the table of chunks.
pub trait Neighbours {
    /// Place of the chunk at `place` in the blob file, where it is in the table.
    fn stored(&self, place: usize) -> Option<Range<u64>>;
    /// Whether it is neither in the cache nor on its way.
    fn is_missing(&self, place: usize) -> bool;
}

/// Widens a miss of the chunks at `missed` to their missing neighbours: first those behind, until the request has
/// `window` bytes; where that ends early at chunks that are here already, this part of the blob is in use, and the
/// rest of the window is taken from before the miss.
pub fn widen(table: &impl Neighbours, missed: Range<usize>, window: u64, gap: u64) -> Widened {
    let (Some(first), Some(last)) = (table.stored(missed.start), table.stored(missed.end - 1)) else {
        return Widened::default();
    };
    let mut widened = Widened::default();
    let mut end = last.end;
    let mut previous = last;
    let mut met_present = false;
    for place in (missed.end..).take(MAX_NEIGHBOURS) {
        let Some(range) = table.stored(place) else { break };
        // Chunks that share a unit have one place.
        if range != previous && (range.start < end || range.end - first.start > window) {
            break;
        }
        previous = range.clone();
        if !table.is_missing(place) {
            met_present = range.end - end > gap;
        } else if range.start.saturating_sub(end) <= gap {
            widened.ahead.push(place);
            end = range.end;
            continue;
        } else {
            break;
        }
        if met_present {
            break;
        }
    }
    if met_present {
        let rest = window.saturating_sub(end - first.start);
        widened.behind = before(table, missed.start, first.start, rest);
    }
    widened
}

/// Missing chunks that stand directly before `place`, which begins at `start`, of at most `budget` bytes.
fn before(table: &impl Neighbours, place: usize, start: u64, budget: u64) -> Vec<usize> {
    let fits = |place: &usize| {
        let stored = table.stored(*place);
        table.is_missing(*place) && stored.is_some_and(|r| r.end <= start && start - r.start <= budget)
    };
    let mut places: Vec<usize> = (0..place).rev().take_while(fits).take(MAX_NEIGHBOURS).collect();
    places.reverse();
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Chunks of 10 bytes one behind another; the set ones are missing.
    struct Row(Vec<bool>);

    impl Neighbours for Row {
        fn stored(&self, place: usize) -> Option<Range<u64>> {
            (place < self.0.len()).then_some(place as u64 * 10..place as u64 * 10 + 10)
        }

        fn is_missing(&self, place: usize) -> bool {
            self.0[place]
        }
    }

    #[test]
    fn ranges_closer_than_the_gap_become_one_request() {
        assert_eq!(merge(&[0..10, 12..20, 30..40], 2, 100), vec![0..2, 2..3]);
    }

    #[test]
    fn a_request_ends_at_the_largest_size() {
        assert_eq!(merge(&[0..10, 10..20, 20..30, 30..100], 0, 20), vec![0..2, 2..3, 3..4]);
    }

    #[test]
    fn a_miss_is_widened_to_the_window_and_no_further() {
        let row = Row(vec![true; 10]);
        assert_eq!(widen(&row, 2..3, 30, 0), Widened { ahead: vec![3, 4], behind: vec![] });
        assert_eq!(widen(&row, 9..10, 30, 0), Widened::default());
        assert_eq!(widen(&row, 2..5, 10, 0), Widened::default());
    }

    #[test]
    fn a_window_of_tiny_chunks_holds_a_bounded_number_of_them() {
        struct Tiny;
        impl Neighbours for Tiny {
            fn stored(&self, place: usize) -> Option<Range<u64>> {
                Some(place as u64..place as u64 + 1)
            }

            fn is_missing(&self, place: usize) -> bool {
                place != 100_010
            }
        }
        assert_eq!(widen(&Tiny, 5..6, 1 << 20, 0).ahead.len(), MAX_NEIGHBOURS);
        assert_eq!(widen(&Tiny, 100_009..100_010, 1 << 20, 0).behind.len(), MAX_NEIGHBOURS);
    }

    /// Three units of 10 bytes, of two chunks each; the set ones are missing.
    struct Pairs([bool; 6]);

    impl Neighbours for Pairs {
        fn stored(&self, place: usize) -> Option<Range<u64>> {
            let unit = place as u64 / 2;
            (place < 6).then_some(unit * 10..unit * 10 + 10)
        }

        fn is_missing(&self, place: usize) -> bool {
            self.0[place]
        }
    }

    #[test]
    fn chunks_of_a_unit_that_is_fetched_cost_nothing_more() {
        let missing = [true; 6];
        assert_eq!(widen(&Pairs(missing), 0..1, 10, 0).ahead, [1]);
        assert_eq!(widen(&Pairs(missing), 0..2, 20, 0).ahead, [2, 3]);
        let some = [true, true, false, true, true, true];
        assert_eq!(widen(&Pairs(some), 0..2, 30, 10).ahead, [3, 4, 5], "a unit with a chunk that is here");
        assert_eq!(widen(&Pairs(some), 0..2, 30, 9), Widened { ahead: vec![], behind: vec![] });
    }

    #[test]
    fn where_neighbours_are_here_already_the_window_goes_backwards() {
        let row = Row(vec![true, true, true, true, false, true]);
        assert_eq!(widen(&row, 2..3, 40, 0), Widened { ahead: vec![3], behind: vec![0, 1] });
        assert_eq!(
            widen(&row, 2..3, 40, 10),
            Widened { ahead: vec![3, 5], behind: vec![] },
            "a small gap is passed"
        );
    }

    proptest! {
        #[test]
        fn groups_hold_every_range_once_and_keep_the_limits(
            sizes in prop::collection::vec((0u64..50, 1u64..50), 0..60), gap in 0u64..40, max in 1u64..300,
        ) {
            let mut at = 0;
            let wanted: Vec<_> = sizes.iter().map(|(skip, len)| { at += skip + len; at - len..at }).collect();
            let groups = merge(&wanted, gap, max);
            let flat: Vec<usize> = groups.iter().cloned().flatten().collect();
            prop_assert_eq!(flat, (0..wanted.len()).collect::<Vec<_>>());
            for group in groups {
                let ranges = &wanted[group];
                let len = ranges.last().unwrap().end - ranges[0].start;
                prop_assert!(ranges.len() == 1 || len <= max);
                for pair in ranges.windows(2) {
                    prop_assert!(pair[1].start - pair[0].end <= gap);
                }
            }
        }

        #[test]
        fn only_missing_neighbours_within_the_window_are_added(
            missing in prop::collection::vec(any::<bool>(), 1..80), at in 0usize..80, window in 0u64..400, gap in 0u64..30,
        ) {
            let at = at % missing.len();
            let row = Row(missing);
            let Widened { ahead, behind } = widen(&row, at..at + 1, window, gap);
            prop_assert!(ahead.iter().all(|p| *p > at && row.0[*p]));
            prop_assert!(behind.iter().all(|p| *p < at && row.0[*p]));
            let first = behind.first().map_or(at, |p| *p) as u64;
            let last = ahead.last().map_or(at, |p| *p) as u64;
            prop_assert!(last == first || (last + 1 - first) * 10 <= window);
        }
    }
}
