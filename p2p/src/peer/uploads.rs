//! Whom to send a piece to next.
//!
//! Some pieces are sent at a time: a receiver's link is shared with others that send to it, and one alone would leave this
//! node's link idle in part. With more, each takes long, and few nodes have a whole one to pass on. Who comes when enough
//! are sent and wait is told to ask elsewhere: requests that lie unevenly, many here and none there, are what keeps a swarm
//! from using its links.

mod underway;

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use self::underway::Underway;

use crate::{NodeId, PieceIndex, Priority, TaskId};

/// Urgent requests that may wait.
const MOST_URGENT: usize = 64;
/// Others that may wait.
const MOST_WAIT: usize = 2;
/// Pieces that are sent at a time. With those that wait it is a little more than a node asks for at a time, as all together
/// ask for as much as all can send. (Found by `cargo xtask sim`: 6 and 8 are worse by some percent, 4 and 12 by more.) It
/// begins with one: what a slow node alone has is soon whole elsewhere.
const MOST_SENT: usize = 7;
/// Further ones that a process waits for.
const MOST_SENT_URGENT: usize = 8;
/// A piece of which nobody says that it came holds its place for so many times the usual time,
const LOST: u32 = 8;
/// but for this at least: on a slow link the first ones take seconds.
const LEAST_LOST: Duration = Duration::from_secs(10);
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
    /// How long it is, in bytes.
    pub len: u32,
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

/// Requests that wait, and the pieces that are being sent.
#[derive(Debug)]
pub struct Uploads {
    underway: Underway,
    waiting: Vec<Upload>,
    /// Bytes sent to each node, less what all have got: who has the least is next.
    served: HashMap<NodeId, u64>,
    usual: Duration,
    /// Pieces that may be sent at a time.
    window: usize,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            underway: Underway::default(),
            waiting: Vec::new(),
            served: HashMap::new(),
            usual: FIRST,
            window: 1,
        }
    }
}

impl Uploads {
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

    /// A request is called off. Says whether it was waiting: if not, its piece may be on its way.
    pub fn cancel(&mut self, node: NodeId, task: TaskId, piece: PieceIndex) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|other| (other.node, other.task, other.piece) != (node, task, piece));
        self.waiting.len() < before
    }

    /// A node does not take part in a task any more: it says of nothing that it has come.
    pub fn parted(&mut self, node: NodeId, task: TaskId) {
        self.waiting.retain(|other| (other.node, other.task) != (node, task));
        self.underway.call_off_all(node, task);
    }

    /// A node is gone, and with it all that was sent to it.
    pub fn gone(&mut self, node: NodeId) {
        self.waiting.retain(|other| other.node != node);
        self.underway.gone(node);
        self.served.remove(&node);
    }

    /// What to begin to send now: the most urgent, to the node that has least. Nothing where the pieces that are being sent
    /// are enough.
    pub fn next(&mut self, now: Duration) -> Option<Upload> {
        if self.underway.give_up(now, (self.usual * LOST).max(LEAST_LOST)) {
            self.window = 1;
        }
        let places = self.waiting.iter().enumerate();
        let (place, best) =
            places.max_by_key(|(place, upload)| (claim(&self.served, upload), Reverse(*place)))?;
        let urgent = best.priority == Priority::Demand;
        if self.underway.len() >= self.window + if urgent { MOST_SENT_URGENT } else { 0 } {
            return None;
        }
        let upload = self.waiting.remove(place);
        self.underway.begin(now, &upload);
        Some(upload)
    }

    /// Whether nothing waits and nothing is on its way.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.waiting.is_empty() && self.underway.len() == 0
    }

    /// A piece has left this node, but for what the network holds of it.
    pub fn left(&mut self, node: NodeId, task: TaskId, piece: u32) {
        self.underway.left((node, task, piece));
    }

    /// A piece is not waited for any more: when all of it has left, its turn is over.
    pub fn called_off(&mut self, node: NodeId, task: TaskId, piece: u32) {
        self.underway.call_off((node, task, piece));
    }

    /// A piece was not sent after all.
    pub fn failed(&mut self, node: NodeId, task: TaskId, piece: u32) {
        self.underway.forget((node, task, piece));
    }

    /// A node has a piece: if this node sent it, that is over.
    pub fn came(&mut self, now: Duration, node: NodeId, task: TaskId, piece: PieceIndex) {
        let Some((len, took)) = self.underway.came(now, (node, task, piece.get())) else { return };
        self.window = (self.window + 1).min(MOST_SENT);
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
        Upload {
            node: NodeId([node; 32]),
            task: TaskId::of(Vouch::Url("x")),
            piece,
            len: 1 << 20,
            priority,
            held: 0,
        }
    }

    #[test]
    fn urgent_requests_go_first_and_are_taken_when_others_are_not() {
        let mut queue = Uploads::default();
        for node in 1..=2 {
            assert_eq!(queue.request(upload(node, 0, Priority::Trace)), Admission::Queued);
        }
        assert!(matches!(queue.request(upload(4, 2, Priority::Trace)), Admission::Busy(_)));
        assert_eq!(queue.request(upload(4, 2, Priority::Demand)), Admission::Queued);
        assert_eq!(queue.next(Duration::ZERO).unwrap().node, NodeId([4; 32]));
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Begins to send as many as may be sent at a time, but for one.
    fn almost_full() -> Uploads {
        let mut queue = Uploads::default();
        let mut begin = |node: u8| {
            queue.request(upload(node, 0, Priority::Trace));
            let begun = queue.next(SECOND).unwrap();
            (node > 200).then(|| queue.came(SECOND, begun.node, begun.task, begun.piece));
        };
        (201..).take(MOST_SENT).for_each(&mut begin);
        (101..).take(MOST_SENT - 1).for_each(&mut begin);
        queue
    }

    #[test]
    fn it_begins_with_one_and_sends_more_as_pieces_come() {
        let mut queue = Uploads::default();
        (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
        let first = queue.next(SECOND).unwrap();
        assert_eq!(queue.next(SECOND), None);
        queue.came(SECOND, first.node, first.task, first.piece);
        queue.request(upload(3, 0, Priority::Trace));
        assert!(queue.next(SECOND).is_some() && queue.next(SECOND).is_some());
        queue.next(SECOND * 60);
        (4..=5).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
        assert!(queue.next(SECOND * 60).is_some());
        assert_eq!(queue.next(SECOND * 60), None, "what was lost tells that the link is slow");
    }

    #[test]
    fn a_few_pieces_are_sent_at_a_time_and_more_where_a_process_waits() {
        let mut queue = almost_full();
        (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
        assert!(queue.next(SECOND).is_some());
        assert_eq!(queue.next(SECOND), None);
        queue.request(upload(3, 0, Priority::Demand));
        assert_eq!(queue.next(SECOND).unwrap().node, NodeId([3; 32]));
        assert_eq!(queue.next(SECOND), None);
    }

    #[test]
    fn a_piece_holds_its_place_until_it_has_come_or_left_for_nothing_or_is_lost() {
        let end = |end: &dyn Fn(&mut Uploads, Upload)| {
            let mut queue = almost_full();
            (1..=2).for_each(|node| _ = queue.request(upload(node, 0, Priority::Trace)));
            let first = queue.next(SECOND).unwrap();
            assert_eq!(queue.next(SECOND), None);
            end(&mut queue, first);
            assert!(queue.next(SECOND).is_some(), "the place is free");
        };
        end(&|queue, first| queue.came(SECOND, first.node, first.task, first.piece));
        end(&|queue, first| queue.gone(first.node));
        end(&|queue, first| queue.failed(first.node, first.task, first.piece.get()));
        end(&|queue, first| {
            queue.left(first.node, first.task, first.piece.get());
            assert_eq!(queue.next(SECOND), None, "it may be on its way");
            queue.called_off(first.node, first.task, first.piece.get());
        });
        end(&|queue, first| {
            queue.parted(first.node, first.task);
            assert_eq!(queue.next(SECOND), None, "part of it may be on its way");
            queue.left(first.node, first.task, first.piece.get());
        });
        let mut queue = almost_full();
        queue.next(SECOND * 60);
        assert!(queue.are_none(), "those that never come are given up");
    }

    #[test]
    fn who_has_least_takes_the_place_of_who_has_more() {
        let mut queue = Uploads::default();
        let held = |node, held| Upload { held, ..upload(node, 0, Priority::Background) };
        (1..=2).for_each(|node| _ = queue.request(held(node, 10)));
        assert!(matches!(queue.request(held(4, 10)), Admission::Busy(_)));
        assert!(matches!(queue.request(held(5, 2)), Admission::Instead(other, _) if other.held == 10));
        assert_eq!(queue.next(Duration::ZERO).unwrap().node, NodeId([5; 32]));
    }

    #[test]
    fn between_equals_who_got_least_is_next() {
        let mut queue = Uploads::default();
        let send = |queue: &mut Uploads| {
            let sent = queue.next(Duration::ZERO)?;
            queue.came(FIRST, sent.node, sent.task, sent.piece);
            Some(sent.node.0[0])
        };
        for node in [1, 2, 2] {
            queue.request(upload(node, 0, Priority::Background));
            send(&mut queue);
        }
        [2, 1].iter().for_each(|node| _ = queue.request(upload(*node, 5, Priority::Background)));
        let order: Vec<_> = std::iter::from_fn(|| send(&mut queue)).collect();
        assert_eq!(order, [1, 2]);
    }

    #[test]
    fn a_request_asked_for_twice_waits_once_and_goes_when_cancelled() {
        let mut queue = Uploads::default();
        queue.request(upload(1, 0, Priority::Background));
        queue.request(upload(1, 0, Priority::Demand));
        let Upload { node, task, piece, .. } = upload(1, 0, Priority::Demand);
        assert!(queue.cancel(node, task, piece));
        assert_eq!(queue.next(Duration::ZERO), None);
    }
}
