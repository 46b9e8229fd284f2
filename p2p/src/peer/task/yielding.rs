//! Room for what a process waits for, in this task or another, and for a host that has other work.

use std::time::Duration;

use super::Task;
use crate::{
    PieceIndex, Priority,
    peer::{Hold, flow::Flow},
};

/// How far what no process waits for is held back, and when the next piece of it is asked for.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    hold: Hold,
    flow: Flow,
    next: Duration,
}

impl Yielding {
    /// A piece has come from a partner.
    pub(super) fn came(&mut self, now: Duration, len: u32) {
        match self.hold {
            Hold::NONE => self.flow.came(now, len),
            _ => self.flow.begin(now),
        }
    }
}

impl Task {
    /// From now on what no process waits for is held back so far.
    pub fn hold(&mut self, hold: Hold) {
        self.yielding.hold = hold;
    }

    /// Whether a piece that is so urgent is to wait, where else so many may be under way. Fewer are not enough: one partner
    /// after the other may fill the link.
    pub(super) fn must_yield(&self, now: Duration, priority: Priority, underway: usize) -> bool {
        let Yielding { hold, next, .. } = &self.yielding;
        let waits = || now < *next || self.held_underway() >= hold.of(underway);
        *hold != Hold::NONE && self.yields(priority) && waits()
    }

    /// A piece that is so urgent is asked for.
    pub(super) fn yielded(&mut self, now: Duration, priority: Priority, piece: PieceIndex) {
        if self.yields(priority) {
            let rate = self.yielding.hold.rate(self.yielding.flow.rate());
            self.yielding.next = now + rate.time(self.layout.piece_len(piece));
        }
    }

    /// Whether pieces that are so urgent are held back. Where a process waits, what is read ahead in its order is its own.
    fn yields(&self, priority: Priority) -> bool {
        let read = self.wants.urgent().next().is_some_and(|(_, most)| most == Priority::Demand);
        priority < if read { Priority::Trace } else { Priority::ReadAhead }
    }

    /// Pieces under way that are held back.
    fn held_underway(&self) -> usize {
        let priorities = self.flights.requested().filter_map(|piece| self.wants.priority(piece));
        priorities.filter(|priority| self.yields(*priority)).count()
    }
}
