//! The last errors, for `GET /api/v1/daemon/events`.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

const MAX_EVENTS: usize = 500;
const MAX_BYTES: usize = 50 << 10;

/// A ring of the last errors, bounded in number and bytes.
#[derive(Debug, Default)]
pub struct Events {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<String>,
    bytes: usize,
}

impl Events {
    /// Adds one; the oldest ones leave where it is too much.
    pub fn add(&self, event: String) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += event.len();
        ring.events.push_back(event);
        while ring.events.len() > MAX_EVENTS || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.events.pop_front() else { return };
            ring.bytes -= oldest.len();
        }
    }

    /// The last errors, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_in_number_and_bytes() {
        let events = Events::default();
        (0..600).for_each(|n| events.add(n.to_string()));
        assert_eq!(events.all().len(), 500);
        assert_eq!(events.all()[0], "100");
        events.add("x".repeat(MAX_BYTES));
        assert_eq!(events.all().len(), 1);
    }
}
