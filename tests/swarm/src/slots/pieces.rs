//! Who has which piece.

/// The pieces of all nodes and, last, of the origin, which has all.
pub(super) struct Pieces {
    have: Vec<u64>,
    words: usize,
    pieces: usize,
    held: Vec<usize>,
    copies: Vec<usize>,
}

impl Pieces {
    pub(super) fn new(nodes: usize, pieces: usize) -> Self {
        let words = pieces.div_ceil(64);
        let mut all = Self {
            have: vec![0; words * (nodes + 1)],
            words,
            pieces,
            held: vec![0; nodes + 1],
            copies: vec![0; pieces],
        };
        (0..pieces).for_each(|piece| _ = all.add(nodes, piece));
        all
    }

    /// A node has a piece more; says whether it has all now.
    pub(super) fn add(&mut self, node: usize, piece: usize) -> bool {
        self.have[node * self.words + piece / 64] |= 1 << (piece % 64);
        self.held[node] += 1;
        self.copies[piece] += 1;
        self.held[node] == self.pieces
    }

    /// Whether a node lacks anything that another has.
    pub(super) fn lacks(&self, node: usize, other: usize) -> bool {
        self.held[node] < self.pieces && self.missing(node, other).any(|word| word != 0)
    }

    /// Of what a node lacks and another has, the piece of which there are fewest; chance decides between equals.
    pub(super) fn rarest(&self, node: usize, other: usize, random: &mut fastrand::Rng) -> Option<usize> {
        let (mut best, mut fewest, mut equals) = (None, usize::MAX, 0);
        for (at, mut word) in self.missing(node, other).enumerate() {
            while word != 0 {
                let piece = at * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                let copies = self.copies[piece];
                if copies > fewest {
                    continue;
                }
                equals = if copies == fewest { equals + 1 } else { 1 };
                fewest = copies;
                if random.usize(..equals) == 0 {
                    best = Some(piece);
                }
            }
        }
        best
    }

    fn missing(&self, node: usize, other: usize) -> impl Iterator<Item = u64> + '_ {
        self.of(node).iter().zip(self.of(other)).map(|(mine, theirs)| theirs & !mine)
    }

    fn of(&self, node: usize) -> &[u64] {
        &self.have[node * self.words..][..self.words]
    }
}
