//! Pieces on their way out.
//!
//! A piece is on its way until its receiver says that it has come. What the kernel takes says little: it takes small
//! pieces whole, at once and for all partners, and then nobody knows how long they wait there.

use std::{collections::HashMap, time::Duration};

use super::Upload;
use crate::{NodeId, Priority, TaskId};

/// To whom, of what, and which piece.
type Key = (NodeId, TaskId, u32);

#[derive(Debug)]
struct Piece {
    since: Duration,
    len: u32,
    urgent: bool,
    left: bool,
    called_off: bool,
}

impl Piece {
    /// Whether nobody will say that it came.
    const fn is_over(&self) -> bool {
        self.left && self.called_off
    }
}

/// Pieces that are being sent.
#[derive(Debug, Default)]
pub(super) struct Underway(HashMap<Key, Piece>);

impl Underway {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many there are that no process waits for.
    pub(super) fn behind(&self) -> usize {
        self.0.values().filter(|piece| !piece.urgent).count()
    }

    /// Whether there is one that a process waits for, and that is on its way no longer than this.
    pub(super) fn has_urgent(&self, now: Duration, most: Duration) -> bool {
        self.0.values().any(|piece| piece.urgent && now.saturating_sub(piece.since) < most)
    }

    pub(super) fn begin(&mut self, since: Duration, upload: &Upload) {
        let urgent = upload.priority == Priority::Demand;
        let piece = Piece { since, len: upload.len, urgent, left: false, called_off: false };
        self.0.insert((upload.node, upload.task, upload.piece.get()), piece);
    }

    pub(super) fn left(&mut self, key: Key) {
        self.mark(key, |piece| piece.left = true);
    }

    pub(super) fn call_off(&mut self, key: Key) {
        self.mark(key, |piece| piece.called_off = true);
    }

    fn mark(&mut self, key: Key, mark: impl FnOnce(&mut Piece)) {
        let Some(piece) = self.0.get_mut(&key) else { return };
        mark(piece);
        if piece.is_over() {
            self.0.remove(&key);
        }
    }

    pub(super) fn call_off_all(&mut self, node: NodeId, task: TaskId) {
        for ((to, of, _), piece) in &mut self.0 {
            piece.called_off |= (*to, *of) == (node, task);
        }
        self.0.retain(|_, piece| !piece.is_over());
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.0.remove(&key);
    }

    pub(super) fn gone(&mut self, node: NodeId) {
        self.0.retain(|(to, _, _), _| *to != node);
    }

    /// Waits no longer for what takes longer than `most`; says whether there was anything.
    pub(super) fn give_up(&mut self, now: Duration, most: Duration) -> bool {
        let before = self.0.len();
        self.0.retain(|_, piece| now.saturating_sub(piece.since) < most);
        self.0.len() < before
    }

    /// A piece has come; says how long it is and took.
    pub(super) fn came(&mut self, now: Duration, key: Key) -> Option<(u32, Duration)> {
        let Piece { since, len, .. } = self.0.remove(&key)?;
        Some((len, now.saturating_sub(since)))
    }
}
