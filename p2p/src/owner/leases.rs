//! Who fetches which piece from the origin, and until when nobody else does.

use std::{collections::HashMap, time::Duration};

use super::window::OriginWindow;
use crate::{NodeId, PieceIndex, Priority};

/// Shortest lease.
const SHORTEST: Duration = Duration::from_secs(2);
/// Lease before any piece has come.
const FIRST: Duration = Duration::from_secs(10);

/// The right, and the duty, to fetch one piece from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Who fetches.
    pub(super) holder: NodeId,
    /// How urgent the piece was.
    pub(super) priority: Priority,
    since: Duration,
    until: Duration,
}

/// The leases of one task.
#[derive(Debug)]
pub(super) struct Leases {
    held: HashMap<PieceIndex, Lease>,
    window: OriginWindow,
    /// Smoothed time from a lease to its piece.
    usual: Option<Duration>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { held: HashMap::new(), window: OriginWindow::new(), usual: None }
    }

    /// Whether one more lease may be given. Readers that wait may go beyond the window by half.
    pub(super) fn has_room(&self, priority: Priority) -> bool {
        let limit = self.window.limit();
        let more = if priority == Priority::Demand { limit.div_ceil(2) } else { 0 };
        self.held.len() < limit + more
    }

    pub(super) fn holder(&self, piece: PieceIndex) -> Option<NodeId> {
        self.held.get(&piece).map(|lease| lease.holder)
    }

    /// Gives a piece to `holder`; says for how long.
    pub(super) fn give(
        &mut self,
        now: Duration,
        piece: PieceIndex,
        holder: NodeId,
        priority: Priority,
    ) -> Duration {
        // Twice the usual time is late; the window may have grown meanwhile, which makes all of them slower.
        let term = self.usual.map_or(FIRST, |usual| (usual * 3).max(SHORTEST));
        self.held.insert(piece, Lease { holder, priority, since: now, until: now + term });
        term
    }

    /// `node` has the piece: the lease ends, whoever held it. Says who did.
    pub(super) fn completed(&mut self, now: Duration, piece: PieceIndex, node: NodeId) -> Option<NodeId> {
        let lease = self.held.remove(&piece)?;
        if lease.holder == node {
            let took = now.saturating_sub(lease.since);
            self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
            self.window.completed(took);
        }
        Some(lease.holder)
    }

    /// `node` could not fetch the piece.
    pub(super) fn failed(&mut self, piece: PieceIndex, node: NodeId) -> Option<Lease> {
        (self.holder(piece) == Some(node)).then(|| self.window.failed())?;
        self.held.remove(&piece)
    }

    /// Takes back what `node` holds.
    pub(super) fn take_back(&mut self, node: NodeId) -> Vec<(PieceIndex, Lease)> {
        self.remove_where(|lease| lease.holder == node)
    }

    /// Takes back what is overdue at `now`.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(PieceIndex, Lease)> {
        let overdue = self.remove_where(|lease| lease.until <= now);
        if !overdue.is_empty() {
            self.window.failed();
        }
        overdue
    }

    fn remove_where(&mut self, which: impl Fn(&Lease) -> bool) -> Vec<(PieceIndex, Lease)> {
        let mut removed: Vec<_> = self
            .held
            .iter()
            .filter(|(_, lease)| which(lease))
            .map(|(piece, lease)| (*piece, *lease))
            .collect();
        removed.sort_unstable_by_key(|(piece, _)| *piece);
        removed.iter().for_each(|(piece, _)| _ = self.held.remove(piece));
        removed
    }
}
