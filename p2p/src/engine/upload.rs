//! Pieces for other nodes, from the request to the receiver's word that it came.

use std::sync::Arc;

use bytes::Bytes;
use p2p_api::peer::{self, Body};

use super::{
    actor::{Actor, Done},
    wire,
};
use crate::{
    NodeId, PieceIndex, Priority, TaskId,
    peer::Upload,
    rate::Use,
    store::StoreError,
    transport::{Lane, Outgoing},
};

impl Actor {
    /// Begins to send what has its turn.
    pub(super) fn upload(&mut self) {
        let now = self.now();
        while let Some(upload) = self.uploads.next(now) {
            let Some(swarm) = self.swarms.get(&upload.task) else {
                self.uploads.failed(upload.node, upload.task, upload.piece.get());
                continue;
            };
            let stored = Arc::clone(&swarm.stored);
            self.work.spawn_blocking(move || Done::Loaded(upload, stored.read_or_lose(upload.piece)));
        }
    }

    /// A piece could not be read: who wants it had better ask somebody else.
    pub(super) fn not_loaded(&mut self, upload: &Upload, error: &StoreError) {
        let (node, task, piece) = (upload.node, upload.task, upload.piece.get());
        tracing::warn!(%task, piece, "a piece cannot be read: {}", crate::error::in_one_line(error));
        self.uploads.failed(node, task, piece);
        self.say(node, Body::Missing(peer::Missing { task: wire::bytes(task), piece }));
        self.look_for_loss(task);
    }

    pub(super) fn send_piece(&mut self, upload: Upload, bytes: Bytes) {
        let lane = if upload.priority > Priority::Trace { Lane::Urgent } else { Lane::Background };
        let (task, piece) = (upload.task, upload.piece.get());
        let limit = self.limits.share(Use::Upload, task);
        let pace = (lane == Lane::Background).then(|| self.yielding.pace());
        let outgoing = Outgoing { task, piece, bytes, lane, limit, pace };
        if self.transport.send_piece(upload.node, outgoing).is_err() {
            self.uploads.failed(upload.node, task, piece);
        }
    }

    /// A piece has been given to the network.
    pub(super) fn left(&mut self, node: NodeId, task: TaskId, piece: u32) {
        self.uploads.left(node, task, piece);
        self.count_sent(task, piece);
        self.upload();
    }

    fn count_sent(&self, task: TaskId, piece: u32) {
        let layout = self.swarms.get(&task).map(super::swarm::Swarm::layout);
        if let Some((layout, piece)) = layout.and_then(|layout| Some((layout, layout.piece(piece)?))) {
            self.metrics.sent(layout.piece_len(piece).into());
        }
    }

    /// A node has pieces: those that came from here need no more of the link.
    pub(super) fn came(&mut self, node: NodeId, task: TaskId, pieces: &[PieceIndex]) {
        let now = self.now();
        pieces.iter().for_each(|piece| self.uploads.came(now, node, task, *piece));
        self.upload();
    }

    /// A node does not want a piece any more.
    pub(super) fn cancelled(&mut self, node: NodeId, task: TaskId, piece: PieceIndex) {
        if self.uploads.cancel(node, task, piece) {
            return;
        }
        if self.transport.withdraw(node, task, piece.get()) {
            self.uploads.failed(node, task, piece.get());
        } else {
            self.uploads.called_off(node, task, piece.get());
        }
        self.upload();
    }
}
