//! What happens when, in virtual time.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

/// Length of a slice of time, in seconds: short enough that few events are in one.
const SLICE: f64 = 0.000_25;
/// Slices that are kept apart; what comes later waits in a heap.
const SLICES: u64 = 4096;

/// Events by time; those of the same instant in the order in which they were added.
///
/// With ten thousand nodes millions of events wait, most of them for a moment: a heap of all would be far larger than
/// the processor's caches. Only the events of the present slice of time are sorted.
pub(crate) struct Agenda<E> {
    /// Number of the present slice.
    present: u64,
    now: BinaryHeap<Reverse<Timed<E>>>,
    /// The slices after the present one.
    soon: VecDeque<Vec<Timed<E>>>,
    later: BinaryHeap<Reverse<Timed<E>>>,
    waiting: usize,
    added: u64,
}

struct Timed<E> {
    at: f64,
    order: u64,
    event: E,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self {
            present: 0,
            now: BinaryHeap::new(),
            soon: (0..SLICES).map(|_| Vec::new()).collect(),
            later: BinaryHeap::new(),
            waiting: 0,
            added: 0,
        }
    }
}

impl<E> Agenda<E> {
    /// Adds an event, in seconds since the start.
    pub(crate) fn add(&mut self, at: f64, event: E) {
        self.added += 1;
        self.waiting += 1;
        self.file(Timed { at, order: self.added, event });
    }

    /// Takes the next event, and when it happens.
    pub(crate) fn next(&mut self) -> Option<(f64, E)> {
        while self.now.is_empty() && self.waiting > 0 {
            self.advance();
        }
        let Reverse(timed) = self.now.pop()?;
        self.waiting -= 1;
        Some((timed.at, timed.event))
    }

    fn file(&mut self, timed: Timed<E>) {
        let ahead = slice(timed.at).saturating_sub(self.present);
        if ahead == 0 {
            self.now.push(Reverse(timed));
        } else if ahead <= SLICES {
            self.soon[slot(ahead - 1)].push(timed);
        } else {
            self.later.push(Reverse(timed));
        }
    }

    /// Goes on to the next slice of time.
    fn advance(&mut self) {
        self.present += 1;
        let begins = self.soon.pop_front().unwrap_or_default();
        self.now.extend(begins.into_iter().map(Reverse));
        self.soon.push_back(Vec::new());
        while self.later.peek().is_some_and(|Reverse(timed)| slice(timed.at) <= self.present + SLICES) {
            let Some(Reverse(timed)) = self.later.pop() else { return };
            self.file(timed);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive, and short")]
fn slice(at: f64) -> u64 {
    (at / SLICE) as u64
}

#[allow(clippy::cast_possible_truncation, reason = "less than SLICES")]
const fn slot(ahead: u64) -> usize {
    ahead as usize
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_those_of_an_instant_as_they_were_added() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut agenda = Agenda::default();
        let mut waiting = Vec::new();
        let mut now = 0.0;
        for number in 0..3_000 {
            // Some of the same instant, some in one slice, some behind all slices.
            let at = now + f64::from(random.u32(..3)) * 10_f64.powi(random.i32(-6..2));
            agenda.add(at, number);
            waiting.push((at, number));
            if random.u32(..10) < 9 {
                waiting.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
                let first = waiting.remove(0);
                assert_eq!(agenda.next(), Some(first));
                now = first.0;
            }
        }
        assert_eq!(std::iter::from_fn(|| agenda.next()).count(), waiting.len());
    }
}
