//! What happens in the simulated world.

use std::time::Duration;

use p2p::{PieceBitmap, PieceIndex, Priority, owner::Instruction};

use crate::links::Foreseen;

/// What one node tells another.
pub(crate) enum Message {
    Greet(PieceBitmap, bool),
    Part,
    Request(PieceIndex, Priority),
    Cancel(PieceIndex),
    Busy(PieceIndex, Duration),
    Missing(PieceIndex),
    Have(Vec<PieceIndex>),
    Told(Instruction),
}

/// What a node tells the owner.
pub(crate) enum ToOwner {
    Join,
    Ask(Vec<PieceIndex>, Priority, bool),
    Report(Vec<PieceIndex>, Vec<PieceIndex>, bool),
}

/// What happens.
pub(crate) enum Event {
    Start(usize),
    Deliver(usize, usize, Message),
    Owner(usize, ToOwner),
    OwnerPoll,
    Arrived(Foreseen),
    Poll(usize),
    Tick(usize),
}
