//! Nodes that did not answer are left alone, longer each time.

use std::{collections::HashMap, time::Duration};

use crate::NodeId;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Most nodes that are remembered.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<NodeId, Failure>);

#[derive(Debug, Clone, Copy)]
struct Failure {
    times: u32,
    until: Duration,
}

impl Failures {
    pub(super) fn backing_off(&self, now: Duration, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|failure| now < failure.until)
    }

    pub(super) fn failed(&mut self, now: Duration, node: NodeId) {
        if self.0.len() >= MOST {
            self.0.retain(|_, failure| now < failure.until);
        }
        let times = self.0.get(&node).map_or(0, |failure| failure.times);
        if times == 0 && self.0.len() >= MOST {
            return;
        }
        // Spread by up to a quarter, so that nodes which failed together do not come back together.
        let pause = FIRST.saturating_mul(1 << times.min(6)).min(LONGEST);
        let spread = pause / 4 * u32::from(node.0[31]) / 255;
        self.0.insert(node, Failure { times: times + 1, until: now + pause + spread });
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_an_answer() {
        let (mut failures, node) = (Failures::default(), NodeId([0; 32]));
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            failures.failed(now, node);
            let begin = now;
            while failures.backing_off(now, node) {
                now += Duration::from_millis(100);
            }
            pauses.push((now - begin).as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        failures.failed(now, node);
        failures.forget(node);
        assert!(!failures.backing_off(now, node));
    }

    #[test]
    fn the_number_remembered_is_bounded() {
        let mut failures = Failures::default();
        for number in 0..5000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            failures.failed(Duration::ZERO, NodeId(id));
        }
        assert_eq!(failures.0.len(), MOST);
        failures.failed(Duration::from_mins(1), NodeId([255; 32]));
        assert_eq!(failures.0.len(), 1);
    }
}
