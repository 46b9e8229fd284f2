//! Answers that take too long: when they do, and whom to ask instead.

use std::time::Duration;

use super::{Action, Source, Task};
use crate::{NodeId, PieceIndex, Priority};

/// An answer is late after twice the time within which nine of ten come, but never before this.
const LEAST_LATE: Duration = Duration::from_millis(50);
/// An answer that a process waits for is late after this, where nothing is known,
const FIRST_LATE: Duration = Duration::from_secs(2);
/// and another after this: on a slow link that others use too the first pieces take seconds, and one that is given up and
/// asked for again takes longer still.
const FIRST_LATE_BEHIND: Duration = Duration::from_secs(10);
/// So many pieces are the last ones. More would be asked for twice just when all nodes need their links to finish.
const LAST: usize = 2;

impl Task {
    /// Gives up on answers that are late where somebody else has the piece, and rests who was late.
    pub(super) fn notice_late(&mut self, now: Duration) {
        if !self.rhythm.looks(now) {
            return;
        }
        let known = self.hedge.quantile(9);
        let mut late = Vec::new();
        for (node, partner) in self.partners.iter_mut() {
            // Who is slow is not late by that: it is asked last.
            let least = partner.usual().unwrap_or_default() * 2;
            let overdue = |(piece, since): &&(PieceIndex, Duration)| {
                let waits = now.saturating_sub(*since);
                waits > LEAST_LATE.max(least) && waits > patience(known, self.wants.priority(*piece))
            };
            let pieces = partner.requested.iter().filter(overdue);
            let pieces: Vec<_> = pieces.map(|(piece, _)| *piece).collect();
            if !pieces.is_empty() {
                late.push((node, pieces));
            }
        }
        for (node, pieces) in late {
            self.give_up(now, node, &pieces);
        }
    }

    /// Who takes longer for a piece is asked after all others.
    pub(super) fn slow(&self) -> Duration {
        self.hedge.quantile(5).map_or(Duration::MAX, |median| median * 4)
    }

    fn give_up(&mut self, now: Duration, node: NodeId, pieces: &[PieceIndex]) {
        // What nobody else has is worth the wait: the piece may be on its way.
        let (elsewhere, only): (Vec<_>, Vec<_>) =
            pieces.iter().copied().partition(|piece| self.partners.copies()[piece.slot()] > 1);
        let patience = patience(self.hedge.quantile(9), Some(Priority::Demand));
        let Some(partner) = self.partners.get_mut(node) else { return };
        if !elsewhere.is_empty() {
            partner.strike(now, patience);
        }
        partner.rest(now + patience);
        for piece in elsewhere {
            partner.done_with(piece);
            self.flights.ended(piece, Source::Node(node));
            self.outbox.extend([Action::Cancel { to: node, piece }]);
        }
        if self.rhythm.insists(now) {
            self.outbox.ask(Priority::Trace, only, true);
        }
    }

    /// Asks a second partner for what takes longer than nine of ten answers did: what a process waits for, and the last
    /// pieces.
    pub(super) fn ask_twice(&mut self, now: Duration) {
        let Some(patience) = self.hedge.quantile(9) else { return };
        let (last, slow) = (self.wants.len() <= LAST, self.slow());
        if !last && !self.wants.are_demanded() {
            return;
        }
        for (piece, since) in self.flights.single() {
            let late = now.saturating_sub(since) > patience;
            let urgent = last || self.wants.priority(piece) == Some(Priority::Demand);
            if !(late && urgent) || self.partners.copies()[piece.slot()] < 2 {
                continue;
            }
            let asked = |node: &NodeId| self.flights.comes_from(piece, Source::Node(*node));
            let ready = self.partners.ready(now, slow, &mut self.random);
            let mut others = ready.into_iter().filter(|node| !asked(node));
            let has = |node: &NodeId| self.partners.get(*node).is_some_and(|other| other.has.contains(piece));
            if let Some(node) = others.find(has)
                && self.hedge.spend(self.layout.piece_len(piece))
            {
                let priority = self.wants.priority(piece).unwrap_or(Priority::Background);
                self.request_from(now, node, piece, priority);
            }
        }
    }
}

/// How long an answer may take where nine of ten come within `known`.
fn patience(known: Option<Duration>, priority: Option<Priority>) -> Duration {
    match (known, priority) {
        (Some(known), _) => (known * 2).max(LEAST_LATE),
        (None, Some(Priority::Demand)) => FIRST_LATE,
        (None, _) => FIRST_LATE_BEHIND,
    }
}
