//! Pieces on their way out, and whether the link could take one more.

use std::{collections::HashMap, time::Duration};

use crate::{NodeId, TaskId, peer::Upload};

/// The best time for a byte is believed for so many pieces, then measured anew: the link may have become slower.
const BELIEVED: u32 = 64;

/// Pieces that are being sent.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pieces: HashMap<(NodeId, TaskId, u32), (Duration, u32)>,
    /// Least seconds for a byte on a link that sends one piece at a time.
    best: Option<f64>,
    next_best: Option<f64>,
    measured: u32,
}

impl Sending {
    pub(super) fn begin(&mut self, now: Duration, upload: &Upload, len: u32) {
        self.pieces.insert((upload.node, upload.task, upload.piece.get()), (now, len));
    }

    /// A piece has left; says how long it is and took.
    pub(super) fn sent(
        &mut self,
        now: Duration,
        node: NodeId,
        task: TaskId,
        piece: u32,
    ) -> Option<(u32, Duration)> {
        let sharing = f64::from(u32::try_from(self.pieces.len()).unwrap_or(u32::MAX));
        let (since, len) = self.pieces.remove(&(node, task, piece))?;
        let took = now.saturating_sub(since);
        let pace = took.as_secs_f64() / f64::from(len.max(1)) / sharing;
        self.best = Some(self.best.map_or(pace, |best| best.min(pace)));
        self.next_best = Some(self.next_best.map_or(pace, |best| best.min(pace)));
        self.measured += 1;
        if self.measured == BELIEVED {
            self.best = self.next_best.take();
            self.measured = 0;
        }
        Some((len, took))
    }

    /// A node is gone; says how many pieces were on their way to it.
    pub(super) fn gone(&mut self, node: NodeId) -> usize {
        let before = self.pieces.len();
        self.pieces.retain(|(to, _, _), _| *to != node);
        before - self.pieces.len()
    }

    /// Whether what is being sent leaves the link idle in part: all of it takes longer than its share of the link would.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        let Some(best) = self.best else { return self.pieces.is_empty() };
        let sharing = f64::from(u32::try_from(self.pieces.len()).unwrap_or(u32::MAX));
        self.pieces.values().all(|(since, len)| {
            now.saturating_sub(*since).as_secs_f64() > best * f64::from(*len) * sharing * 1.25
        })
    }
}
