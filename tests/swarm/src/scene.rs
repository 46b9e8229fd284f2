//! What is simulated, and what came out.

/// One run.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How many nodes.
    pub nodes: usize,
    /// Pieces of the blob.
    pub pieces: u32,
    /// Bytes of a piece.
    pub piece_size: u32,
    /// Rate of each node's link, each way, in bytes per second.
    pub rate: f64,
    /// Rate of the origin's link, in bytes per second.
    pub origin_rate: f64,
    /// Time of a message between two nodes, in seconds.
    pub delay: f64,
    /// How many nodes have a tenth of the rate upwards.
    pub slow: usize,
    /// How many nodes die when half of the pieces are there.
    pub killed: usize,
    /// Pieces that each node wants, in this order; all of them, in any, where it is empty.
    pub order: Vec<u32>,
    /// Decides what is left to chance.
    pub seed: u64,
    /// Virtual time after which the run is given up, in seconds.
    pub deadline: f64,
}

impl Default for Scene {
    /// The shape of the 200 MB test of the Dragonfly v1 paper: 200 pieces of 1 MiB, 200 Mbit/s, an origin of 20 times that.
    fn default() -> Self {
        Self {
            nodes: 64,
            pieces: 200,
            piece_size: 1 << 20,
            rate: 25e6,
            origin_rate: 500e6,
            delay: 0.000_5,
            slow: 0,
            killed: 0,
            order: Vec::new(),
            seed: 1,
            deadline: 600.0,
        }
    }
}

impl Scene {
    /// The least time in which all could have what they want if pieces were as fine as a fluid, in seconds.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn bound(&self) -> f64 {
        let wanted = if self.order.is_empty() { self.pieces as usize } else { self.order.len() };
        let line = wanted as f64 * f64::from(self.piece_size);
        let nodes = self.nodes as f64;
        let all = nodes * line / (self.origin_rate + nodes * self.rate);
        (line / self.rate).max(line / self.origin_rate).max(all)
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When each node that lived had what it wanted, in seconds, ascending; the slow ones left out.
    pub finished: Vec<f64>,
    /// Nodes that lived and did not get what they wanted in time.
    pub unfinished: usize,
    /// Bytes that left the origin.
    pub origin_sent: f64,
    /// Bytes of what one node wanted.
    pub wanted: f64,
    /// When the last piece had left the origin, in seconds.
    pub origin_done: f64,
    /// Messages between nodes, pieces left out.
    pub messages: u64,
    /// Pieces that came to a node that had them already.
    pub duplicates: u64,
}

impl Outcome {
    /// The time by which a share `part` of the nodes had finished, in seconds.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of nodes are small"
    )]
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.finished.len().saturating_sub(1);
        self.finished.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::INFINITY)
    }

    /// When the last node had finished, in seconds.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.quantile(1.0)
    }

    /// How many copies of what a node wanted left the origin.
    #[must_use]
    pub fn origin_copies(&self) -> f64 {
        self.origin_sent / self.wanted
    }
}
