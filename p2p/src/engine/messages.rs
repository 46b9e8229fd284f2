//! What comes in from other nodes. All of it is foreign: what does not fit is left aside.

use std::time::Duration;

use p2p_api::peer::{self, Body};

use super::{
    actor::Actor,
    wire::{self, Shape},
};
use crate::{
    NodeId, TaskId,
    metrics::{Fate, From},
    owner::Instruction,
    peer::{Admission, Source, Upload},
    transport::Incoming,
};

impl Actor {
    pub(super) fn incoming(&mut self, node: NodeId, incoming: Incoming) {
        match incoming {
            Incoming::Connected(_) => self.is_there(node),
            Incoming::Message(body) => self.message(node, body),
            Incoming::Piece { task, piece, bytes } => {
                // One that comes late, after it was called off, is as good as any.
                let wanted = self
                    .swarms
                    .get(&task)
                    .and_then(|swarm| swarm.layout().piece(piece).filter(|piece| swarm.task.wants(*piece)));
                match wanted {
                    Some(piece) => self.check(task, piece, Source::Node(node), bytes),
                    None => self.metrics.piece(From::Peer, Fate::Unwanted, bytes.len() as u64),
                }
            }
            Incoming::Sent { task, piece } => self.left(node, task, piece),
            Incoming::Closed(reason) => {
                tracing::debug!(%node, "connection closed: {reason}");
                self.gone(node);
            }
        }
    }

    fn message(&mut self, node: NodeId, body: Body) {
        match body {
            Body::Join(_) | Body::Report(_) | Body::Ask(_) | Body::Leave(_) => self.tell_owned(node, body),
            Body::Partners(_) | Body::Grant(_) | Body::Holders(_) => self.owner_says(node, body),
            Body::Greet(greet) => self.greeted(node, &greet),
            Body::Request(request) => self.requested(node, &request),
            Body::Cancel(cancel) => {
                let Some(task) = wire::task(&cancel.task) else { return };
                let Some(swarm) = self.swarms.get(&task) else { return };
                let Some(piece) = swarm.layout().piece(cancel.piece) else { return };
                self.cancelled(node, task, piece);
            }
            Body::Have(_) | Body::Part(_) | Body::Busy(_) | Body::Missing(_) => self.partner_says(node, body),
            // From its owner to who takes part, or the other way round; who is the owner hears it twice at no harm.
            Body::Claims(_) => {
                self.tell_owned(node, body.clone());
                self.owner_says(node, body);
            }
            Body::Members(members) => {
                // One that does not fit is lost: the next comes soon.
                if self.told.try_send((node, members)).is_err() {
                    tracing::debug!(%node, "a list of members is left aside");
                }
            }
            // The transport's own.
            Body::Hello(_) | Body::Piece(_) => {}
        }
    }

    /// A message to the owner of a task, from a member or from this node itself.
    pub(super) fn tell_owned(&mut self, node: NodeId, body: Body) {
        let now = self.now();
        match body {
            Body::Join(join) => {
                let part = wire::joined(&join);
                let (Some(task), Some((shape, have))) = (wire::task(&join.task), part) else { return };
                let holding = wire::pieces(shape.count, &join.holding);
                if let Some(index) = self.owned.joined(task, shape) {
                    index.join(now, node, have, &holding, join.spare.min(64) as usize);
                }
            }
            Body::Report(report) => self.with_owned(&report.task, |index, count| {
                let (got, failed) = (wire::pieces(count, &report.got), wire::pieces(count, &report.failed));
                index.report(now, node, &got, &failed, report.lonely);
            }),
            Body::Ask(ask) => self.with_owned(&ask.task, |index, count| {
                let (pieces, priority) = (wire::pieces(count, &ask.pieces), wire::priority(ask.priority));
                index.ask(now, node, &pieces, priority, ask.insists);
            }),
            Body::Claims(claims) => self.with_owned(&claims.task, |index, count| {
                index.claimed(node, &wire::claims_in(count, &claims.claims));
            }),
            Body::Leave(leave) => self.with_owned(&leave.task, |index, _| index.leave(node)),
            _ => {}
        }
    }

    fn with_owned(&mut self, task: &[u8], act: impl FnOnce(&mut crate::owner::Index, crate::PieceCount)) {
        if let Some((index, count)) = wire::task(task).and_then(|task| self.owned.get(task)) {
            act(index, count);
        }
    }

    /// A message from the owner of a task; from another node it is left aside.
    fn owner_says(&mut self, from: NodeId, body: Body) {
        let task = match &body {
            Body::Partners(partners) => &partners.task,
            Body::Grant(grant) => &grant.task,
            Body::Holders(holders) => &holders.task,
            Body::Claims(claims) => &claims.task,
            _ => return,
        };
        let Some(task) = wire::task(task) else { return };
        let Some(swarm) = self.swarms.get(&task).filter(|swarm| swarm.owner == Some(from)) else { return };
        let (count, node) = (swarm.layout().count(), self.me);
        let instruction = match body {
            Body::Partners(message) => {
                let partners = message.nodes.iter().filter_map(|named| wire::node(&named.id)).collect();
                Instruction::Partners { node, partners }
            }
            Body::Grant(grant) => {
                let Some(piece) = count.piece(grant.piece) else { return };
                let (priority, term) =
                    (wire::priority(grant.priority), Duration::from_millis(grant.lease_ms.into()));
                Instruction::Grant { node, piece, priority, term }
            }
            Body::Claims(message) => {
                let claims = wire::claims_in(count, &message.claims);
                Instruction::Claims { node, claims }
            }
            Body::Holders(message) => {
                let holder = |holder: &peer::Holder| {
                    Some((count.piece(holder.piece)?, wire::node(&holder.node.as_ref()?.id)?))
                };
                Instruction::Holders { node, holders: message.holders.iter().filter_map(holder).collect() }
            }
            _ => return,
        };
        self.told(task, instruction);
    }

    /// The owner of a task says something to this node.
    pub(super) fn told(&mut self, task: TaskId, instruction: Instruction) {
        let now = self.now();
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        match instruction {
            Instruction::Grant { piece, priority, .. } => swarm.task.granted(now, piece, priority),
            Instruction::Partners { partners, .. } => swarm.task.introduced(&partners),
            Instruction::Holders { holders, .. } => swarm.task.pointed(&holders),
            Instruction::Claims { claims, .. } => self.claims_told(task, &claims),
        }
        self.stirred.insert(task);
    }

    fn greeted(&mut self, node: NodeId, greet: &peer::Greet) {
        let now = self.now();
        let part = wire::greeted(greet);
        let (Some(task), Some((shape, has))) = (wire::task(&greet.task), part) else { return };
        let swarm = self.swarms.get_mut(&task).filter(|swarm| Shape::of(swarm.layout()) == shape);
        let taken = swarm.and_then(|swarm| swarm.task.greeted(now, node, has).then_some(swarm));
        let Some(swarm) = taken else {
            return self.say(node, Body::Part(peer::Part { task: wire::bytes(task) }));
        };
        self.stirred.insert(task);
        if swarm.greeted.insert(node) {
            let answer = wire::greet(task, shape, swarm.task.have());
            self.say(node, answer);
        }
    }

    fn partner_says(&mut self, node: NodeId, body: Body) {
        let now = self.now();
        let task = match &body {
            Body::Have(have) => &have.task,
            Body::Part(part) => &part.task,
            Body::Busy(busy) => &busy.task,
            Body::Missing(missing) => &missing.task,
            _ => return,
        };
        let Some((task, swarm)) = wire::task(task).and_then(|task| Some((task, self.swarms.get_mut(&task)?)))
        else {
            return;
        };
        let count = swarm.layout().count();
        match body {
            Body::Have(have) => {
                let pieces = wire::pieces(count, &have.pieces);
                swarm.task.has(node, pieces.iter().copied());
                self.came(node, task, &pieces);
            }
            Body::Part(_) => {
                swarm.greeted.remove(&node);
                swarm.task.parted(node);
                self.uploads.parted(node, task);
            }
            Body::Busy(busy) => {
                let retry = Duration::from_millis(busy.retry_ms.into()).min(Duration::from_secs(10));
                if let Some(piece) = count.piece(busy.piece) {
                    swarm.task.busy(now, node, piece, retry);
                }
            }
            Body::Missing(missing) => {
                if let Some(piece) = count.piece(missing.piece) {
                    swarm.task.missing(node, piece);
                }
            }
            _ => {}
        }
        self.stirred.insert(task);
    }

    fn requested(&mut self, node: NodeId, request: &peer::Request) {
        let Some(task) = wire::task(&request.task) else { return };
        let swarm = self.swarms.get(&task);
        let piece = swarm.and_then(|swarm| {
            let piece = swarm.layout().piece(request.piece)?;
            let len = swarm.layout().piece_len(piece);
            swarm.task.have().contains(piece).then_some((piece, len, swarm.task.held_by(node)))
        });
        let Some((piece, len, held)) = piece else {
            let (task, piece) = (wire::bytes(task), request.piece);
            return self.say(node, Body::Missing(peer::Missing { task, piece }));
        };
        let upload = Upload { node, task, piece, len, priority: wire::priority(request.priority), held };
        match self.uploads.request(upload) {
            Admission::Queued => {}
            Admission::Instead(other, retry) => self.put_off(other, retry),
            Admission::Busy(retry) => self.put_off(upload, retry),
        }
        self.upload();
    }

    /// Asks a node to come again.
    fn put_off(&mut self, Upload { node, task, piece, .. }: Upload, retry: Duration) {
        self.metrics.busy();
        let (task, piece) = (wire::bytes(task), piece.get());
        self.say(node, Body::Busy(peer::Busy { task, piece, retry_ms: wire::millis(retry) }));
    }
}
