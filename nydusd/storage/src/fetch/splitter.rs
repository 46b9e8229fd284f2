//! A stream of bytes to the chunks in it.

use std::ops::Range;

use bytes::{Buf as _, Bytes};

/// Cuts the stream of one request into the wanted ranges, which are sorted and do not overlap.
#[derive(Debug)]
pub(super) struct Splitter {
    wanted: Vec<Range<u64>>,
    next: usize,
    position: u64,
    partial: Vec<u8>,
}

impl Splitter {
    /// The stream begins where the first range does.
    pub(super) fn new(wanted: Vec<Range<u64>>) -> Self {
        let position = wanted.first().map_or(0, |range| range.start);
        Self { wanted, next: 0, position, partial: Vec::new() }
    }

    /// Up to where the stream has come.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn is_done(&self) -> bool {
        self.next == self.wanted.len()
    }

    /// Takes the next piece; gives `done` each range that is whole now, by its place among the wanted ones.
    pub(super) fn push(&mut self, mut piece: Bytes, mut done: impl FnMut(usize, Bytes)) {
        while !piece.is_empty()
            && let Some(range) = self.wanted.get(self.next)
        {
            let gap = range.start.saturating_sub(self.position);
            if gap > 0 {
                self.take(&mut piece, gap);
                continue;
            }
            let missing = range.end - self.position;
            let bytes = self.take(&mut piece, missing);
            if bytes.len() as u64 == missing && self.partial.is_empty() {
                done(self.next, bytes);
                self.next += 1;
                continue;
            }
            self.partial.extend_from_slice(&bytes);
            if bytes.len() as u64 == missing {
                done(self.next, std::mem::take(&mut self.partial).into());
                self.next += 1;
            }
        }
        self.position += piece.len() as u64;
    }

    fn take(&mut self, piece: &mut Bytes, at_most: u64) -> Bytes {
        let len = piece.remaining().min(usize::try_from(at_most).unwrap_or(usize::MAX));
        self.position += len as u64;
        piece.split_to(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_wanted_range_comes_out_whole_however_the_stream_is_cut(
            ranges in prop::collection::vec((0usize..20, 1usize..40), 1..20),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let mut at = 5;
            let wanted: Vec<_> = ranges.iter().map(|(gap, len)| { at += gap + len; at - len..at }).collect();
            let file: Vec<u8> = (0..251).cycle().take(at).collect();
            let mut splitter = Splitter::new(wanted.iter().map(|r| r.start as u64..r.end as u64).collect());
            let mut rest = Bytes::from(file.clone()).slice(wanted[0].start..);
            let mut got = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let piece = rest.split_to((*cut).min(rest.len()));
                splitter.push(piece, |place, bytes| got.push((place, bytes)));
            }
            prop_assert!(splitter.is_done());
            prop_assert_eq!(splitter.position(), at as u64);
            prop_assert_eq!(got.len(), wanted.len());
            for (place, bytes) in got {
                prop_assert_eq!(&bytes[..], &file[wanted[place].clone()]);
            }
        }
    }
}
