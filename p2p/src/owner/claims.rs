//! What pieces of a blob without a list are said to be.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Claim, PieceIndex};

/// Claims that are told at a time: a message of some 80 KiB.
const TOLD: usize = 1024;

/// What the owner was told of pieces.
#[derive(Debug, Default)]
pub(super) struct Claims {
    known: BTreeMap<PieceIndex, Claim>,
    /// Not told to the members yet.
    fresh: BTreeSet<PieceIndex>,
}

impl Claims {
    /// Hears a claim. One of a piece that is known already counts only if it `replaces` the earlier one.
    pub(super) fn add(&mut self, claim: Claim, replaces: bool) {
        if self.known.get(&claim.piece).is_some_and(|known| known.digest == claim.digest || !replaces) {
            return;
        }
        self.known.insert(claim.piece, claim);
        self.fresh.insert(claim.piece);
    }

    /// Everything that is known, in parts that fit a message.
    pub(super) fn all(&self) -> impl Iterator<Item = Vec<Claim>> + use<> {
        parts(self.known.values().copied().collect())
    }

    /// What has not been told yet, in parts that fit a message.
    pub(super) fn fresh(&mut self) -> impl Iterator<Item = Vec<Claim>> + use<> {
        let fresh = std::mem::take(&mut self.fresh);
        parts(fresh.iter().filter_map(|piece| self.known.get(piece).copied()).collect())
    }
}

fn parts(claims: Vec<Claim>) -> impl Iterator<Item = Vec<Claim>> {
    let mut rest = claims;
    std::iter::from_fn(move || {
        let later = rest.split_off(rest.len().min(TOLD));
        let now = std::mem::replace(&mut rest, later);
        (!now.is_empty()).then_some(now)
    })
}
