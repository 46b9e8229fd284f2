//! Where pieces came from, as long as a node takes part in their blob.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{PieceBitmap, PieceCount, PieceIndex};

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// They were on this node's disk.
    Here,
    /// From other nodes.
    Peers,
    /// From the origin.
    Origin,
    /// From both.
    Mixed,
}

impl Supply {
    /// As answers say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peers => "peers",
            Self::Origin => "origin",
            Self::Mixed => "mixed",
        }
    }
}

/// The pieces of a blob that came from its origin.
#[derive(Debug)]
pub(super) struct FromOrigin(Mutex<PieceBitmap>);

impl FromOrigin {
    pub(super) fn new(count: PieceCount) -> Self {
        Self(Mutex::new(PieceBitmap::empty(count)))
    }

    /// A piece has come, for the first time or anew.
    pub(super) fn note(&self, piece: PieceIndex, from_origin: bool) {
        if from_origin {
            self.lock().insert(piece);
        } else {
            self.lock().remove(piece);
        }
    }

    /// Where bytes came from for whose sake these pieces had to come.
    pub(super) fn supply(&self, missed: &[PieceIndex]) -> Supply {
        let pieces = self.lock();
        let from_origin = missed.iter().filter(|piece| pieces.contains(**piece)).count();
        match (missed.len(), from_origin) {
            (0, _) => Supply::Here,
            (_, 0) => Supply::Peers,
            (all, origin) if all == origin => Supply::Origin,
            _ => Supply::Mixed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PieceBitmap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
