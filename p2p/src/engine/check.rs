//! Whether a piece is right, before it is stored.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Content,
    actor::{Actor, Done},
};
use crate::{
    ChunkList, Claim, NodeId, P2pError, PieceIndex, PieceList, TaskId,
    metrics::{Fate, From},
    peer::Source,
    store::{Standing, StoreError},
};

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is right and stored, with this word for it where there is no list.
    Right(Option<Claim>),
    /// It came a second time while the first was being written: it is here when that is.
    BeingStored,
    /// It is wrong.
    Wrong,
    /// It is this, and its fetcher said something else.
    Disputed([u8; 32]),
}

/// What a piece must be.
enum Proof {
    List(Arc<PieceList>),
    Chunks(Arc<ChunkList>),
    Claim(Claim),
    /// It comes from the origin: it is what this node says that it is.
    Own(NodeId),
}

/// Of a piece that is what its fetcher says.
const fn standing(is_whole: bool, fetcher: NodeId) -> Standing {
    if is_whole { Standing::Provisional(fetcher) } else { Standing::Good }
}

impl Proof {
    /// The piece as it is kept, if it is right: nothing says what stands between chunks, so that all nodes keep zeros.
    fn without_gaps(&self, piece: PieceIndex, bytes: Bytes) -> Bytes {
        match self {
            Self::Chunks(list) => list.without_gaps(piece, &bytes).map_or(bytes, Bytes::from),
            Self::List(_) | Self::Claim(_) | Self::Own(_) => bytes,
        }
    }

    /// The standing of a piece, and the word for it, or what becomes of it. `is_whole`: the whole will be checked.
    fn judge(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        is_whole: bool,
    ) -> Result<(Standing, Option<Claim>), Outcome> {
        let digest = || *blake3::hash(bytes).as_bytes();
        match self {
            Self::List(list) if list.vouches_for(piece, bytes) => Ok((Standing::Good, None)),
            Self::Chunks(list) if list.vouches_for(piece, bytes) => Ok((Standing::Good, None)),
            Self::List(_) | Self::Chunks(_) => Err(Outcome::Wrong),
            Self::Claim(claim) => match digest() {
                digest if digest == claim.digest => Ok((standing(is_whole, claim.fetcher), Some(*claim))),
                digest => Err(Outcome::Disputed(digest)),
            },
            Self::Own(me) => {
                let claim = Claim { piece, digest: digest(), fetcher: *me };
                Ok((standing(is_whole, *me), Some(claim)))
            }
        }
    }
}

impl std::convert::From<Source> for From {
    fn from(source: Source) -> Self {
        match source {
            Source::Origin => Self::Origin,
            Source::Node(_) => Self::Peer,
        }
    }
}

impl Actor {
    /// Checks a piece, and stores it if it is right.
    pub(super) fn check(&mut self, task: TaskId, piece: PieceIndex, source: Source, bytes: Bytes) {
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        let proof = match (&swarm.content, source) {
            (Content::Listed { list, .. }, _) => Proof::List(Arc::clone(list)),
            (Content::Chunks { list, .. }, _) => Proof::Chunks(Arc::clone(list)),
            (_, Source::Origin) => Proof::Own(self.me),
            (_, Source::Node(node)) => match swarm.provisional.claim(piece) {
                Some(claim) => Proof::Claim(claim),
                None => return swarm.provisional.early(piece, node, bytes),
            },
        };
        let (store, stored) = (Arc::clone(&self.store), Arc::clone(&swarm.stored));
        let (is_whole, metrics) = (swarm.is_whole(), self.metrics.clone());
        self.work.spawn_blocking(move || {
            let bytes = proof.without_gaps(piece, bytes);
            let count = |fate| metrics.piece(source.into(), fate, bytes.len() as u64);
            let (standing, claim) = match proof.judge(piece, &bytes, is_whole) {
                Ok(right) => right,
                Err(outcome) => {
                    count(Fate::Wrong);
                    return Done::Checked(task, piece, source, Ok(outcome));
                }
            };
            let put = store.put(&stored, piece, &bytes, standing);
            count(if matches!(put, Ok(true)) { Fate::Kept } else { Fate::Unwanted });
            let outcome = put.map(|put| match put {
                true => Outcome::Right(claim),
                // What was there before stays, and so does the word for it.
                false if stored.standing(piece).is_some() => Outcome::Right(None),
                false => Outcome::BeingStored,
            });
            Done::Checked(task, piece, source, outcome.map_err(Arc::new))
        });
    }

    pub(super) fn checked(
        &mut self,
        task: TaskId,
        piece: PieceIndex,
        source: Source,
        outcome: Result<Outcome, Arc<StoreError>>,
    ) {
        let now = self.now();
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        self.stirred.insert(task);
        match outcome {
            // The disk has lost it since.
            Ok(Outcome::Right(_)) if swarm.stored.standing(piece).is_none() => {
                swarm.task.not_kept(piece, source);
            }
            Ok(Outcome::Right(claim)) => {
                if !swarm.task.have().contains(piece) {
                    swarm.from_origin.note(piece, source == Source::Origin);
                }
                swarm.task.received(now, piece, source);
                for liar in claim.map(|claim| swarm.provisional.stored(claim)).unwrap_or_default() {
                    tracing::warn!(%task, piece = piece.get(), node = %liar, "a node gave or named another piece");
                    swarm.task.lied(now, liar);
                    self.metrics.strike();
                }
                swarm.arrived(piece);
                if let Some(claim) = claim.filter(|_| source == Source::Origin) {
                    self.claim(task, vec![claim]);
                }
                self.check_whole(task);
            }
            Ok(Outcome::BeingStored) => {}
            Ok(Outcome::Wrong) => {
                tracing::warn!(%task, piece = piece.get(), ?source, "a piece is wrong");
                swarm.task.spoiled(now, piece, source);
                if let Source::Node(_) = source {
                    self.metrics.strike();
                } else {
                    let told =
                        swarm.origin_failed(piece, false, "its bytes are not those that the image lists");
                    if told {
                        self.rejoin(task);
                    }
                }
            }
            Ok(Outcome::Disputed(digest)) => {
                if let Source::Node(node) = source {
                    swarm.provisional.disputed(piece, node, digest);
                    swarm.task.disputed(now, piece, node);
                }
            }
            Err(error) => {
                swarm.task.not_kept(piece, source);
                swarm.fail(&P2pError::Store { task, source: error });
                self.rejoin(task);
            }
        }
    }
}
