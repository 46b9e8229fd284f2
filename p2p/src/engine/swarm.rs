//! One task of the engine: its state machine, its pieces, and who waits for them.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Content, FromOrigin, Held, Origin, Until};
use crate::{
    NodeId, P2pError, PieceBitmap, PieceIndex, PieceLayout, Priority, TaskId,
    peer::{Provisional, Task},
    store::Stored,
};

/// Failures of the origin in a row before those who wait are told.
const FAILURES: u32 = 8;

/// A task that nobody holds goes on for so long: whoever comes back finds its partners.
const LINGER: Duration = Duration::from_secs(3);

/// One task.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) id: TaskId,
    pub(super) content: Content,
    pub(super) task: Task,
    /// Of a blob without a list.
    pub(super) provisional: Provisional,
    pub(super) stored: Arc<Stored>,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) from_origin: Arc<FromOrigin>,
    /// Whom the node told that it takes part.
    pub(super) owner: Option<NodeId>,
    /// Nodes that were greeted and have not parted.
    pub(super) greeted: HashSet<NodeId>,
    waiting: Vec<Waiting>,
    failures: u32,
    held: Weak<Held>,
    /// Since when nobody has held it.
    unheld: Option<Duration>,
    /// When it is looked at next though nothing happens.
    pub(super) next_look: Duration,
}

#[derive(Debug)]
struct Waiting {
    pieces: PieceBitmap,
    until: Until,
    done: oneshot::Sender<Result<(), P2pError>>,
}

impl Swarm {
    pub(super) fn new(content: Content, stored: Arc<Stored>, origin: Arc<dyn Origin>, seed: u64) -> Self {
        let good = stored.good();
        let provisional = Provisional::new(good.is_full());
        let task = Task::new(stored.layout().clone(), good, seed);
        let from_origin = Arc::new(FromOrigin::new(stored.layout().count()));
        Self {
            id: stored.task(),
            content,
            task,
            provisional,
            stored,
            origin,
            from_origin,
            owner: None,
            greeted: HashSet::new(),
            waiting: Vec::new(),
            failures: 0,
            held: Weak::new(),
            unheld: None,
            next_look: Duration::ZERO,
        }
    }

    /// Somebody holds it from now on.
    pub(super) fn hold(&mut self) -> Arc<Held> {
        self.unheld = None;
        self.held.upgrade().unwrap_or_else(|| {
            let held = Arc::new(Held { from_origin: Arc::clone(&self.from_origin) });
            self.held = Arc::downgrade(&held);
            held
        })
    }

    /// Whether nobody has held it for a while.
    pub(super) fn is_left(&mut self, now: Duration) -> bool {
        if self.held.strong_count() > 0 {
            self.unheld = None;
            return false;
        }
        now.saturating_sub(*self.unheld.get_or_insert(now)) >= LINGER
    }

    pub(super) fn layout(&self) -> &PieceLayout {
        self.stored.layout()
    }

    /// Whether only the whole can be checked.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.content, Content::Whole { .. })
    }

    fn is_over(&self, waits: &Waiting) -> bool {
        let checked = waits.until == Until::Here || !self.is_whole() || self.provisional.is_good();
        waits.pieces.held() == 0 && checked
    }

    /// Pieces are wanted, and somebody waits for them.
    pub(super) fn want(
        &mut self,
        pieces: Vec<PieceIndex>,
        priority: Priority,
        until: Until,
        done: oneshot::Sender<Result<(), P2pError>>,
    ) {
        let mut missing = PieceBitmap::empty(self.layout().count());
        for piece in pieces.iter().filter(|piece| !self.task.have().contains(**piece)) {
            missing.insert(*piece);
        }
        let waits = Waiting { pieces: missing, until, done };
        if self.is_over(&waits) {
            drop(waits.done.send(Ok(())));
            return;
        }
        self.task.want(priority, pieces);
        if self.is_whole() && until == Until::Checked {
            let all = self.layout().pieces();
            self.task.want(Priority::Background, all);
        }
        self.waiting.push(waits);
    }

    /// A piece is here.
    pub(super) fn arrived(&mut self, piece: PieceIndex) {
        self.failures = 0;
        self.waiting.iter_mut().for_each(|waits| _ = waits.pieces.remove(piece));
        self.tell_waiting();
    }

    /// The whole was checked, and is right.
    pub(super) fn confirmed(&mut self) {
        self.tell_waiting();
    }

    fn tell_waiting(&mut self) {
        for waits in std::mem::take(&mut self.waiting) {
            if self.is_over(&waits) {
                drop(waits.done.send(Ok(())));
            } else {
                self.waiting.push(waits);
            }
        }
    }

    /// Nothing is here any more; says whom to part from.
    pub(super) fn start_over(&mut self, seed: u64) -> Vec<NodeId> {
        self.task = Task::new(self.layout().clone(), PieceBitmap::empty(self.layout().count()), seed);
        self.provisional = Provisional::new(false);
        self.owner = None;
        self.greeted.drain().collect()
    }

    /// The origin failed. A refusal is told at once: asking again does not help.
    pub(super) fn origin_failed(&mut self, piece: PieceIndex, refused: bool, reason: &str) {
        self.task.origin_failed(piece);
        self.failures += 1;
        let (task, reason) = (self.id, reason.to_owned());
        if refused {
            self.fail(&P2pError::Refused { task, piece, reason });
        } else if self.failures >= FAILURES {
            self.fail(&P2pError::Origin { task, piece, reason });
        } else {
            return;
        }
        self.failures = 0;
    }

    /// Tells all who wait that their pieces will not come.
    pub(super) fn fail(&mut self, error: &P2pError) {
        for waits in self.waiting.drain(..) {
            drop(waits.done.send(Err(error.clone())));
        }
        self.want_less();
    }

    /// Forgets those who wait no more, and what only they wanted.
    pub(super) fn prune(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|waits| !waits.done.is_closed());
        if self.waiting.len() < before {
            self.want_less();
        }
    }

    fn want_less(&mut self) {
        let mut waited_for = PieceBitmap::empty(self.layout().count());
        for waits in &self.waiting {
            if self.is_whole() && waits.until == Until::Checked {
                return;
            }
            waits.pieces.iter().for_each(|piece| _ = waited_for.insert(piece));
        }
        self.task.want_only(&waited_for);
    }
}
