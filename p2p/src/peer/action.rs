//! What a task wants done.

use crate::{NodeId, PieceIndex, Priority};

/// Where a piece comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The origin.
    Origin,
    /// A partner.
    Node(NodeId),
}

/// What a task wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Become partner of a node: tell it what is here.
    Greet(NodeId),
    /// Stop being partner of a node.
    Part(NodeId),
    /// Ask a partner for a piece.
    Request {
        /// Whom.
        to: NodeId,
        /// For what.
        piece: PieceIndex,
        /// How urgent it is.
        priority: Priority,
    },
    /// Tell a partner that a piece is not needed any more.
    Cancel {
        /// Whom.
        to: NodeId,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Fetch a piece from the origin.
    Fetch {
        /// Which piece.
        piece: PieceIndex,
        /// How urgent it is.
        priority: Priority,
    },
    /// Tell a partner which pieces are new here.
    Have {
        /// Whom.
        to: NodeId,
        /// Which pieces.
        pieces: Vec<PieceIndex>,
    },
    /// Ask the owner for pieces.
    Ask {
        /// Which pieces, most needed first.
        pieces: Vec<PieceIndex>,
        /// How urgent they are.
        priority: Priority,
        /// Whether who was said to have them did not give them.
        insists: bool,
    },
    /// Tell the owner what is new.
    Report {
        /// Pieces that are new here.
        got: Vec<PieceIndex>,
        /// Leases that came to nothing.
        failed: Vec<PieceIndex>,
        /// Whether more partners are wanted.
        lonely: bool,
    },
}
