//! What happens when, in virtual time.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Events by time; those of the same instant in the order in which they were added.
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Timed<E>>>,
    added: u64,
}

struct Timed<E> {
    at: f64,
    order: u64,
    event: E,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }
}

impl<E> Agenda<E> {
    /// Adds an event, in seconds since the start.
    pub(crate) fn add(&mut self, at: f64, event: E) {
        self.added += 1;
        self.heap.push(Reverse(Timed { at, order: self.added, event }));
    }

    /// Takes the next event, and when it happens.
    pub(crate) fn next(&mut self) -> Option<(f64, E)> {
        self.heap.pop().map(|Reverse(timed)| (timed.at, timed.event))
    }
}

impl<E> PartialEq for Timed<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Timed<E> {}

impl<E> PartialOrd for Timed<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Timed<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.order.cmp(&other.order))
    }
}
