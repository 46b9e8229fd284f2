//! Which connections there are: one for each other node, whoever dialed. Told the time; touches no socket.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    super::{
        Closed, Refused,
        connection::{Stop, Used},
        outbox::Outbox,
    },
    backoff::Failures,
};
use crate::NodeId;

/// A connection may be given up for another one when it was not used for so long.
const UNUSED: Duration = Duration::from_secs(10);

/// The table of connections.
#[derive(Debug)]
pub(super) struct Slots {
    me: NodeId,
    most: usize,
    slots: HashMap<NodeId, Slot>,
    failures: Failures,
    next: u64,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    phase: Phase,
    link: Link,
    /// Told when the connection is over and has said so.
    over: Option<oneshot::Receiver<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Dialing,
    Open { by_me: bool, boot: u64 },
}

/// What a connection and its slot share.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) outbox: Arc<Outbox>,
    pub(super) stop: Stop,
    pub(super) used: Used,
}

/// A dial that is to be made.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) number: u64,
    pub(super) link: Link,
}

/// A connection that is to be served.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) link: Link,
    /// To wait for: the connection that this one replaces.
    pub(super) previous: Option<oneshot::Receiver<()>>,
    /// Whether somebody hears of its end even if it does not begin.
    pub(super) awaited: bool,
    /// To be dropped when the connection is over and has said so.
    pub(super) over: oneshot::Sender<()>,
}

impl Slots {
    pub(super) fn new(me: NodeId, most: usize) -> Self {
        Self { me, most, slots: HashMap::new(), failures: Failures::default(), next: 0 }
    }

    /// Begins to dial a node; `None` where that is done already.
    pub(super) fn dial(&mut self, now: Duration, node: NodeId) -> Result<Option<Dial>, Refused> {
        if node == self.me {
            return Err(Refused::Myself);
        }
        if self.slots.contains_key(&node) {
            return Ok(None);
        }
        if self.failures.backing_off(now, node) {
            return Err(Refused::BackingOff);
        }
        if !self.make_room(now) {
            return Err(Refused::Crowded);
        }
        let (number, link) = (self.number(), Link::default());
        link.used.at(now);
        self.slots.insert(node, Slot { number, phase: Phase::Dialing, link: link.clone(), over: None });
        Ok(Some(Dial { number, link }))
    }

    /// A dial has succeeded; `None` where nobody wants it any more.
    pub(super) fn dialed(&mut self, node: NodeId, number: u64, boot: u64) -> Option<Opened> {
        self.failures.forget(node);
        let slot = self.slots.get_mut(&node).filter(|slot| slot.number == number)?;
        slot.phase = Phase::Open { by_me: true, boot };
        let (over, ended) = oneshot::channel();
        slot.over = Some(ended);
        Some(Opened { number, link: slot.link.clone(), previous: None, awaited: true, over })
    }

    /// A node has dialed this one, `boot` being its process; `None` where that connection is not wanted.
    ///
    /// When both dial at once, both keep the connection that the lower of them dialed.
    pub(super) fn arrived(&mut self, now: Duration, node: NodeId, boot: u64) -> Option<Opened> {
        if node == self.me {
            return None;
        }
        self.failures.forget(node);
        let existing = self.slots.get(&node).map(|slot| slot.phase);
        let wanted = match existing {
            None => self.make_room(now),
            Some(Phase::Dialing) => node < self.me,
            // A process that has restarted has none of its old connections; one that dials again has lost it.
            Some(Phase::Open { by_me, boot: known }) => !by_me || boot != known || node < self.me,
        };
        if !wanted {
            return None;
        }
        Some(self.replace(now, node, Phase::Open { by_me: false, boot }))
    }

    /// A node was met at an address, whoever it turned out to be; `None` where that connection is not wanted.
    pub(super) fn met(&mut self, now: Duration, node: NodeId, boot: u64) -> Option<Opened> {
        self.failures.forget(node);
        if node == self.me || !self.slots.contains_key(&node) && !self.make_room(now) {
            return None;
        }
        // The other side has taken this one for the newer of two dials.
        Some(self.replace(now, node, Phase::Open { by_me: true, boot }))
    }

    fn replace(&mut self, now: Duration, node: NodeId, phase: Phase) -> Opened {
        let (number, (over, ended)) = (self.number(), oneshot::channel());
        let mut link = Link::default();
        let (mut previous, mut awaited) = (None, false);
        if let Some(old) = self.slots.remove(&node) {
            if let Phase::Dialing = old.phase {
                // What waits for the dial goes over this connection.
                link.outbox = old.link.outbox;
                awaited = true;
            }
            previous = old.over;
            old.link.stop.because(Closed::Replaced);
        }
        link.used.at(now);
        self.slots.insert(node, Slot { number, phase, link: link.clone(), over: Some(ended) });
        Opened { number, link, previous, awaited, over }
    }

    /// A dial has failed; says whether anybody still waited for it.
    pub(super) fn failed(&mut self, now: Duration, node: NodeId, number: u64) -> bool {
        let waited = self.ended(node, number);
        if waited {
            self.failures.failed(now, node);
        }
        waited
    }

    /// A connection is over; says whether it had not been replaced.
    pub(super) fn ended(&mut self, node: NodeId, number: u64) -> bool {
        let current = self.slots.get(&node).is_some_and(|slot| slot.number == number);
        if current {
            self.slots.remove(&node);
        }
        current
    }

    /// The connection to a node, made or being made.
    pub(super) fn link(&self, node: NodeId) -> Option<&Link> {
        self.slots.get(&node).map(|slot| &slot.link)
    }

    /// How many connections there are, or are being made.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is room for one more, if need be when one that is not used ends.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.slots.len() < self.most {
            return true;
        }
        let unused = |slot: &Slot| now.saturating_sub(slot.link.used.last()) >= UNUSED;
        // One that ends keeps its slot a moment longer: no more than half as many again are ending at once.
        let open =
            self.slots.values().filter(|slot| matches!(slot.phase, Phase::Open { .. }) && unused(slot));
        let Some(oldest) = open.min_by_key(|slot| slot.link.used.last()) else { return false };
        oldest.link.stop.because(Closed::Unused);
        // Not chosen twice.
        oldest.link.used.at(now);
        self.slots.len() < self.most + self.most / 2
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_mins(1);
    const LOW: NodeId = NodeId([1; 32]);
    const ME: NodeId = NodeId([5; 32]);
    const HIGH: NodeId = NodeId([9; 32]);

    fn slots() -> Slots {
        Slots::new(ME, 2)
    }

    #[test]
    fn a_node_is_dialed_once() {
        let mut slots = slots();
        let dial = slots.dial(NOW, LOW).unwrap().unwrap();
        assert!(slots.dial(NOW, LOW).unwrap().is_none());
        assert!(slots.dialed(LOW, dial.number, 7).is_some());
        assert!(slots.dial(NOW, LOW).unwrap().is_none());
        assert_eq!(slots.dial(NOW, ME).unwrap_err(), Refused::Myself);
    }

    #[test]
    fn when_both_dial_the_lower_ones_dial_wins() {
        let mut slots = slots();
        let mine = slots.dial(NOW, LOW).unwrap().unwrap();
        let theirs = slots.arrived(NOW, LOW, 7).unwrap();
        assert!(Arc::ptr_eq(&mine.link.outbox, &theirs.link.outbox), "what waits goes over theirs");
        assert!(slots.dialed(LOW, mine.number, 7).is_none() && !slots.failed(NOW, LOW, mine.number));

        let mine = slots.dial(NOW, HIGH).unwrap().unwrap();
        assert!(slots.arrived(NOW, HIGH, 7).is_none());
        assert!(slots.dialed(HIGH, mine.number, 7).is_some());
    }

    #[test]
    fn an_open_connection_is_replaced_when_the_other_must_have_lost_it() {
        let mut slots = slots();
        let dial = slots.dial(NOW, HIGH).unwrap().unwrap();
        slots.dialed(HIGH, dial.number, 7).unwrap();
        assert!(slots.arrived(NOW, HIGH, 7).is_none(), "the loser of a tie");
        let first = slots.arrived(NOW, HIGH, 8).expect("it has restarted");
        assert!(first.previous.is_some());
        let second = slots.arrived(NOW, HIGH, 8).expect("it dials again");
        assert!(!slots.ended(HIGH, first.number) && slots.ended(HIGH, second.number));
    }

    #[test]
    fn a_node_that_does_not_answer_is_left_alone_for_a_while() {
        let mut slots = slots();
        let dial = slots.dial(NOW, LOW).unwrap().unwrap();
        assert!(slots.failed(NOW, LOW, dial.number));
        assert_eq!(slots.dial(NOW, LOW).unwrap_err(), Refused::BackingOff);
        assert!(slots.arrived(NOW, LOW, 7).is_some(), "it may come by itself");
        let later = NOW + Duration::from_mins(1);
        let dial = slots.dial(later, HIGH).unwrap().unwrap();
        assert!(slots.failed(later, HIGH, dial.number));
        assert!(slots.dial(later + Duration::from_mins(1), HIGH).unwrap().is_some());
    }

    #[test]
    fn the_number_is_bounded_and_what_is_unused_makes_room() {
        let mut slots = slots();
        let first = slots.arrived(NOW, LOW, 1).unwrap();
        slots.arrived(NOW, HIGH, 1).unwrap();
        let third = NodeId([3; 32]);
        assert_eq!(slots.dial(NOW, third).unwrap_err(), Refused::Crowded);
        assert!(slots.arrived(NOW, third, 1).is_none());
        let later = NOW + UNUSED;
        slots.link(HIGH).unwrap().used.at(later);
        assert!(slots.dial(later, third).unwrap().is_some());
        assert!(slots.ended(LOW, first.number) && slots.len() == 2);
    }
}
