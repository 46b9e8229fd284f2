//! A node's part in one task, as a state machine: it is told what happened and when, and says what to do.

mod exchange;
mod flights;
mod late;
mod outbox;
mod yielding;

use std::time::Duration;

use self::{
    flights::Flights,
    outbox::{Outbox, Rhythm},
    yielding::Yielding,
};
use super::{
    action::{Action, Source},
    hedge::Hedge,
    partner::Partners,
    picker,
};
use crate::{NodeId, PieceBitmap, PieceIndex, PieceLayout, Priority, wants::Wants};

/// Pieces under way from partners at a time, besides those that a process waits for.
const UNDERWAY: usize = 8;
/// As many while nothing is here: each piece that came lets one more come.
const UNDERWAY_AT_FIRST: usize = 4;
/// As many while one comes from the origin.
const UNDERWAY_BESIDE_ORIGIN: usize = 2;
/// Further ones that a process waits for.
const UNDERWAY_DEMAND: usize = 16;
/// Partners that a node takes up where it is told of some. (With 16 for those who come last and 32 for those who come
/// first, the last ones are late by some percent.)
const TARGET: usize = 24;
/// Partners that it lets in at most.
const MOST: usize = 32;
/// Partners hear at once of a piece that fewer of them have: while it is new to the swarm its copies double with each
/// time that it is passed on, and in ten thousand nodes that is so many times that waiting costs seconds in a hundred.
const RARE: u32 = 3;
/// Rest of a node that gave a wrong piece.
const WRONG: Duration = Duration::from_secs(30);
/// Rest of a node that gave a piece otherwise than another says that it is.
const DISPUTE: Duration = Duration::from_secs(1);
/// One node's part in one task.
#[derive(Debug)]
pub struct Task {
    layout: PieceLayout,
    have: PieceBitmap,
    wants: Wants,
    partners: Partners,
    flights: Flights,
    outbox: Outbox,
    rhythm: Rhythm,
    hedge: Hedge,
    yielding: Yielding,
    random: fastrand::Rng,
}

impl Task {
    /// A task of which `have` is here already. `seed` decides what is left to chance.
    #[must_use]
    pub fn new(layout: PieceLayout, have: PieceBitmap, seed: u64) -> Self {
        Self {
            have,
            wants: Wants::nothing(layout.count()),
            partners: Partners::none(layout.count()),
            flights: Flights::none(layout.count()),
            outbox: Outbox::default(),
            rhythm: Rhythm::default(),
            hedge: Hedge::default(),
            yielding: Yielding::default(),
            random: fastrand::Rng::with_seed(seed),
            layout,
        }
    }

    /// What is here.
    #[must_use]
    pub const fn have(&self) -> &PieceBitmap {
        &self.have
    }

    /// How many pieces a partner has; of others none are known.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> u32 {
        self.partners.get(node).map_or(0, |partner| partner.has.held())
    }

    /// Whether a piece is wanted and not here.
    #[must_use]
    pub fn wants(&self, piece: PieceIndex) -> bool {
        self.wants.priority(piece).is_some()
    }

    /// Whether everything that was wanted is here.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        self.wants.is_empty()
    }

    /// Time within which half of the pieces came that partners were asked for lately.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        self.hedge.quantile(5)
    }

    /// The pieces that are being fetched from the origin: what a new owner must know.
    #[must_use]
    pub fn leased(&self) -> Vec<PieceIndex> {
        self.flights.from(Source::Origin)
    }

    /// Pieces are wanted, in this order.
    pub fn want(&mut self, priority: Priority, pieces: impl IntoIterator<Item = PieceIndex>) {
        let missing: Vec<_> = pieces.into_iter().filter(|piece| !self.have.contains(*piece)).collect();
        self.wants.add(priority, missing.iter().copied());
        // Who reads needs no owner for what a partner has; who wants all may be sent for any piece.
        let unknown = |piece: &PieceIndex| {
            priority == Priority::Background || self.partners.copies()[piece.slot()] == 0
        };
        self.outbox.ask(priority, missing.into_iter().filter(unknown).collect(), false);
    }

    /// Of what was wanted only these are still.
    pub fn want_only(&mut self, pieces: &PieceBitmap) {
        self.wants.keep(pieces);
    }

    /// The owner named nodes of the swarm.
    pub fn introduced(&mut self, nodes: &[NodeId]) {
        let room = TARGET.saturating_sub(self.partners.len());
        let strangers = nodes.iter().filter(|node| self.partners.get(**node).is_none());
        let greetings: Vec<_> = strangers.take(room).map(|node| Action::Greet(*node)).collect();
        self.outbox.extend(greetings);
    }

    /// The owner said where pieces are, or soon will be.
    pub fn pointed(&mut self, holders: &[(PieceIndex, NodeId)]) {
        for (piece, node) in holders {
            if self.wants.priority(*piece).is_some() && self.partners.get(*node).is_none() {
                self.outbox.greet_once(*node);
            }
        }
    }

    /// A node greeted, or answered a greeting. `false` where there are too many already: it is to be parted from.
    pub fn greeted(&mut self, now: Duration, node: NodeId, has: PieceBitmap) -> bool {
        if self.partners.len() >= MOST && self.partners.get(node).is_none() {
            return false;
        }
        self.partners.greeted(now, node, has);
        true
    }

    /// A partner left or is gone.
    pub fn parted(&mut self, node: NodeId) {
        for piece in self.partners.remove(node) {
            self.flights.ended(piece, Source::Node(node));
        }
    }

    /// A partner has new pieces.
    pub fn has(&mut self, node: NodeId, pieces: impl IntoIterator<Item = PieceIndex>) {
        self.partners.gained(node, pieces);
    }

    /// A partner has too much to do to give a piece, for a while.
    pub fn busy(&mut self, now: Duration, node: NodeId, piece: PieceIndex, retry: Duration) {
        self.flights.ended(piece, Source::Node(node));
        if let Some(partner) = self.partners.get_mut(node) {
            partner.done_with(piece);
            partner.rest(now + retry);
        }
    }

    /// A partner does not have a piece that it was asked for.
    pub fn missing(&mut self, node: NodeId, piece: PieceIndex) {
        self.flights.ended(piece, Source::Node(node));
        if let Some(partner) = self.partners.get_mut(node) {
            partner.done_with(piece);
        }
        self.partners.lost(node, piece);
    }

    /// The owner sends this node to the origin for a piece.
    pub fn granted(&mut self, now: Duration, piece: PieceIndex, priority: Priority) {
        if self.have.contains(piece) {
            self.outbox.got(piece);
        } else if self.flights.began(now, piece, Source::Origin) {
            self.outbox.extend([Action::Fetch { piece, priority }]);
        }
    }

    /// A piece came, is right and is stored. Says whether it is new.
    pub fn received(&mut self, now: Duration, piece: PieceIndex, source: Source) -> bool {
        let len = self.layout.piece_len(piece);
        if let Source::Node(node) = source
            && let Some(partner) = self.partners.get_mut(node)
            && let Some(since) = partner.done_with(piece)
        {
            let took = now.saturating_sub(since);
            partner.delivered(len, took);
            self.hedge.answered(took, len);
            self.yielding.came(now, len);
        }
        self.flights.ended(piece, source);
        if let Source::Node(to) = source
            && self.partners.get(to).is_some()
        {
            // At once: to the sender it means that its link is free.
            self.outbox.extend([Action::Have { to, pieces: vec![piece] }]);
        }
        if !self.have.insert(piece) {
            return false;
        }
        self.wants.remove(piece);
        self.call_off(piece);
        self.outbox.got(piece);
        self.outbox.hurries |= source == Source::Origin;
        self.outbox.spreads |= self.partners.copies()[piece.slot()] < RARE;
        for (_, partner) in self.partners.iter_mut().filter(|(_, partner)| !partner.has.contains(piece)) {
            partner.untold.push(piece);
        }
        true
    }

    /// A piece came and is wrong.
    pub fn spoiled(&mut self, now: Duration, piece: PieceIndex, source: Source) {
        self.flights.ended(piece, source);
        match source {
            Source::Origin => self.outbox.failed(piece),
            Source::Node(node) => {
                self.partners.lost(node, piece);
                if let Some(partner) = self.partners.get_mut(node) {
                    partner.done_with(piece);
                    partner.strike(now, WRONG);
                }
            }
        }
    }

    /// A piece came and could not be kept.
    pub fn not_kept(&mut self, piece: PieceIndex, source: Source) {
        self.flights.ended(piece, source);
        match source {
            Source::Origin => self.outbox.failed(piece),
            Source::Node(node) => {
                if let Some(partner) = self.partners.get_mut(node) {
                    partner.done_with(piece);
                }
            }
        }
    }

    /// A node has said of a piece what it is not.
    pub fn lied(&mut self, now: Duration, node: NodeId) {
        if let Some(partner) = self.partners.get_mut(node) {
            partner.strike(now, WRONG);
        }
    }

    /// A node gave a piece otherwise than another says that it is, and nobody knows who is wrong: the node rests a little,
    /// and the owner is to send this one to the origin.
    pub fn disputed(&mut self, now: Duration, piece: PieceIndex, node: NodeId) {
        self.flights.ended(piece, Source::Node(node));
        self.partners.lost(node, piece);
        if let Some(partner) = self.partners.get_mut(node) {
            partner.done_with(piece);
            partner.rest(now + DISPUTE);
        }
        self.outbox.ask(Priority::Trace, vec![piece], true);
    }

    /// The origin did not give a piece.
    pub fn origin_failed(&mut self, piece: PieceIndex) {
        self.flights.ended(piece, Source::Origin);
        self.outbox.failed(piece);
    }

    /// There is another owner: it must be told everything. The caller joins there with [`Self::have`] and
    /// [`Self::leased`] first.
    pub fn owner_changed(&mut self) {
        let mut urgent: Vec<(Priority, Vec<PieceIndex>)> = Vec::new();
        for (piece, priority) in self.wants.in_order() {
            match urgent.last_mut() {
                Some((last, pieces)) if *last == priority => pieces.push(piece),
                _ => urgent.push((priority, vec![piece])),
            }
        }
        urgent.into_iter().for_each(|(priority, pieces)| self.outbox.ask(priority, pieces, false));
    }

    /// What to do now. To be called after everything that happened, and every few milliseconds while pieces are wanted.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        self.notice_late(now);
        self.request(now);
        self.ask_twice(now);
        self.unstick(now);
        self.rotate(now);
        self.tell(now);
        self.outbox.take()
    }

    /// Asks partners that are free for the pieces that are of most use.
    fn request(&mut self, now: Duration) {
        // What comes from the origin is new to the swarm: nothing else may take the link from it.
        let underway = if self.flights.fetches() > 0 { UNDERWAY_BESIDE_ORIGIN } else { self.at_a_time() };
        let most = underway + if self.wants.are_demanded() { UNDERWAY_DEMAND } else { 0 };
        if self.wants.is_empty() || self.flights.requests() >= most {
            return;
        }
        let slow = self.slow();
        for node in self.partners.ready(now, slow, &mut self.random) {
            if self.flights.requests() >= most {
                break;
            }
            let Some(partner) = self.partners.get(node) else { continue };
            let copies = self.partners.copies();
            let flying = self.flights.underway();
            let picked = picker::pick(&self.wants, &partner.has, flying, copies, &mut self.random);
            let Some((piece, priority)) = picked else { continue };
            if priority < Priority::Demand && self.flights.requests() >= underway {
                continue;
            }
            if self.must_yield(now, priority, underway) {
                continue;
            }
            self.yielded(now, priority, piece);
            self.request_from(now, node, piece, priority);
        }
    }

    /// Pieces under way at a time: who has little takes them one after the other, to have one to pass on the sooner.
    fn at_a_time(&self) -> usize {
        UNDERWAY.min(UNDERWAY_AT_FIRST + self.have.held() as usize)
    }

    fn request_from(&mut self, now: Duration, to: NodeId, piece: PieceIndex, priority: Priority) {
        let Some(partner) = self.partners.get_mut(to) else { return };
        partner.requested.push((piece, now));
        self.flights.began(now, piece, Source::Node(to));
        self.outbox.extend([Action::Request { to, piece, priority }]);
    }

    /// Asks the owner again for what no partner has and nobody brings.
    fn unstick(&mut self, now: Duration) {
        if self.wants.is_empty() || !self.rhythm.is_stuck(now, self.flights.requests() > 0) {
            return;
        }
        let missing = self.wants.in_order().filter(|(piece, _)| !self.flights.underway().contains(*piece));
        let pieces: Vec<_> = missing.take(UNDERWAY).map(|(piece, _)| piece).collect();
        let unknown = pieces.iter().any(|piece| self.partners.copies()[piece.slot()] == 0);
        if unknown {
            self.outbox.ask(Priority::Trace, pieces, false);
        }
    }

    /// A piece is here: whoever else was asked for it need not send it.
    fn call_off(&mut self, piece: PieceIndex) {
        for node in self.flights.ended_all(piece) {
            if let Some(partner) = self.partners.get_mut(node) {
                partner.done_with(piece);
            }
            self.outbox.extend([Action::Cancel { to: node, piece }]);
        }
    }
}

#[cfg(test)]
mod tests;
