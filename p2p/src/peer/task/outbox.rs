//! What a task has to say, and when it says what can wait.

use std::time::Duration;

use crate::peer::Action;
use crate::{NodeId, PieceIndex, Priority};

/// Longest time between two messages to a partner about new pieces.
const NEWS: Duration = Duration::from_millis(50);
/// Shortest.
const NEWS_AT_ONCE: Duration = Duration::from_millis(5);
/// Time between two looks for what is late.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two reports to the owner.
const REPORT: Duration = Duration::from_millis(200);
/// The owner takes who is silent for much longer for dead.
const HEARTBEAT: Duration = Duration::from_secs(4);
/// So long without anything on its way before the owner is asked again.
const STUCK: Duration = Duration::from_millis(500);
/// Time between two calls for a piece that its only holder does not give.
const INSISTENCE: Duration = Duration::from_secs(2);
/// A node that has just been greeted is not greeted again.
const GREETED: usize = 64;

/// What is to be done and said.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    actions: Vec<Action>,
    got: Vec<PieceIndex>,
    failed: Vec<PieceIndex>,
    greeted: Vec<NodeId>,
    /// Whether more partners are wanted.
    pub(super) lonely: bool,
    /// Whether the owner should hear at once.
    pub(super) hurries: bool,
    /// Whether partners should.
    pub(super) spreads: bool,
}

impl Outbox {
    pub(super) fn extend(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.actions.extend(actions);
    }

    pub(super) fn ask(&mut self, priority: Priority, pieces: Vec<PieceIndex>, insists: bool) {
        if !pieces.is_empty() {
            self.actions.push(Action::Ask { pieces, priority, insists });
        }
    }

    /// Greets a node that the owner named for a piece, unless that was just done.
    pub(super) fn greet_once(&mut self, node: NodeId) {
        if self.greeted.contains(&node) {
            return;
        }
        if self.greeted.len() == GREETED {
            self.greeted.remove(0);
        }
        self.greeted.push(node);
        self.actions.push(Action::Greet(node));
    }

    pub(super) fn got(&mut self, piece: PieceIndex) {
        self.got.push(piece);
    }

    pub(super) fn failed(&mut self, piece: PieceIndex) {
        self.failed.push(piece);
        self.hurries = true;
    }

    pub(super) fn has_news(&self) -> bool {
        !self.got.is_empty() || !self.failed.is_empty()
    }

    pub(super) fn report(&mut self) {
        let (got, failed) = (std::mem::take(&mut self.got), std::mem::take(&mut self.failed));
        self.actions.push(Action::Report { got, failed, lonely: self.lonely });
        self.lonely = false;
        self.hurries = false;
    }

    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

/// When things that recur were done last.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    told: Duration,
    looked: Duration,
    reported: Duration,
    rotated: Duration,
    insisted: Duration,
    moved: Duration,
}

impl Rhythm {
    /// Whether to tell partners what is new: often where pieces come quickly, and at once where that `hurries`.
    pub(super) fn tells(&mut self, now: Duration, usual: Option<Duration>, hurries: bool) -> bool {
        let every = match hurries {
            true => Duration::ZERO,
            false => usual.map_or(NEWS, |usual| (usual / 4).clamp(NEWS_AT_ONCE, NEWS)),
        };
        due(&mut self.told, now, every)
    }

    /// Whether to report to the owner.
    pub(super) fn reports(&mut self, now: Duration, hurries: bool, has_news: bool) -> bool {
        let every = match (hurries, has_news) {
            (true, _) => Duration::ZERO,
            (false, true) => REPORT,
            (false, false) => HEARTBEAT,
        };
        due(&mut self.reported, now, every)
    }

    /// Whether to look for what is late.
    pub(super) fn looks(&mut self, now: Duration) -> bool {
        due(&mut self.looked, now, LOOK)
    }

    pub(super) fn rotates(&mut self, now: Duration, every: Duration) -> bool {
        due(&mut self.rotated, now, every)
    }

    pub(super) fn insists(&mut self, now: Duration) -> bool {
        due(&mut self.insisted, now, INSISTENCE)
    }

    /// Whether nothing has `moved` for too long.
    pub(super) fn is_stuck(&mut self, now: Duration, moves: bool) -> bool {
        if moves {
            self.moved = now;
        }
        due(&mut self.moved, now, STUCK)
    }
}

fn due(last: &mut Duration, now: Duration, every: Duration) -> bool {
    let due = now.saturating_sub(*last) >= every;
    if due {
        *last = now;
    }
    due
}
