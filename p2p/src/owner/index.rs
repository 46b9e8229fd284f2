//! What the owner of a task knows and decides: who is in the swarm, who has what, who fetches what from the origin.
//!
//! All of it is soft: members tell it again to the next owner, and nothing of it is written down.

use std::{collections::HashMap, time::Duration};

use super::{
    claims::Claims,
    leases::{Lease, Leases},
};
use crate::{Claim, NodeId, PieceBitmap, PieceCount, PieceIndex, Priority, wants::Wants};

/// Partners that a node is told at a time.
const PARTNERS: usize = 24;
/// Pieces that leases are looked for at a time.
const LOOKED_AT: usize = 64;
/// A member that is silent for so long is out.
const SILENCE: Duration = Duration::from_secs(15);

/// What the owner tells a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Fetch this piece from the origin, within `term`.
    Grant {
        /// Who.
        node: NodeId,
        /// Which piece.
        piece: PieceIndex,
        /// How urgent it is.
        priority: Priority,
        /// For how long nobody else is told to.
        term: Duration,
    },
    /// These are in the swarm too.
    Partners {
        /// Who is told.
        node: NodeId,
        /// Other members, in no order.
        partners: Vec<NodeId>,
    },
    /// These have, or will have, pieces that the node asked for.
    Holders {
        /// Who is told.
        node: NodeId,
        /// Where each piece is.
        holders: Vec<(PieceIndex, NodeId)>,
    },
    /// Pieces of a blob without a list are said to be this.
    Claims {
        /// Who is told.
        node: NodeId,
        /// What they are, and who says so.
        claims: Vec<Claim>,
    },
}

#[derive(Debug)]
struct Member {
    have: PieceBitmap,
    wants: PieceBitmap,
    /// Leases that it takes at a time.
    spare: usize,
    holding: usize,
    granted: u64,
    seen: Duration,
}

/// One task, as its owner sees it.
#[derive(Debug)]
pub struct Index {
    count: PieceCount,
    members: HashMap<NodeId, Member>,
    /// The members, to draw from.
    drawn_from: Vec<NodeId>,
    copies: Vec<u32>,
    /// Wanted by somebody, here with nobody, and fetched by nobody.
    open: Wants,
    demanded_by: HashMap<PieceIndex, NodeId>,
    leases: Leases,
    claims: Claims,
    random: fastrand::Rng,
    instructions: Vec<Instruction>,
}

impl Index {
    /// A task that nobody is in yet. `seed` decides what is left to chance.
    #[must_use]
    pub fn new(count: PieceCount, seed: u64) -> Self {
        Self {
            count,
            members: HashMap::new(),
            drawn_from: Vec::new(),
            copies: vec![0; count.get() as usize],
            open: Wants::nothing(count),
            demanded_by: HashMap::new(),
            leases: Leases::new(),
            claims: Claims::default(),
            random: fastrand::Rng::with_seed(seed),
            instructions: Vec::new(),
        }
    }

    /// A node enters, or tells a new owner that it is in: what it has, which leases it holds, how many it takes at a time.
    pub fn join(
        &mut self,
        now: Duration,
        node: NodeId,
        have: PieceBitmap,
        holding: &[PieceIndex],
        spare: usize,
    ) {
        self.leave(node);
        for piece in have.iter() {
            self.gained(now, piece, node);
        }
        let wants = PieceBitmap::empty(self.count);
        let member = Member { have, wants, spare, holding: 0, granted: 0, seen: now };
        self.members.insert(node, member);
        self.drawn_from.push(node);
        for piece in holding {
            let free = self.copies[piece.slot()] == 0 && self.leases.holder(*piece).is_none();
            if free {
                self.lease(now, *piece, node, Priority::Background);
            }
        }
        self.introduce(node);
        let known = self.claims.all();
        self.instructions.extend(known.map(|claims| Instruction::Claims { node, claims }));
    }

    /// A member says what pieces are. Of a piece that is known already only who fetches it, or has it from the origin
    /// another time, is heard: the latter has found that the whole is wrong.
    pub fn claimed(&mut self, node: NodeId, claims: &[Claim]) {
        let Some(member) = self.members.get(&node) else { return };
        for claim in claims {
            let fetches = self.leases.holder(claim.piece) == Some(node);
            let corrects = claim.fetcher == node && member.have.contains(claim.piece);
            self.claims.add(*claim, fetches || corrects);
        }
    }

    /// A node leaves, or is found dead.
    pub fn leave(&mut self, node: NodeId) {
        let Some(gone) = self.members.remove(&node) else { return };
        self.drawn_from.retain(|other| *other != node);
        for (piece, lease) in self.leases.take_back(node) {
            self.reopen(piece, lease);
        }
        for piece in gone.have.iter() {
            self.copies[piece.slot()] -= 1;
            let lost = self.copies[piece.slot()] == 0 && self.leases.holder(piece).is_none();
            if lost && self.members.values().any(|member| member.wants.contains(piece)) {
                self.open.add(Priority::Trace, [piece]);
            }
        }
    }

    /// A member has new pieces, could not fetch others it had a lease for, and would meet others.
    pub fn report(
        &mut self,
        now: Duration,
        node: NodeId,
        got: &[PieceIndex],
        failed: &[PieceIndex],
        lonely: bool,
    ) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.seen = now;
        let new: Vec<_> = got.iter().copied().filter(|piece| member.have.insert(*piece)).collect();
        for piece in got {
            member.wants.remove(*piece);
        }
        for piece in new {
            self.gained(now, piece, node);
        }
        for piece in failed {
            if let Some(lease) = self.leases.failed(*piece, node) {
                self.freed(node);
                self.reopen(*piece, lease);
            }
        }
        if lonely {
            self.introduce(node);
        }
    }

    /// A member wants pieces, in this order. Where it `insists`, nobody who was said to have them gave them.
    pub fn ask(
        &mut self,
        now: Duration,
        node: NodeId,
        pieces: &[PieceIndex],
        priority: Priority,
        insists: bool,
    ) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.seen = now;
        let mut sought = Vec::new();
        for piece in pieces.iter().copied().filter(|piece| !member.have.contains(*piece)) {
            member.wants.insert(piece);
            let there = self.copies[piece.slot()] > 0 && !insists;
            if there || self.leases.holder(piece).is_some() {
                sought.push(piece);
                continue;
            }
            self.open.add(priority, [piece]);
            if priority == Priority::Demand || insists {
                self.demanded_by.entry(piece).or_insert(node);
            }
        }
        if priority > Priority::Background {
            self.point_out(node, &sought);
        }
    }

    /// Lets time pass: overdue leases and silent members go.
    pub fn tick(&mut self, now: Duration) {
        for (piece, lease) in self.leases.expire(now) {
            self.freed(lease.holder);
            self.reopen(piece, lease);
        }
        let silent = self.members.iter().filter(|(_, member)| now.saturating_sub(member.seen) > SILENCE);
        let mut silent: Vec<_> = silent.map(|(node, _)| *node).collect();
        silent.sort_unstable();
        silent.into_iter().for_each(|node| self.leave(node));
    }

    /// What is to be said now.
    pub fn poll(&mut self, now: Duration) -> Vec<Instruction> {
        let foremost: Vec<_> = self.open.in_order().take(LOOKED_AT).collect();
        for (piece, priority) in foremost {
            if self.leases.has_room(priority)
                && let Some(node) = self.fetcher(piece)
            {
                self.grant(now, piece, node, priority);
            }
        }
        for claims in self.claims.fresh() {
            let told = self.drawn_from.iter().filter(|node| !self.members[*node].have.is_full());
            self.instructions
                .extend(told.map(|node| Instruction::Claims { node: *node, claims: claims.clone() }));
        }
        std::mem::take(&mut self.instructions)
    }

    /// How many are in the swarm.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is in the swarm.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn grant(&mut self, now: Duration, piece: PieceIndex, node: NodeId, priority: Priority) {
        let term = self.lease(now, piece, node, priority);
        self.instructions.push(Instruction::Grant { node, piece, priority, term });
    }

    fn lease(&mut self, now: Duration, piece: PieceIndex, node: NodeId, priority: Priority) -> Duration {
        self.open.remove(piece);
        self.demanded_by.remove(&piece);
        if let Some(member) = self.members.get_mut(&node) {
            member.holding += 1;
            member.granted += 1;
        }
        self.leases.give(now, piece, node, priority)
    }

    /// Who fetches a piece: who waits for it, else who wants it, is free and was told to least often.
    fn fetcher(&mut self, piece: PieceIndex) -> Option<NodeId> {
        if let Some(node) = self.demanded_by.get(&piece).filter(|node| self.members.contains_key(node)) {
            return Some(*node);
        }
        let start = self.random.usize(..self.drawn_from.len().max(1));
        let (before, after) = self.drawn_from.split_at(start.min(self.drawn_from.len()));
        let candidates = after.iter().chain(before).filter_map(|node| {
            let member = &self.members[node];
            let free = member.holding < member.spare && member.wants.contains(piece);
            free.then_some((member.holding, member.granted, node))
        });
        candidates.min_by_key(|(holding, granted, _)| (*holding, *granted)).map(|(_, _, node)| *node)
    }

    fn gained(&mut self, now: Duration, piece: PieceIndex, node: NodeId) {
        self.copies[piece.slot()] += 1;
        self.open.remove(piece);
        self.demanded_by.remove(&piece);
        if let Some(holder) = self.leases.completed(now, piece, node) {
            self.freed(holder);
        }
    }

    fn freed(&mut self, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.holding = member.holding.saturating_sub(1);
        }
    }

    /// A lease ended without a piece: what is late goes first now.
    fn reopen(&mut self, piece: PieceIndex, lease: Lease) {
        if self.copies[piece.slot()] == 0 {
            self.open.add(lease.priority.max(Priority::Trace), [piece]);
        }
    }

    fn introduce(&mut self, node: NodeId) {
        let count = (PARTNERS + 1).min(self.drawn_from.len());
        // A partial shuffle: the first `count` are a fair draw.
        for place in 0..count {
            let other = self.random.usize(place..self.drawn_from.len());
            self.drawn_from.swap(place, other);
        }
        let others = self.drawn_from[..count].iter().copied().filter(|other| *other != node);
        let partners: Vec<_> = others.take(PARTNERS).collect();
        if !partners.is_empty() {
            self.instructions.push(Instruction::Partners { node, partners });
        }
    }

    fn point_out(&mut self, node: NodeId, pieces: &[PieceIndex]) {
        let holders: Vec<_> =
            pieces.iter().filter_map(|piece| Some((*piece, self.somebody_with(*piece, node)?))).collect();
        if !holders.is_empty() {
            self.instructions.push(Instruction::Holders { node, holders });
        }
    }

    fn somebody_with(&mut self, piece: PieceIndex, except: NodeId) -> Option<NodeId> {
        let start = self.random.usize(..self.drawn_from.len().max(1));
        let (before, after) = self.drawn_from.split_at(start.min(self.drawn_from.len()));
        let mut others = after.iter().chain(before).filter(|node| **node != except);
        let has = others.find(|node| self.members[*node].have.contains(piece)).copied();
        has.or_else(|| self.leases.holder(piece).filter(|holder| *holder != except))
    }
}

#[cfg(test)]
mod tests;
