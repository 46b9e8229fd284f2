//! The header that says which part of a thing an answer is.

use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};

/// `bytes A-B/LENGTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// Its first byte.
    pub(crate) first: u64,
    /// Its last byte.
    pub(crate) last: u64,
    /// Length of the whole, which a server may leave open.
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (bounds, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = bounds.split_once('-')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        let range = Self { first: first.parse().ok()?, last: last.parse().ok()?, total };
        (range.first <= range.last).then_some(range)
    }

    /// Length of the whole, if this is all of it from `from` on.
    pub(crate) fn total_after(self, from: u64) -> Option<u64> {
        self.total.filter(|total| self.first == from && self.last.checked_add(1) == Some(*total))
    }
}

/// Length of the whole, of which a refusal says that a range is not in it: `bytes */LENGTH`.
pub(crate) fn unsatisfied(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

/// Length of a body, where it is said.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_of_the_rest_is_the_rest() {
        let total_after = |text, from| ContentRange::parse(text).and_then(|range| range.total_after(from));
        assert_eq!(total_after("bytes 5-9/10", 5), Some(10));
        for wrong in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/*",
            "5-9/10",
            "bytes 9-5/10",
            "bytes 5-18446744073709551615/1",
        ] {
            assert_eq!(total_after(wrong, 5), None, "{wrong}");
        }
    }
}
