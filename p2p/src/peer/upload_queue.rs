//! Whom to send a piece to next.
//!
//! As few pieces are sent at a time as fill the link: a piece that is whole can be passed on, ten that are half sent
//! cannot. But receivers are often slower than the link, since others send to them too; then one more is begun. Who comes
//! when enough already wait is told to ask elsewhere rather than to wait.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use crate::{NodeId, PieceIndex, Priority, TaskId};

/// Urgent requests that may wait.
const MOST_URGENT: usize = 64;
/// Others that may wait.
const MOST_WAIT: usize = 3;
/// Pieces that are sent at a time at most, however slow the receivers.
const MOST_SENT: usize = 8;
/// How long a piece takes to send, before any was.
const FIRST: Duration = Duration::from_millis(50);

/// A piece to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// To whom.
    pub node: NodeId,
    /// Of what.
    pub task: TaskId,
    /// Which piece.
    pub piece: PieceIndex,
    /// How urgent it is to them.
    pub priority: Priority,
    /// How many pieces they have. Who has few goes first: all are to finish together, and who has few has few to give.
    pub held: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits for its turn.
    Queued,
    /// It waits for its turn, and another, of a node that got more, does not any more: that one is to be told
    /// [`Self::Busy`] with this time.
    Instead(Upload, Duration),
    /// Too many wait; a place should be free after this time.
    Busy(Duration),
}

/// Requests that wait, and how many are being sent.
#[derive(Debug)]
pub struct UploadQueue {
    sending: usize,
    waiting: Vec<Upload>,
    /// Bytes sent to each node, less what all have got: who has the least is next.
    served: HashMap<NodeId, u64>,
    usual: Duration,
}

impl Default for UploadQueue {
    fn default() -> Self {
        Self { sending: 0, waiting: Vec::new(), served: HashMap::new(), usual: FIRST }
    }
}

impl UploadQueue {
    /// Takes a request, or says when to come again.
    pub fn request(&mut self, upload: Upload) -> Admission {
        let same = |other: &Upload| {
            (other.node, other.task, other.piece) == (upload.node, upload.task, upload.piece)
        };
        if let Some(known) = self.waiting.iter_mut().find(|other| same(other)) {
            known.priority = known.priority.max(upload.priority);
            return Admission::Queued;
        }
        let most = if upload.priority == Priority::Demand { MOST_URGENT } else { MOST_WAIT };
        if self.waiting.len() < most {
            self.waiting.push(upload);
            return Admission::Queued;
        }
        let retry = self.usual / 2;
        // Chance alone would serve some nodes again and again: who got less goes before who got more.
        let mine = claim(&self.served, &upload);
        let claims = self.waiting.iter_mut().map(|other| (claim(&self.served, other), other));
        match claims.min_by_key(|(claim, _)| *claim) {
            Some((theirs, other)) if theirs < mine => {
                Admission::Instead(std::mem::replace(other, upload), retry)
            }
            _ => Admission::Busy(retry),
        }
    }

    /// Forgets a request that was not begun; says whether there was one.
    pub fn cancel(&mut self, node: NodeId, task: TaskId, piece: PieceIndex) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|other| (other.node, other.task, other.piece) != (node, task, piece));
        self.waiting.len() < before
    }

    /// Forgets all requests of a node.
    pub fn forget(&mut self, node: NodeId) {
        self.waiting.retain(|other| other.node != node);
        self.served.remove(&node);
    }

    /// What to begin to send now: the most urgent, to the node that has least. Nothing where the pieces that are being sent
    /// are enough: one, or more while they leave the link `idle` in part. [`Self::sent`] ends each.
    pub fn next(&mut self, idle: bool) -> Option<Upload> {
        let enough = if idle { MOST_SENT } else { 1 };
        if self.sending >= enough {
            return None;
        }
        let places = self.waiting.iter().enumerate();
        let best = places.max_by_key(|(place, upload)| (claim(&self.served, upload), Reverse(*place)))?;
        let upload = self.waiting.remove(best.0);
        self.sending += 1;
        Some(upload)
    }

    /// A piece of `len` bytes was sent, or failed on the way (`len` 0), after `took`.
    pub fn sent(&mut self, node: NodeId, len: u32, took: Duration) {
        self.sending = self.sending.saturating_sub(1);
        if len == 0 {
            return;
        }
        self.usual = (self.usual * 7 + took) / 8;
        // A newcomer starts level with whoever got least, or it would have all turns until it caught up.
        let least = self.served.values().min().copied().unwrap_or(0);
        *self.served.entry(node).or_insert(least) += u64::from(len);
    }
}

/// What a request has for it; greater ones go first.
fn claim(served: &HashMap<NodeId, u64>, upload: &Upload) -> (Priority, Reverse<u32>, Reverse<u64>) {
    let served = served.get(&upload.node).copied().unwrap_or(0);
    (upload.priority, Reverse(upload.held), Reverse(served))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PieceLayout, Vouch};

    fn upload(node: u8, number: u32, priority: Priority) -> Upload {
        let piece = PieceLayout::new(100 << 20, 1 << 20).unwrap().piece(number).unwrap();
        Upload { node: NodeId([node; 32]), task: TaskId::of(Vouch::Url("x")), piece, priority, held: 0 }
    }

    #[test]
    fn urgent_requests_go_first_and_are_taken_when_others_are_not() {
        let mut queue = UploadQueue::default();
        for node in 1..=3 {
            assert_eq!(queue.request(upload(node, 0, Priority::Trace)), Admission::Queued);
        }
        assert!(matches!(queue.request(upload(4, 2, Priority::Trace)), Admission::Busy(_)));
        assert_eq!(queue.request(upload(4, 2, Priority::Demand)), Admission::Queued);
        assert_eq!(queue.next(false).unwrap().node, NodeId([4; 32]));
    }

    #[test]
    fn one_piece_is_sent_at_a_time_and_more_while_the_link_is_idle() {
        let mut queue = UploadQueue::default();
        (1..=3).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
        assert!(queue.next(false).is_some());
        assert_eq!(queue.next(false), None);
        let second = queue.next(true).unwrap();
        queue.sent(second.node, 1 << 20, FIRST);
        assert_eq!(queue.next(false), None);
        assert!(queue.next(true).is_some());
    }

    #[test]
    fn who_has_least_takes_the_place_of_who_has_more() {
        let mut queue = UploadQueue::default();
        let held = |node, held| Upload { held, ..upload(node, 0, Priority::Background) };
        (1..=3).for_each(|node| _ = queue.request(held(node, 10)));
        assert!(matches!(queue.request(held(4, 10)), Admission::Busy(_)));
        assert!(matches!(queue.request(held(5, 2)), Admission::Instead(other, _) if other.held == 10));
        assert_eq!(queue.next(false).unwrap().node, NodeId([5; 32]));
    }

    #[test]
    fn between_equals_who_got_least_is_next() {
        let mut queue = UploadQueue::default();
        for (node, mib) in [(1, 1), (2, 1), (2, 1)] {
            queue.sent(NodeId([node; 32]), mib << 20, FIRST);
        }
        [2, 1, 3].iter().for_each(|node| _ = queue.request(upload(*node, 5, Priority::Background)));
        let order: Vec<_> = std::iter::from_fn(|| queue.next(true)).map(|upload| upload.node.0[0]).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn a_request_asked_for_twice_waits_once_and_goes_when_cancelled() {
        let mut queue = UploadQueue::default();
        queue.request(upload(1, 0, Priority::Background));
        queue.request(upload(1, 0, Priority::Demand));
        let Upload { node, task, piece, .. } = upload(1, 0, Priority::Demand);
        assert!(queue.cancel(node, task, piece));
        assert_eq!(queue.next(true), None);
    }
}
