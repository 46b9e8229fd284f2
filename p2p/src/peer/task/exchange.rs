//! What recurs between partners: they are exchanged, and hear what is new.

use std::time::Duration;

use super::{Action, Task};

/// A node looks for more partners where it has fewer than this.
const FEW: usize = 16;
/// Time between two calls for partners, where there are too few.
const SEARCH: Duration = Duration::from_secs(1);
/// Shortest time between two exchanges of the least useful partner,
const ROTATION: Duration = Duration::from_secs(5);
/// and how often a piece usually comes in it: less would part from who is about to give one.
const PIECES_IN_ROTATION: u32 = 32;

impl Task {
    /// Exchanges the least useful partner now and then, so that the swarm does not split.
    pub(super) fn rotate(&mut self, now: Duration) {
        let alone = self.partners.len() < FEW;
        let rotation = self.usual().map_or(ROTATION, |usual| (usual * PIECES_IN_ROTATION).max(ROTATION));
        if self.wants.is_empty() || !self.rhythm.rotates(now, if alone { SEARCH } else { rotation }) {
            return;
        }
        self.outbox.lonely = true;
        if alone {
            return;
        }
        if let Some(node) = self.partners.least_useful(now, rotation) {
            self.parted(node);
            self.outbox.extend([Action::Part(node)]);
        }
    }

    /// Tells partners and the owner what is new.
    pub(super) fn tell(&mut self, now: Duration) {
        let usual = self.usual();
        if self.rhythm.tells(now, usual, std::mem::take(&mut self.outbox.spreads)) {
            let news = self.partners.iter_mut().filter(|(_, partner)| !partner.untold.is_empty());
            self.outbox.extend(
                news.map(|(to, partner)| Action::Have { to, pieces: std::mem::take(&mut partner.untold) }),
            );
        }
        let hurries = self.outbox.hurries || self.outbox.lonely;
        if self.rhythm.reports(now, hurries, self.outbox.has_news()) {
            self.outbox.report();
        }
    }
}
