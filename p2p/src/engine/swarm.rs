//! One task of the engine: its state machine, its pieces, and who waits for them.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::oneshot;

use super::{Content, Origin, Until};
use crate::{
    NodeId, P2pError, PieceBitmap, PieceIndex, PieceLayout, Priority, TaskId,
    peer::{Provisional, Task},
    store::Stored,
};

/// Failures of the origin in a row before those who wait are told.
const FAILURES: u32 = 8;

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
    /// Whom the node told that it takes part.
    pub(super) owner: Option<NodeId>,
    /// Nodes that were greeted and have not parted.
    pub(super) greeted: HashSet<NodeId>,
    waiting: Vec<Waiting>,
    failures: u32,
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
        let task = Task::new(stored.layout(), good, seed);
        Self {
            id: stored.task(),
            content,
            task,
            provisional,
            stored,
            origin,
            owner: None,
            greeted: HashSet::new(),
            waiting: Vec::new(),
            failures: 0,
        }
    }

    pub(super) fn layout(&self) -> PieceLayout {
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
        let mut missing = PieceBitmap::empty(self.layout());
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
            self.task.want(Priority::Background, self.layout().pieces());
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
        self.task = Task::new(self.layout(), PieceBitmap::empty(self.layout()), seed);
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
    }

    /// Forgets those who wait no more.
    pub(super) fn prune(&mut self) {
        self.waiting.retain(|waits| !waits.done.is_closed());
    }
}
