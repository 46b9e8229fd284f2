//! One task of the engine: its state machine, its pieces, and who waits for them.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Content, FromOrigin, Held, Origin, Until, yielding::Reader};
use crate::{
    NodeId, P2pError, PieceBitmap, PieceIndex, PieceLayout, Priority, TaskId,
    peer::{Provisional, Task},
    store::{StoreError, Stored},
};

/// Failures of the origin in a row before those who wait are told.
const FAILURES: u32 = 8;

/// Times that the disk may lose pieces before those who wait are told: it would go on for ever.
const LOSSES: u64 = 3;

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
    wanted: PieceBitmap,
    /// Those of them that are not here.
    pieces: PieceBitmap,
    priority: Priority,
    until: Until,
    done: oneshot::Sender<Result<(), P2pError>>,
    /// Where a process waits, as long as it does.
    _reader: Option<Reader>,
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
        (priority, reader): (Priority, Option<Reader>),
        until: Until,
        done: oneshot::Sender<Result<(), P2pError>>,
    ) {
        let mut wanted = PieceBitmap::empty(self.layout().count());
        pieces.into_iter().for_each(|piece| _ = wanted.insert(piece));
        // Who waits for all of a blob downloads it: nothing of it may wait for the rest.
        let reader = reader.filter(|_| !self.is_whole() || until == Until::Here);
        let mut waits = Waiting { pieces: wanted.clone(), wanted, priority, until, done, _reader: reader };
        self.seek(&mut waits);
        if self.is_over(&waits) {
            drop(waits.done.send(Ok(())));
        } else {
            self.waiting.push(waits);
        }
    }

    /// Wants what somebody waits for and is not here.
    fn seek(&mut self, waits: &mut Waiting) {
        waits.pieces = PieceBitmap::empty(self.layout().count());
        for piece in waits.wanted.iter().filter(|piece| !self.task.have().contains(*piece)) {
            waits.pieces.insert(piece);
        }
        if self.is_over(waits) {
            return;
        }
        self.task.want(waits.priority, waits.pieces.iter());
        if self.is_whole() && waits.until == Until::Checked {
            let all = self.layout().pieces();
            self.task.want(Priority::Background, all);
        }
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

    /// Some of what was here is gone: takes part anew, with what is left. Who waits goes on to, unless the disk loses
    /// everything again and again. Says whom to part from.
    pub(super) fn begin_again(&mut self, seed: u64) -> Vec<NodeId> {
        let mut left = self.stored.good();
        self.stored.provisional().into_iter().for_each(|(piece, _)| _ = left.insert(piece));
        self.provisional.lost(&left);
        self.task = Task::new(self.layout().clone(), left, seed);
        self.owner = None;
        if self.provisional.losses() >= LOSSES {
            let (task, source) = (self.id, Arc::new(StoreError::NotKept(self.id)));
            self.fail(&P2pError::Store { task, source });
        }
        for mut waits in std::mem::take(&mut self.waiting) {
            self.seek(&mut waits);
            self.waiting.push(waits);
        }
        self.tell_waiting();
        self.greeted.drain().collect()
    }

    /// The origin failed; says whether those who wait were told. A refusal is told at once: asking again does not help.
    pub(super) fn origin_failed(&mut self, piece: PieceIndex, refused: bool, reason: &str) -> bool {
        self.task.origin_failed(piece);
        self.failures += 1;
        let (task, reason) = (self.id, reason.to_owned());
        if refused {
            self.fail(&P2pError::Refused { task, piece, reason });
        } else if self.failures >= FAILURES {
            self.fail(&P2pError::Origin { task, piece, reason });
        } else {
            return false;
        }
        self.failures = 0;
        true
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
