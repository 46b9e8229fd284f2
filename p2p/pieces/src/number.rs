//! Numbers of pieces.

/// Number of a piece within its blob. Only a [`PieceCount`] makes them.
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

/// How many pieces a blob has: all that who keeps order among its readers must know of how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceCount(u32);

impl PieceCount {
    /// Most pieces of a blob: a bitmap takes 128 KiB at most.
    pub const MOST: u32 = 1 << 20;

    /// So many pieces, if a blob may have them.
    #[must_use]
    pub const fn new(count: u32) -> Option<Self> {
        if count <= Self::MOST { Some(Self(count)) } else { None }
    }

    /// How many.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The piece of this number, if the blob has it.
    #[must_use]
    pub fn piece(self, number: u32) -> Option<PieceIndex> {
        (number < self.0).then_some(PieceIndex(number))
    }

    /// All pieces in order.
    pub fn pieces(self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator {
        (0..self.0).map(PieceIndex)
    }
}
