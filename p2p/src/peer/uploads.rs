//! Whom to send a piece to next.
//!
//! Some pieces are sent at a time: a receiver's link is shared with others that send to it, and one alone would leave this
//! node's link idle in part. With more, each takes long, and few nodes have a whole one to pass on. Who comes when enough
//! are sent and wait is told to ask elsewhere: requests that lie unevenly, many here and none there, are what keeps a swarm
//! from using its links.
//!
//! While a piece is sent that a process waits for, and while this node has reason to yield ([`Uploads::hold`]), what nobody
//! waits for goes slowly: fewer pieces at a time, and those at a part of the rate at which pieces go else.

mod shares;
mod underway;

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use self::{shares::Shares, underway::Underway};
use super::{Hold, flow::Flow};
use crate::{NodeId, PieceIndex, Priority, TaskId, rate::Rate};

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
/// A piece that a process waits for holds up others for so many times the usual time at most: a receiver that is slow
/// leaves the link to them.
const PATIENCE: u32 = 2;
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
    shares: Shares,
    flow: Flow,
    hold: Hold,
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
            shares: Shares::default(),
            flow: Flow::default(),
            hold: Hold::NONE,
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
        let mine = self.claim(&upload);
        let claims = self.waiting.iter().enumerate().map(|(place, other)| (self.claim(other), place));
        match claims.min_by_key(|(claim, _)| *claim) {
            Some((theirs, place)) if theirs < mine => {
                Admission::Instead(std::mem::replace(&mut self.waiting[place], upload), retry)
            }
            _ => Admission::Busy(retry),
        }
    }

    /// From now on what nobody waits for is held back so far.
    pub fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// How fast the pieces may go together that no process waits for.
    #[must_use]
    pub fn pace(&self, now: Duration) -> Rate {
        self.held(now).rate(self.flow.rate())
    }

    /// Whether a piece is being sent that a process waits for.
    #[must_use]
    pub fn has_urgent(&self, now: Duration) -> bool {
        self.underway.has_urgent(now, self.usual.max(FIRST) * PATIENCE)
    }

    fn held(&self, now: Duration) -> Hold {
        if self.has_urgent(now) { Hold::MOST } else { self.hold }
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
        let (place, best) = places.max_by_key(|(place, upload)| (self.claim(upload), Reverse(*place)))?;
        let urgent = best.priority == Priority::Demand;
        if self.underway.len() >= self.window + if urgent { MOST_SENT_URGENT } else { 0 } {
            return None;
        }
        if !urgent && self.underway.behind() >= self.held(now).of(self.window) {
            return None;
        }
        let upload = self.waiting.remove(place);
        self.underway.begin(now, &upload);
        let wanting = self.waiting.iter().map(|other| other.task);
        self.shares.begins(upload.task, (upload.len, upload.priority), wanting);
        Some(upload)
    }

    /// This node does not take part in a task any more.
    pub fn left_task(&mut self, task: TaskId) {
        self.shares.forget(task);
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
        let free = self.held(now) == Hold::NONE;
        let Some((len, took)) = self.underway.came(now, (node, task, piece.get())) else { return };
        match free {
            true => self.flow.came(now, len),
            false => self.flow.begin(now),
        }
        self.window = (self.window + 1).min(MOST_SENT);
        self.usual = (self.usual * 7 + took) / 8;
        // A newcomer starts level with whoever got least, or it would have all turns until it caught up.
        let least = self.served.values().min().copied().unwrap_or(0);
        *self.served.entry(node).or_insert(least) += u64::from(len);
    }

    /// What a request has for it; greater ones go first: what is needed at once, then the task that got least, and in it the
    /// most urgent and the node that has least.
    fn claim(&self, upload: &Upload) -> Claim {
        let needed = upload.priority.max(Priority::Trace);
        let served = self.served.get(&upload.node).copied().unwrap_or(0);
        let got = Reverse(self.shares.got(upload.task));
        (needed, got, upload.priority, Reverse(upload.held), Reverse(served))
    }
}

type Claim = (Priority, Reverse<u64>, Priority, Reverse<u32>, Reverse<u64>);

#[cfg(test)]
mod tests;
