//! What came of a run.

use super::World;
use crate::Outcome;

impl World {
    pub(super) fn outcome(&self) -> Outcome {
        let lived = || self.nodes.iter().filter(|node| !node.doomed);
        let mut finished: Vec<_> =
            lived().filter(|node| !node.slow).filter_map(|node| node.finished).collect();
        finished.sort_by(f64::total_cmp);
        let wanted =
            if self.scene.order.is_empty() { self.scene.pieces as usize } else { self.scene.order.len() };
        #[allow(clippy::cast_precision_loss, reason = "pieces are few")]
        let wanted = wanted as f64 * f64::from(self.scene.piece_size);
        Outcome {
            finished,
            unfinished: lived().filter(|node| node.finished.is_none()).count(),
            origin_sent: self.links.origin_sent,
            wanted,
            messages: self.messages,
            duplicates: self.duplicates,
            origin_done: self.origin_done,
        }
    }
}
