//! How a blob is cut into pieces. A piece is the unit of transfer between nodes.

use std::{ops::Range, sync::Arc};

use crate::{PieceCount, PieceIndex};

/// Length of a blob, and where its pieces lie. A copy shares the places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceLayout {
    len: u64,
    cut: Cut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cut {
    /// All pieces are of one size but the last, which may be shorter.
    Even(u32),
    /// Pieces lie here, in order; what is between them is in none.
    At(Arc<[Span]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    len: u32,
}

impl Span {
    fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.len)
    }
}

/// A layout that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Of pieces of one size.
    #[error(
        "{len} bytes in pieces of {piece_size}: a size is a power of two from {} to {}, and a blob has at most {} pieces",
        PieceLayout::MIN_SIZE,
        PieceLayout::MAX_SIZE,
        PieceCount::MOST
    )]
    Even {
        /// Length of the blob in bytes.
        len: u64,
        /// Size of a piece in bytes.
        piece_size: u32,
    },
    /// More pieces than a blob may have.
    #[error("{0} pieces: a blob has at most {most}", most = PieceCount::MOST)]
    Count(usize),
    /// A piece that cannot lie there.
    #[error(
        "piece {piece} at {start}..{end} of {len} bytes: it has 1 byte to {} and lies behind the one before it",
        PieceLayout::MAX_SIZE
    )]
    Place {
        /// Its number.
        piece: usize,
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Length of the blob in bytes.
        len: u64,
    },
}

impl PieceLayout {
    /// Smallest piece of those of one size, in bytes.
    pub const MIN_SIZE: u32 = 64 << 10;
    /// Largest piece, in bytes.
    pub const MAX_SIZE: u32 = 16 << 20;
    /// Size of a piece where nothing says otherwise, in bytes.
    pub const DEFAULT_SIZE: u32 = 1 << 20;

    /// A blob of `len` bytes in pieces of `piece_size`.
    ///
    /// # Errors
    /// [`LayoutError`] for a size that is not a power of two within bounds, and for too many pieces.
    pub const fn new(len: u64, piece_size: u32) -> Result<Self, LayoutError> {
        let sound = piece_size.is_power_of_two()
            && piece_size >= Self::MIN_SIZE
            && piece_size <= Self::MAX_SIZE
            && len.div_ceil(piece_size as u64) <= PieceCount::MOST as u64;
        if sound {
            Ok(Self { len, cut: Cut::Even(piece_size) })
        } else {
            Err(LayoutError::Even { len, piece_size })
        }
    }

    /// A blob of `len` bytes whose pieces lie at `places`, in order.
    ///
    /// # Errors
    /// [`LayoutError`] for pieces that are empty, too large, not in order, beyond the end, or too many.
    pub fn at(len: u64, places: &[Range<u64>]) -> Result<Self, LayoutError> {
        if places.len() > PieceCount::MOST as usize {
            return Err(LayoutError::Count(places.len()));
        }
        let mut free = 0;
        let span = |(piece, place): (usize, &Range<u64>)| {
            let (start, end) = (place.start, place.end);
            let size = u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX);
            if start < free || end > len || !(1..=Self::MAX_SIZE).contains(&size) {
                return Err(LayoutError::Place { piece, start, end, len });
            }
            free = end;
            Ok(Span { start, len: size })
        };
        let spans: Result<Vec<_>, _> = places.iter().enumerate().map(span).collect();
        Ok(Self { len, cut: Cut::At(spans?.into()) })
    }

    /// The layout of a blob that nothing else lays out: pieces of `usual` bytes, or larger ones where it would have more
    /// than 65,536 of them.
    ///
    /// # Errors
    /// [`LayoutError`] for a size that no piece has, and for a blob that the largest pieces cannot hold.
    pub fn for_len(len: u64, usual: u32) -> Result<Self, LayoutError> {
        const MOST: u64 = 1 << 16;
        let size = len.div_ceil(MOST).next_power_of_two().min(Self::MAX_SIZE.into()).max(usual.into());
        Self::new(len, u32::try_from(size).expect("clamped to u32"))
    }

    /// Length of the blob in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size of a piece in bytes, the last one excepted; 0 where they are of different sizes.
    #[must_use]
    pub const fn piece_size(&self) -> u32 {
        match self.cut {
            Cut::Even(piece_size) => piece_size,
            Cut::At(_) => 0,
        }
    }

    /// How many pieces there are.
    #[must_use]
    pub fn count(&self) -> PieceCount {
        let count = match &self.cut {
            Cut::Even(piece_size) => self.len.div_ceil(u64::from(*piece_size)),
            Cut::At(spans) => spans.len() as u64,
        };
        u32::try_from(count).ok().and_then(PieceCount::new).expect("a layout has no more than may be")
    }

    /// The piece of this number, if the blob has it.
    #[must_use]
    pub fn piece(&self, number: u32) -> Option<PieceIndex> {
        self.count().piece(number)
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        self.count().pieces()
    }

    /// Where a piece lies in the blob, in bytes. One that the blob does not have is empty, at its end.
    #[must_use]
    pub fn range(&self, piece: PieceIndex) -> Range<u64> {
        match &self.cut {
            Cut::Even(size) => {
                let start = u64::from(piece.0) * u64::from(*size);
                start.min(self.len)..(start + u64::from(*size)).min(self.len)
            }
            Cut::At(spans) => spans.get(piece.slot()).map_or(self.len..self.len, Span::range),
        }
    }

    /// Length of a piece in bytes.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a piece is at most 16 MiB")]
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let range = self.range(piece);
        (range.end - range.start) as u32
    }

    /// The pieces that a range of bytes touches; none for an empty range or one beyond the end.
    pub fn touched(
        &self,
        range: Range<u64>,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        let end = range.end.min(self.len);
        let numbers = match &self.cut {
            _ if range.start >= end => 0..0,
            Cut::Even(size) => range.start / u64::from(*size)..end.div_ceil(u64::from(*size)),
            Cut::At(spans) => {
                let first = spans.partition_point(|span| span.range().end <= range.start);
                let behind = spans.partition_point(|span| span.start < end);
                first as u64..behind.max(first) as u64
            }
        };
        let bound = |number: u64| u32::try_from(number).expect("a layout has at most 2^20 pieces");
        (bound(numbers.start)..bound(numbers.end)).map(PieceIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn layout(len: u64) -> PieceLayout {
        PieceLayout::new(len, PieceLayout::MIN_SIZE).unwrap()
    }

    #[test]
    fn pieces_cover_the_blob_without_gap() {
        for len in [0, 1, 64 * KIB, 64 * KIB + 1, 1000 * KIB] {
            let layout = layout(len);
            let mut end = 0;
            for piece in layout.pieces() {
                assert_eq!(layout.range(piece).start, end);
                end = layout.range(piece).end;
                assert!(layout.piece_len(piece) > 0);
            }
            assert_eq!(end, len);
        }
    }

    #[test]
    fn a_range_touches_the_pieces_that_hold_its_bytes() {
        let layout = layout(200 * KIB);
        let touched = |range| layout.touched(range).map(PieceIndex::get).collect::<Vec<_>>();
        assert_eq!(touched(0..1), [0]);
        assert_eq!(touched(64 * KIB - 1..64 * KIB + 1), [0, 1]);
        assert_eq!(touched(100 * KIB..u64::MAX), [1, 2, 3]);
        assert!(touched(5..5).is_empty() && touched(200 * KIB..u64::MAX).is_empty());
    }

    #[test]
    fn sizes_and_numbers_out_of_bounds_are_refused() {
        for size in [0, 1 << 15, (1 << 20) + 1, 1 << 25] {
            assert!(PieceLayout::new(1, size).is_err());
        }
        assert!(PieceLayout::new(u64::MAX, PieceLayout::MAX_SIZE).is_err());
        assert_eq!(layout(1).piece(1), None);
    }

    #[test]
    fn large_blobs_have_larger_pieces() {
        let size = |len| PieceLayout::for_len(len, 1 << 20).unwrap().piece_size();
        assert_eq!((size(0), size(64 << 30), size((64 << 30) + 1)), (1 << 20, 1 << 20, 1 << 21));
        assert_eq!(PieceLayout::for_len(64 << 20, 1 << 18).unwrap().piece_size(), 1 << 18);
        assert!(PieceLayout::for_len(1, 3 << 18).is_err() && PieceLayout::for_len(1, 1 << 26).is_err());
    }

    #[test]
    fn pieces_at_given_places_are_found_there_and_nothing_is_between_them() {
        let layout = PieceLayout::at(100, &[0..10, 10..15, 40..90]).unwrap();
        let touched = |range| layout.touched(range).map(PieceIndex::get).collect::<Vec<_>>();
        assert_eq!(
            layout.pieces().map(|piece| layout.range(piece)).collect::<Vec<_>>(),
            [0..10, 10..15, 40..90]
        );
        assert_eq!((layout.count().get(), layout.piece_size(), layout.piece(3)), (3, 0, None));
        assert_eq!(layout.piece_len(layout.piece(2).unwrap()), 50);
        assert_eq!(touched(9..11), [0, 1]);
        assert_eq!(touched(14..41), [1, 2]);
        assert_eq!(touched(0..u64::MAX), [0, 1, 2]);
        assert!(touched(15..40).is_empty() && touched(90..100).is_empty() && touched(7..7).is_empty());
        assert!(PieceLayout::at(0, &[]).unwrap().pieces().next().is_none());
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, clippy::single_range_in_vec_init, reason = "what is hostile")]
    fn pieces_that_cannot_lie_where_they_are_said_to_are_refused_by_number() {
        let most = u64::from(PieceLayout::MAX_SIZE);
        assert!(PieceLayout::at(most, &[0..most]).is_ok());
        let wrong: [(u64, &[Range<u64>], usize); 6] = [
            (9, &[0..5, 4..9], 1),
            (9, &[4..9, 0..4], 1),
            (9, &[0..5, 5..5], 1),
            (9, &[5..0], 0),
            (9, &[0..5, 5..10], 1),
            (u64::MAX, &[0..most + 1], 0),
        ];
        for (len, places, number) in wrong {
            let error = PieceLayout::at(len, places).unwrap_err();
            assert!(matches!(error, LayoutError::Place { piece, .. } if piece == number), "{error}");
        }
        let many: Vec<_> = (0..=u64::from(PieceCount::MOST)).map(|at| at..at + 1).collect();
        assert_eq!(PieceLayout::at(u64::MAX, &many), Err(LayoutError::Count(many.len())));
    }
}
