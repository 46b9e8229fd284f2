//! Who may give pieces to whom.

/// Children of a node in the tree.
const CHILDREN: usize = 2;
/// Parents of a node in the acyclic graph.
const PARENTS: usize = 3;
/// Earlier nodes that they are chosen from.
const CANDIDATES: usize = 15;
/// Connections of a node, on average, and of the origin in the random graph.
const CONNECTIONS: usize = 10;
/// Slots between two draws of partners.
const REDRAWN: usize = 8;

/// Who may give pieces to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A tree in which each newcomer goes down by chance until a node has room for a second child (DadiP2P).
    Tree,
    /// Each newcomer has three parents for good: of fifteen earlier ones that chance names those with fewest children
    /// (Dragonfly v2).
    Dag,
    /// Connections made once, about ten of each node, in which pieces go both ways (Kraken).
    Graph,
    /// Partners drawn anew every eight slots; all know the origin.
    Redrawn {
        /// How many, on average.
        partners: usize,
        /// Whether the origin gives each piece only once.
        once: bool,
    },
}

impl Rule {
    pub(super) const fn draws(self, slot: usize) -> bool {
        slot == 1 || matches!(self, Self::Redrawn { .. }) && slot.is_multiple_of(REDRAWN)
    }

    pub(super) const fn gives_once(self) -> bool {
        matches!(self, Self::Redrawn { once: true, .. })
    }

    /// For each node, and for the origin last, whom it may give to.
    pub(super) fn receivers(self, nodes: usize, random: &mut fastrand::Rng) -> Vec<Vec<usize>> {
        let mut receivers = vec![Vec::new(); nodes + 1];
        match self {
            Self::Tree => (0..nodes).for_each(|node| add_to_tree(&mut receivers, node, random)),
            Self::Dag => (0..nodes).for_each(|node| add_to_dag(&mut receivers, node, random)),
            Self::Graph => {
                connect(&mut receivers[..nodes], CONNECTIONS / 2, random);
                receivers[nodes] = choose(nodes, CONNECTIONS, random);
            }
            Self::Redrawn { partners, .. } => {
                connect(&mut receivers[..nodes], partners / 2, random);
                receivers[nodes] = (0..nodes).collect();
            }
        }
        receivers
    }
}

fn add_to_tree(receivers: &mut [Vec<usize>], node: usize, random: &mut fastrand::Rng) {
    let mut parent = receivers.len() - 1;
    while receivers[parent].len() == CHILDREN {
        parent = receivers[parent][random.usize(..CHILDREN)];
    }
    receivers[parent].push(node);
}

fn add_to_dag(receivers: &mut [Vec<usize>], node: usize, random: &mut fastrand::Rng) {
    let origin = receivers.len() - 1;
    let earlier = |number: usize| if number == node { origin } else { number };
    let mut candidates: Vec<_> = choose(node + 1, CANDIDATES, random).into_iter().map(earlier).collect();
    candidates.sort_by_key(|parent| receivers[*parent].len());
    candidates.iter().take(PARENTS).for_each(|parent| receivers[*parent].push(node));
}

/// Connects each node with `count` others.
fn connect(receivers: &mut [Vec<usize>], count: usize, random: &mut fastrand::Rng) {
    for node in 0..receivers.len() {
        for other in choose(receivers.len(), count, random) {
            if other != node && !receivers[node].contains(&other) {
                receivers[node].push(other);
                receivers[other].push(node);
            }
        }
    }
}

/// Up to `count` different numbers below `below`.
fn choose(below: usize, count: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count.min(below) {
        let one = random.usize(..below);
        if !chosen.contains(&one) {
            chosen.push(one);
        }
    }
    chosen
}
