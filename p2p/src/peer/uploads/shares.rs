//! Which task is next: who got the fewest bytes.
//!
//! Start-time fair queueing: what a task got counts from where the least served of those that want something stood. A task
//! that comes new or back neither catches up nor falls behind.

use std::collections::HashMap;

use crate::{Priority, TaskId};

/// Bytes of which nobody knows when they are read count so many times: whoever has an order to read in gets more of the
/// link, and nobody nothing.
const BACKGROUND: u64 = 4;

/// What each task got.
#[derive(Debug, Default)]
pub(super) struct Shares {
    got: HashMap<TaskId, u64>,
    /// Where the least served stood lately of those that want something.
    level: u64,
}

impl Shares {
    /// What counts as a task's; who has less goes first.
    pub(super) fn got(&self, task: TaskId) -> u64 {
        self.got.get(&task).copied().unwrap_or(0).max(self.level)
    }

    /// A piece of a task begins to go, while these tasks want something.
    pub(super) fn begins(
        &mut self,
        task: TaskId,
        (len, priority): (u32, Priority),
        wanting: impl Iterator<Item = TaskId>,
    ) {
        let got = self.got(task);
        self.level = wanting.map(|other| self.got(other)).min().unwrap_or(got).min(got);
        let weight = if priority == Priority::Background { BACKGROUND } else { 1 };
        self.got.insert(task, got + u64::from(len) * weight);
    }

    /// Nothing of a task goes any more.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.got.remove(&task);
    }
}
