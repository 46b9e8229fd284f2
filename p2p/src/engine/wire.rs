//! Between decisions and messages.

use std::time::Duration;

use p2p_api::peer::{self, Body};

use super::Members;
use crate::{
    Claim, NodeId, PieceBitmap, PieceCount, PieceIndex, PieceLayout, Priority, TaskId, owner::Instruction,
    peer::Action,
};

pub(super) fn bytes(task: TaskId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(task.as_bytes())
}

pub(super) fn task(bytes: &[u8]) -> Option<TaskId> {
    Some(TaskId::from_bytes(bytes.try_into().ok()?))
}

pub(super) fn node(bytes: &[u8]) -> Option<NodeId> {
    Some(NodeId(bytes.try_into().ok()?))
}

/// The pieces of these numbers that the blob has.
pub(super) fn pieces(count: PieceCount, numbers: &[u32]) -> Vec<PieceIndex> {
    numbers.iter().filter_map(|number| count.piece(*number)).collect()
}

pub(super) fn numbers(pieces: &[PieceIndex]) -> Vec<u32> {
    pieces.iter().map(|piece| piece.get()).collect()
}

pub(super) fn priority(number: i32) -> Priority {
    match peer::Priority::try_from(number) {
        Ok(peer::Priority::Demand) => Priority::Demand,
        Ok(peer::Priority::ReadAhead) => Priority::ReadAhead,
        Ok(peer::Priority::Trace) => Priority::Trace,
        Ok(peer::Priority::Background) | Err(_) => Priority::Background,
    }
}

pub(super) fn priority_number(priority: Priority) -> i32 {
    match priority {
        Priority::Background => peer::Priority::Background,
        Priority::Trace => peer::Priority::Trace,
        Priority::ReadAhead => peer::Priority::ReadAhead,
        Priority::Demand => peer::Priority::Demand,
    }
    .into()
}

/// What is said of pieces that the blob has.
pub(super) fn claims_in(count: PieceCount, claims: &[peer::Claim]) -> Vec<Claim> {
    let sound = |claim: &peer::Claim| {
        let piece = count.piece(claim.piece)?;
        let digest = claim.digest.as_ref().try_into().ok()?;
        Some(Claim { piece, digest, fetcher: node(&claim.fetcher)? })
    };
    claims.iter().filter_map(sound).collect()
}

pub(super) fn claims(task: TaskId, claims: &[Claim]) -> Body {
    let copied = bytes::Bytes::copy_from_slice;
    let said = |claim: &Claim| peer::Claim {
        piece: claim.piece.get(),
        digest: copied(&claim.digest),
        fetcher: copied(&claim.fetcher.0),
    };
    Body::Claims(peer::Claims { task: bytes(task), claims: claims.iter().map(said).collect() })
}

/// What nodes tell each other of a layout: enough to see that it is the same. Where pieces lie that are cut at the
/// borders of chunks stands in the list that names the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    len: u64,
    /// 0 where pieces are of different sizes.
    piece_size: u32,
    pub(super) count: PieceCount,
}

impl Shape {
    pub(super) fn of(layout: &PieceLayout) -> Self {
        Self { len: layout.len(), piece_size: layout.piece_size(), count: layout.count() }
    }

    /// What a message says, if a layout can be so.
    fn told(len: u64, piece_size: u32, pieces: u32) -> Option<Self> {
        let count = match piece_size {
            0 => PieceCount::new(pieces)?,
            _ => PieceLayout::new(len, piece_size).ok()?.count(),
        };
        Some(Self { len, piece_size, count })
    }

    /// The number of pieces as a message says it, where their size does not.
    fn told_count(self) -> u32 {
        if self.piece_size == 0 { self.count.get() } else { 0 }
    }
}

/// The shape that a node joins with, and what it has, if both are sound.
pub(super) fn joined(join: &peer::Join) -> Option<(Shape, PieceBitmap)> {
    part(Shape::told(join.len, join.piece_size, join.pieces)?, &join.have)
}

/// The same of a partner.
pub(super) fn greeted(greet: &peer::Greet) -> Option<(Shape, PieceBitmap)> {
    part(Shape::told(greet.len, greet.piece_size, greet.pieces)?, &greet.have)
}

fn part(shape: Shape, have: &[u8]) -> Option<(Shape, PieceBitmap)> {
    Some((shape, PieceBitmap::from_bytes(shape.count, have).ok()?))
}

pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

pub(super) fn greet(task: TaskId, shape: Shape, have: &PieceBitmap) -> Body {
    let Shape { len, piece_size, .. } = shape;
    let (pieces, have) = (shape.told_count(), have.to_bytes().into());
    Body::Greet(peer::Greet { task: bytes(task), len, piece_size, pieces, have })
}

/// The message that an action is: to whom, where that is a partner, and what. `None` for what is no message alone.
pub(super) fn message(task: TaskId, action: Action) -> Option<(Option<NodeId>, Body)> {
    let task = bytes(task);
    Some(match action {
        Action::Greet(_) | Action::Fetch { .. } => return None,
        Action::Part(to) => (Some(to), Body::Part(peer::Part { task })),
        Action::Request { to, piece, priority } => {
            let priority = priority_number(priority);
            (Some(to), Body::Request(peer::Request { task, piece: piece.get(), priority }))
        }
        Action::Cancel { to, piece } => (Some(to), Body::Cancel(peer::Cancel { task, piece: piece.get() })),
        Action::Have { to, pieces } => (Some(to), Body::Have(peer::Have { task, pieces: numbers(&pieces) })),
        Action::Ask { pieces, priority, insists } => {
            let (pieces, priority) = (numbers(&pieces), priority_number(priority));
            (None, Body::Ask(peer::Ask { task, pieces, priority, insists }))
        }
        Action::Report { got, failed, lonely } => {
            let (got, failed) = (numbers(&got), numbers(&failed));
            (None, Body::Report(peer::Report { task, got, failed, lonely }))
        }
    })
}

pub(super) fn join(task: TaskId, shape: Shape, have: &PieceBitmap, holding: &[PieceIndex]) -> Body {
    let Shape { len, piece_size, .. } = shape;
    let (pieces, have, holding) = (shape.told_count(), have.to_bytes().into(), numbers(holding));
    let spare = u32::try_from(super::actor::SPARE).unwrap_or(1);
    Body::Join(peer::Join { task: bytes(task), len, piece_size, have, holding, spare, pieces })
}

/// The message that an instruction is. Nodes whose address is not known are left out.
pub(super) fn leave(task: TaskId) -> Body {
    Body::Leave(peer::Leave { task: bytes(task) })
}

pub(super) fn instruction(task: TaskId, instruction: Instruction, members: &Members) -> Body {
    let named = |node: NodeId| {
        let address = members.get(&node).map(ToString::to_string).unwrap_or_default();
        peer::Node { id: bytes::Bytes::copy_from_slice(&node.0), address }
    };
    let id = task;
    let task = bytes(task);
    match instruction {
        Instruction::Claims { claims: told, .. } => claims(id, &told),
        Instruction::Grant { piece, priority, term, .. } => {
            let (piece, priority, lease_ms) = (piece.get(), priority_number(priority), millis(term));
            Body::Grant(peer::Grant { task, piece, priority, lease_ms })
        }
        Instruction::Partners { partners, .. } => {
            Body::Partners(peer::Partners { task, nodes: partners.into_iter().map(named).collect() })
        }
        Instruction::Holders { holders, .. } => {
            let holder = |(piece, node): (PieceIndex, NodeId)| peer::Holder {
                piece: piece.get(),
                node: Some(named(node)),
            };
            Body::Holders(peer::Holders { task, holders: holders.into_iter().map(holder).collect() })
        }
    }
}
