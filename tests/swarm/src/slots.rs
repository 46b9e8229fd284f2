//! A model of rules by which nodes choose whom to give pieces to, and of nothing else: time goes in slots, in each of
//! which a node sends one piece and takes one. There are no messages, delays, schedulers or loads, so a rule that is
//! named after a product says what that product could do at best with such partners, not what it does.

mod pieces;
mod rules;

use self::pieces::Pieces;
pub use self::rules::Rule;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    /// Nodes; all begin at once, with nothing.
    pub nodes: usize,
    /// Pieces of the blob.
    pub pieces: usize,
    /// Pieces that the origin sends in a slot.
    pub origin: usize,
    /// Who gives to whom.
    pub rule: Rule,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, Copy)]
pub struct SlotOutcome {
    /// Slots until half of the nodes had all pieces.
    pub median: usize,
    /// Slots until all had.
    pub last: usize,
    /// Copies of the blob that left the origin.
    pub origin_copies: f64,
}

/// The fewest slots in which anything can bring `pieces` to `nodes` where the origin sends `origin` pieces in one: while
/// a piece is known to few, their number doubles.
#[must_use]
pub fn bound(nodes: usize, pieces: usize, origin: usize) -> usize {
    pieces + (nodes / origin).max(1).ilog2() as usize
}

/// Plays a rule until all nodes have all pieces; `None` where that takes unreasonably long.
#[must_use]
pub fn play(slots: &Slots) -> Option<SlotOutcome> {
    let mut game = Game::new(*slots);
    let most = slots.pieces * slots.nodes + slots.nodes;
    (1..=most).find(|slot| {
        game.slot(*slot);
        game.done.len() == slots.nodes
    })?;
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    Some(SlotOutcome {
        median: game.done[slots.nodes / 2],
        last: *game.done.last()?,
        origin_copies: game.from_origin as f64 / slots.pieces as f64,
    })
}

/// A rule at play. The origin's number comes after those of the nodes.
struct Game {
    slots: Slots,
    random: fastrand::Rng,
    pieces: Pieces,
    /// For each sender, the origin last: whom it may give to.
    receivers: Vec<Vec<usize>>,
    /// What is on its way in this slot, by receiver.
    coming: Vec<Option<usize>>,
    from_origin: usize,
    /// Pieces that the origin has given away, where it gives each once.
    given: usize,
    /// Slots in which nodes became whole.
    done: Vec<usize>,
}

impl Game {
    fn new(slots: Slots) -> Self {
        Self {
            slots,
            random: fastrand::Rng::with_seed(slots.seed),
            pieces: Pieces::new(slots.nodes, slots.pieces),
            receivers: Vec::new(),
            coming: vec![None; slots.nodes],
            from_origin: 0,
            given: 0,
            done: Vec::new(),
        }
    }

    fn slot(&mut self, slot: usize) {
        if self.slots.rule.draws(slot) {
            self.receivers = self.slots.rule.receivers(self.slots.nodes, &mut self.random);
        }
        let mut senders: Vec<_> = (0..=self.slots.nodes).collect();
        self.random.shuffle(&mut senders);
        for sender in senders {
            if sender == self.slots.nodes {
                self.from_origin += (0..self.slots.origin).take_while(|_| self.send_from_origin()).count();
            } else {
                self.send(sender);
            }
        }
        for (node, coming) in self.coming.iter_mut().enumerate() {
            if let Some(piece) = coming.take()
                && self.pieces.add(node, piece)
            {
                self.done.push(slot);
            }
        }
    }

    fn send_from_origin(&mut self) -> bool {
        let origin = self.slots.nodes;
        if !self.slots.rule.gives_once() {
            return self.send(origin);
        }
        if self.given == self.slots.pieces {
            return false;
        }
        let free = |node: &usize| self.coming[*node].is_none();
        let Some(node) = from_random(&self.receivers[origin], &mut self.random).find(free) else {
            return false;
        };
        self.coming[node] = Some(self.given);
        self.given += 1;
        true
    }

    /// Sends the rarest piece that the first receiver lacks who is free and lacks any, in an order left to chance.
    fn send(&mut self, sender: usize) -> bool {
        let free = |node: &usize| self.coming[*node].is_none() && self.pieces.lacks(*node, sender);
        let Some(receiver) = from_random(&self.receivers[sender], &mut self.random).find(free) else {
            return false;
        };
        self.coming[receiver] = self.pieces.rarest(receiver, sender, &mut self.random);
        true
    }
}

/// All of them, from one on that chance chooses.
fn from_random(all: &[usize], random: &mut fastrand::Rng) -> impl Iterator<Item = usize> {
    let (before, after) = all.split_at(random.usize(..all.len().max(1)).min(all.len()));
    after.iter().chain(before).copied()
}
