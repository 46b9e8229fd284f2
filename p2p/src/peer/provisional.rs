//! A blob without a list: which of its pieces are kept until the whole has been checked, and who answers for each.
//!
//! A piece is kept if it is what its fetcher said when it had it from the origin. When all are there the whole is hashed.
//! If it is wrong, pieces come from the origin again, those that other nodes fetched first; who said otherwise of a piece
//! than the origin now is the liar.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::{Claim, NodeId, PieceBitmap, PieceIndex};

/// Pieces that may wait for the word of who fetched them.
const EARLY: usize = 32;

/// How far the whole is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Something is missing.
    Open,
    /// All is there, and it is being hashed or fetched again.
    Checking,
    /// Its digest is right.
    Good,
}

/// What follows from a check of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// All pieces are good.
    Confirm,
    /// These are to come from the origin again, and then the whole is to be hashed anew.
    FetchAgain(Vec<PieceIndex>),
    /// All of it came from the origin twice and is wrong: nothing of it may be kept.
    GiveUp,
}

/// The pieces of one blob without a list.
#[derive(Debug)]
pub struct Provisional {
    trust: Trust,
    /// What the owner says.
    claims: HashMap<PieceIndex, Claim>,
    /// What is here, and who says that it is right.
    kept: BTreeMap<PieceIndex, Claim>,
    early: BTreeMap<PieceIndex, (NodeId, Bytes)>,
    /// Who gave a piece otherwise than it was claimed to be, and how.
    disputes: HashMap<PieceIndex, Vec<(NodeId, [u8; 32])>>,
    /// Came from the origin again during this check.
    again: BTreeSet<PieceIndex>,
    /// How often doubted pieces are being fetched again.
    doubts: usize,
    /// How often pieces were lost.
    losses: u64,
}

impl Provisional {
    /// A blob of which nothing is known, or all is good already.
    #[must_use]
    pub fn new(is_good: bool) -> Self {
        let trust = if is_good { Trust::Good } else { Trust::Open };
        Self {
            trust,
            claims: HashMap::new(),
            kept: BTreeMap::new(),
            early: BTreeMap::new(),
            disputes: HashMap::new(),
            again: BTreeSet::new(),
            doubts: 0,
            losses: 0,
        }
    }

    /// Whether the whole has been checked.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.trust == Trust::Good
    }

    /// What a piece must be.
    #[must_use]
    pub fn claim(&self, piece: PieceIndex) -> Option<Claim> {
        self.claims.get(&piece).copied()
    }

    /// What is kept, and who answers for it: what a new owner must know.
    #[must_use]
    pub fn kept(&self) -> Vec<Claim> {
        self.kept.values().copied().collect()
    }

    /// BLAKE3 of a piece that is here.
    #[must_use]
    pub fn digest(&self, piece: PieceIndex) -> Option<[u8; 32]> {
        self.kept.get(&piece).map(|claim| claim.digest)
    }

    /// A piece came before the word of who fetched it.
    pub fn early(&mut self, piece: PieceIndex, from: NodeId, bytes: Bytes) {
        if self.early.len() < EARLY || self.early.contains_key(&piece) {
            self.early.insert(piece, (from, bytes));
        }
    }

    /// The owner says what pieces are; gives those that waited for it.
    pub fn claimed(&mut self, claims: &[Claim]) -> Vec<(PieceIndex, NodeId, Bytes)> {
        let mut ready = Vec::new();
        for claim in claims {
            self.claims.insert(claim.piece, *claim);
            if let Some((from, bytes)) = self.early.remove(&claim.piece) {
                ready.push((claim.piece, from, bytes));
            }
        }
        ready
    }

    /// A piece was stored. Names those who gave it otherwise, or, where it comes from the origin, said otherwise of it.
    pub fn stored(&mut self, claim: Claim) -> Vec<NodeId> {
        self.kept.insert(claim.piece, claim);
        self.early.remove(&claim.piece);
        let disputes = self.disputes.remove(&claim.piece).unwrap_or_default();
        let said = self.claims.get(&claim.piece).map(|said| (said.fetcher, said.digest));
        let otherwise = disputes.into_iter().chain(said).filter(|(_, digest)| *digest != claim.digest);
        otherwise.map(|(node, _)| node).filter(|node| *node != claim.fetcher).collect()
    }

    /// A node gave a piece otherwise than it was claimed to be. Who is wrong is seen when one is stored.
    pub fn disputed(&mut self, piece: PieceIndex, node: NodeId, digest: [u8; 32]) {
        let disputes = self.disputes.entry(piece).or_default();
        disputes.retain(|(other, _)| *other != node);
        disputes.push((node, digest));
    }

    /// Only `left` of what was here is. What is being checked was read before, and says nothing any more.
    pub fn lost(&mut self, left: &PieceBitmap) {
        self.trust = Trust::Open;
        self.kept.retain(|piece, _| left.contains(*piece));
        self.again.clear();
        self.losses += 1;
    }

    /// How often pieces were lost so far: a check that began before the last time is void.
    #[must_use]
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// Whether something is missing still.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.trust == Trust::Open
    }

    /// A reader doubts pieces; says which of them are to come from the origin again. Each does once, before the whole is
    /// checked.
    pub fn doubted(&mut self, pieces: &[PieceIndex]) -> Vec<PieceIndex> {
        if self.trust != Trust::Open {
            return Vec::new();
        }
        let doubted =
            pieces.iter().filter(|piece| self.kept.contains_key(piece) && self.again.insert(**piece));
        let doubted: Vec<_> = doubted.copied().collect();
        self.doubts += usize::from(!doubted.is_empty());
        doubted
    }

    /// What was doubted at one time has come again, or the origin did not give it.
    pub fn doubt_ended(&mut self) {
        self.doubts = self.doubts.saturating_sub(1);
    }

    /// The origin did not give what was doubted: it may be doubted again.
    pub fn not_fetched_again(&mut self) {
        self.again.clear();
    }

    /// Whether it is time to hash the whole: all is there, none of it is being replaced, and nobody does yet.
    pub fn begins_check(&mut self, have: &PieceBitmap) -> bool {
        let begins = self.trust == Trust::Open && self.doubts == 0 && have.is_full();
        if begins {
            self.trust = Trust::Checking;
            self.again.clear();
        }
        begins
    }

    /// The whole was hashed on `me`.
    pub fn hashed(&mut self, me: NodeId, right: bool) -> Next {
        if right {
            self.trust = Trust::Good;
            self.early.clear();
            return Next::Confirm;
        }
        let doubtful = |own: bool| {
            let kept = self.kept.values().filter(|claim| (claim.fetcher == me) == own);
            kept.map(|claim| claim.piece).filter(|piece| !self.again.contains(piece)).collect::<Vec<_>>()
        };
        // What this node had from the origin itself is the last to be doubted.
        let pieces =
            Some(doubtful(false)).filter(|pieces| !pieces.is_empty()).unwrap_or_else(|| doubtful(true));
        if pieces.is_empty() { Next::GiveUp } else { Next::FetchAgain(pieces) }
    }

    /// A piece came from the origin again, to `me`, and is this. Names who said otherwise.
    pub fn fetched_again(&mut self, me: NodeId, piece: PieceIndex, digest: [u8; 32]) -> Option<NodeId> {
        self.again.insert(piece);
        let claim = Claim { piece, digest, fetcher: me };
        let before = self.kept.insert(piece, claim)?;
        if before.digest == digest {
            self.kept.insert(piece, before);
            return None;
        }
        Some(before.fetcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PieceCount;

    const ME: NodeId = NodeId([1; 32]);
    const LIAR: NodeId = NodeId([2; 32]);

    fn count() -> PieceCount {
        PieceCount::new(3).unwrap()
    }

    /// All three pieces, the second from another node.
    fn full() -> (Provisional, PieceBitmap, Vec<PieceIndex>) {
        let (mut provisional, mut have) = (Provisional::new(false), PieceBitmap::empty(count()));
        let pieces: Vec<_> = count().pieces().collect();
        for (piece, fetcher) in pieces.iter().zip([ME, LIAR, ME]) {
            provisional.stored(Claim { piece: *piece, digest: [0; 32], fetcher });
            have.insert(*piece);
        }
        (provisional, have, pieces)
    }

    #[test]
    fn a_whole_that_is_wrong_is_fetched_again_first_what_others_fetched() {
        let (mut provisional, have, pieces) = full();
        assert!(provisional.begins_check(&have) && !provisional.begins_check(&have));
        assert_eq!(provisional.hashed(ME, false), Next::FetchAgain(vec![pieces[1]]));
        assert_eq!(provisional.fetched_again(ME, pieces[1], [9; 32]), Some(LIAR));
        assert_eq!(provisional.hashed(ME, false), Next::FetchAgain(vec![pieces[0], pieces[2]]));
        assert_eq!(provisional.fetched_again(ME, pieces[0], [0; 32]), None, "it is what it was");
        assert_eq!(
            provisional.fetched_again(ME, pieces[2], [8; 32]),
            Some(ME),
            "the origin has changed its mind"
        );
        assert!(!provisional.is_good());
        assert_eq!(provisional.hashed(ME, true), Next::Confirm);
        assert!(provisional.is_good());
    }

    #[test]
    fn the_whole_is_not_hashed_while_doubted_pieces_are_being_replaced() {
        let (mut provisional, have, pieces) = full();
        assert_eq!(provisional.doubted(&pieces[..1]), &pieces[..1]);
        assert_eq!(provisional.doubted(&pieces[..1]), [], "it is being fetched already");
        assert_eq!(provisional.doubted(&pieces[1..2]), &pieces[1..2]);
        provisional.doubt_ended();
        assert!(!provisional.begins_check(&have), "another is on its way");
        provisional.doubt_ended();
        assert!(provisional.begins_check(&have));
    }

    #[test]
    fn what_came_twice_from_the_origin_and_is_wrong_is_given_up() {
        let (mut provisional, have, pieces) = full();
        assert!(provisional.begins_check(&have));
        for piece in &pieces {
            provisional.fetched_again(ME, *piece, [0; 32]);
        }
        assert_eq!(provisional.hashed(ME, false), Next::GiveUp);
    }

    #[test]
    fn a_piece_waits_for_the_word_of_its_fetcher() {
        let mut provisional = Provisional::new(false);
        let piece = count().piece(0).unwrap();
        provisional.early(piece, LIAR, Bytes::from_static(b"x"));
        let claim = Claim { piece, digest: [7; 32], fetcher: ME };
        assert_eq!(provisional.claimed(&[claim]), [(piece, LIAR, Bytes::from_static(b"x"))]);
        assert_eq!(provisional.claim(piece), Some(claim));
    }

    #[test]
    fn of_a_disputed_piece_the_origin_says_who_was_wrong() {
        let piece = count().piece(0).unwrap();
        let honest = NodeId([3; 32]);
        for (claimed, given, liar) in [([1; 32], [2; 32], honest), ([2; 32], [1; 32], LIAR)] {
            let mut provisional = Provisional::new(false);
            provisional.claimed(&[Claim { piece, digest: claimed, fetcher: LIAR }]);
            provisional.disputed(piece, honest, given);
            let found = Claim { piece, digest: [1; 32], fetcher: ME };
            assert_eq!(provisional.stored(found), [liar]);
        }
    }
}
