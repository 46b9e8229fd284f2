//! The nodes that a node exchanges pieces of one task with.

use std::{collections::BTreeMap, time::Duration};

use crate::{NodeId, PieceBitmap, PieceCount, PieceIndex};

/// Requests that a partner is given at a time.
const PIPELINE: usize = 2;
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// One partner.
#[derive(Debug)]
pub(super) struct Partner {
    pub(super) has: PieceBitmap,
    /// What it was asked for, and when.
    pub(super) requested: Vec<(PieceIndex, Duration)>,
    /// Pieces of ours that it was not told of.
    pub(super) untold: Vec<PieceIndex>,
    /// Bytes that came from it since the last rotation.
    pub(super) gave: u64,
    since: Duration,
    rests_until: Duration,
    strikes: u32,
    usual: Option<Duration>,
}

impl Partner {
    fn new(now: Duration, has: PieceBitmap) -> Self {
        Self {
            has,
            requested: Vec::new(),
            untold: Vec::new(),
            gave: 0,
            since: now,
            rests_until: Duration::ZERO,
            strikes: 0,
            usual: None,
        }
    }

    /// It is to be left alone until `until`.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(until);
    }

    /// It was late or wrong: it rests for `first`, for twice as long the next time, and so on until it delivers.
    pub(super) fn strike(&mut self, now: Duration, first: Duration) {
        let rest = first.saturating_mul(2_u32.saturating_pow(self.strikes));
        self.strikes += 1;
        self.rest(now + rest.min(LONGEST_REST));
    }

    /// It is not waited for any more; says since when it was.
    pub(super) fn done_with(&mut self, piece: PieceIndex) -> Option<Duration> {
        let place = self.requested.iter().position(|(other, _)| *other == piece)?;
        Some(self.requested.swap_remove(place).1)
    }

    /// A piece of `len` bytes came after `took`.
    pub(super) fn delivered(&mut self, len: u32, took: Duration) {
        self.gave += u64::from(len);
        self.strikes = self.strikes.saturating_sub(1);
        self.usual = Some(self.usual.map_or(took, |usual| (usual * 3 + took) / 4));
    }

    /// Time it usually takes for a piece, if one came.
    pub(super) const fn usual(&self) -> Option<Duration> {
        self.usual
    }

    fn is_ready(&self, now: Duration) -> bool {
        self.requested.len() < PIPELINE && self.rests_until <= now
    }
}

/// All partners, and how often each piece is among them.
#[derive(Debug)]
pub(super) struct Partners {
    /// In an order of their own, that chance is the seed's alone.
    all: BTreeMap<NodeId, Partner>,
    copies: Vec<u32>,
}

impl Partners {
    pub(super) fn none(count: PieceCount) -> Self {
        Self { all: BTreeMap::new(), copies: vec![0; count.get() as usize] }
    }

    /// Takes up a partner, or what is new of one.
    pub(super) fn greeted(&mut self, now: Duration, node: NodeId, has: PieceBitmap) -> &mut Partner {
        if let Some(known) = self.all.get(&node) {
            known.has.iter().for_each(|piece| self.copies[piece.slot()] -= 1);
        }
        has.iter().for_each(|piece| self.copies[piece.slot()] += 1);
        let partner = self.all.entry(node).or_insert_with(|| Partner::new(now, has.clone()));
        partner.has = has;
        partner
    }

    /// A partner has new pieces.
    pub(super) fn gained(&mut self, node: NodeId, pieces: impl IntoIterator<Item = PieceIndex>) {
        let Some(partner) = self.all.get_mut(&node) else { return };
        for piece in pieces {
            if partner.has.insert(piece) {
                self.copies[piece.slot()] += 1;
            }
        }
    }

    /// A partner has a piece no more.
    pub(super) fn lost(&mut self, node: NodeId, piece: PieceIndex) {
        if self.all.get_mut(&node).is_some_and(|partner| partner.has.remove(piece)) {
            self.copies[piece.slot()] -= 1;
        }
    }

    /// A partner is gone; says what it was asked for.
    pub(super) fn remove(&mut self, node: NodeId) -> Vec<PieceIndex> {
        let Some(gone) = self.all.remove(&node) else { return Vec::new() };
        gone.has.iter().for_each(|piece| self.copies[piece.slot()] -= 1);
        gone.requested.into_iter().map(|(piece, _)| piece).collect()
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Partner> {
        self.all.get_mut(&node)
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Partner> {
        self.all.get(&node)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Partner)> {
        self.all.iter_mut().map(|(node, partner)| (*node, partner))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// For each piece, how many partners have it.
    pub(super) fn copies(&self) -> &[u32] {
        &self.copies
    }

    /// Who may be asked for something now, in an order left to chance; who takes longer than `slow` comes last.
    pub(super) fn ready(&self, now: Duration, slow: Duration, random: &mut fastrand::Rng) -> Vec<NodeId> {
        let ready = self.all.iter().filter(|(_, partner)| partner.is_ready(now));
        let mut nodes: Vec<_> =
            ready.map(|(node, partner)| (partner.usual.is_some_and(|usual| usual > slow), *node)).collect();
        random.shuffle(&mut nodes);
        nodes.sort_by_key(|(is_slow, _)| *is_slow);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// Who among those that are partners for `least` gave the fewest bytes since the last call.
    pub(super) fn least_useful(&mut self, now: Duration, least: Duration) -> Option<NodeId> {
        let old = self.all.iter().filter(|(_, partner)| now.saturating_sub(partner.since) >= least);
        let worst = old.min_by_key(|(node, partner)| (partner.gave, **node)).map(|(node, _)| *node);
        self.all.values_mut().for_each(|partner| partner.gave = 0);
        worst
    }
}
