//! What a node says of a piece that nothing else vouches for.

use crate::{NodeId, PieceIndex};

/// A piece of a blob without a list, as a node had it from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which piece.
    pub piece: PieceIndex,
    /// Its BLAKE3.
    pub digest: [u8; 32],
    /// Who had it from the origin, and answers for it.
    pub fetcher: NodeId,
}
