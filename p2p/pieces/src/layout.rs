//! How a blob is cut into pieces. A piece is the unit of transfer between nodes.

use std::ops::Range;

/// Number of a piece within its blob. Only a [`PieceLayout`] makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceIndex(pub(crate) u32);

impl PieceIndex {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as a place in a table.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

/// Length of a blob and of its pieces, in bytes. All pieces are of one size but the last, which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceLayout {
    len: u64,
    piece_size: u32,
}

/// A layout that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{len} bytes in pieces of {piece_size}: a size is a power of two from {} to {}, and a blob has at most {} pieces",
    PieceLayout::MIN_SIZE,
    PieceLayout::MAX_SIZE,
    PieceLayout::MAX_PIECES
)]
pub struct LayoutError {
    /// Length of the blob in bytes.
    pub len: u64,
    /// Size of a piece in bytes.
    pub piece_size: u32,
}

impl PieceLayout {
    /// Smallest piece, in bytes.
    pub const MIN_SIZE: u32 = 64 << 10;
    /// Largest piece, in bytes.
    pub const MAX_SIZE: u32 = 16 << 20;
    /// Most pieces of a blob: a bitmap stays below 128 KiB.
    pub const MAX_PIECES: u64 = 1 << 20;
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
            && len.div_ceil(piece_size as u64) <= Self::MAX_PIECES;
        if sound { Ok(Self { len, piece_size }) } else { Err(LayoutError { len, piece_size }) }
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
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Size of a piece in bytes, the last one excepted.
    #[must_use]
    pub const fn piece_size(self) -> u32 {
        self.piece_size
    }

    /// How many pieces there are.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most 2^20 by construction")]
    pub const fn count(self) -> u32 {
        self.len.div_ceil(self.piece_size as u64) as u32
    }

    /// The piece of this number, if the blob has it.
    #[must_use]
    pub fn piece(self, number: u32) -> Option<PieceIndex> {
        (number < self.count()).then_some(PieceIndex(number))
    }

    /// All pieces in order.
    pub fn pieces(self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator {
        (0..self.count()).map(PieceIndex)
    }

    /// Where a piece lies in the blob, in bytes.
    #[must_use]
    pub fn range(self, piece: PieceIndex) -> Range<u64> {
        let start = u64::from(piece.0) * u64::from(self.piece_size);
        start..(start + u64::from(self.piece_size)).min(self.len)
    }

    /// Length of a piece in bytes.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a piece is at most 16 MiB")]
    pub fn piece_len(self, piece: PieceIndex) -> u32 {
        let range = self.range(piece);
        (range.end - range.start) as u32
    }

    /// The pieces that a range of bytes touches; none for an empty range or one beyond the end.
    pub fn touched(
        self,
        range: Range<u64>,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator {
        let size = u64::from(self.piece_size);
        let end = range.end.min(self.len);
        let numbers = if range.start < end { range.start / size..end.div_ceil(size) } else { 0..0 };
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
}
