//! One task of the engine: its state machine, its pieces, and who waits for them.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::oneshot;

use super::{Content, Origin};
use crate::{
    NodeId, P2pError, PieceBitmap, PieceIndex, PieceLayout, Priority, TaskId, peer::Task, store::Stored,
};

/// Failures of the origin in a row before those who wait are told.
const FAILURES: u32 = 8;

/// One task.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) id: TaskId,
    pub(super) content: Content,
    pub(super) task: Task,
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
    done: oneshot::Sender<Result<(), P2pError>>,
}

impl Swarm {
    pub(super) fn new(content: Content, stored: Arc<Stored>, origin: Arc<dyn Origin>, seed: u64) -> Self {
        let task = Task::new(stored.layout(), stored.good(), seed);
        Self {
            id: stored.task(),
            content,
            task,
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

    /// Pieces are wanted, and somebody waits for them.
    pub(super) fn want(
        &mut self,
        pieces: Vec<PieceIndex>,
        priority: Priority,
        done: oneshot::Sender<Result<(), P2pError>>,
    ) {
        let mut missing = PieceBitmap::empty(self.layout());
        for piece in pieces.iter().filter(|piece| !self.task.have().contains(**piece)) {
            missing.insert(*piece);
        }
        if missing.held() == 0 {
            drop(done.send(Ok(())));
            return;
        }
        self.task.want(priority, pieces);
        self.waiting.push(Waiting { pieces: missing, done });
    }

    /// A piece is here.
    pub(super) fn arrived(&mut self, piece: PieceIndex) {
        self.failures = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for mut waits in waiting {
            waits.pieces.remove(piece);
            if waits.pieces.held() == 0 {
                drop(waits.done.send(Ok(())));
            } else {
                self.waiting.push(waits);
            }
        }
    }

    /// The origin failed.
    pub(super) fn origin_failed(&mut self, piece: PieceIndex, reason: &str) {
        self.task.origin_failed(piece);
        self.failures += 1;
        if self.failures >= FAILURES {
            self.failures = 0;
            self.fail(&P2pError::Origin { task: self.id, piece, reason: reason.to_owned() });
        }
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
