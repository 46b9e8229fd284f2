//! The tasks that this node keeps order in.

use std::{collections::HashMap, time::Duration};

use crate::{
    NodeId, PieceCount, TaskId,
    owner::{Index, Instruction},
};

use super::wire::Shape;

/// Time between two looks at leases and silent members.
const TICK: Duration = Duration::from_millis(50);
/// Tasks at most: members beyond them are not heard.
const MOST: usize = 4096;

#[derive(Debug)]
struct Owned {
    index: Index,
    shape: Shape,
}

/// The tasks that this node keeps order in.
#[derive(Debug)]
pub(super) struct OwnedTasks {
    tasks: HashMap<TaskId, Owned>,
    ticked: Duration,
    random: fastrand::Rng,
}

impl OwnedTasks {
    pub(super) fn new(seed: u64) -> Self {
        Self { tasks: HashMap::new(), ticked: Duration::ZERO, random: fastrand::Rng::with_seed(seed) }
    }

    /// The index of a task that somebody joins, if it is laid out as others say.
    pub(super) fn joined(&mut self, task: TaskId, shape: Shape) -> Option<&mut Index> {
        if !self.tasks.contains_key(&task) && self.tasks.len() >= MOST {
            return None;
        }
        let seed = self.random.u64(..);
        let owned =
            self.tasks.entry(task).or_insert_with(|| Owned { index: Index::new(shape.count, seed), shape });
        (owned.shape == shape).then_some(&mut owned.index)
    }

    /// The index of a task that somebody is in.
    pub(super) fn get(&mut self, task: TaskId) -> Option<(&mut Index, PieceCount)> {
        self.tasks.get_mut(&task).map(|owned| (&mut owned.index, owned.shape.count))
    }

    /// A node is gone.
    pub(super) fn gone(&mut self, node: NodeId) {
        self.tasks.values_mut().for_each(|owned| owned.index.leave(node));
    }

    /// Whether anything may happen without a message.
    pub(super) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Duration) {
        if now.saturating_sub(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.tasks.values_mut().for_each(|owned| owned.index.tick(now));
        self.tasks.retain(|_, owned| !owned.index.is_empty());
    }

    /// What is to be said now.
    pub(super) fn poll(&mut self, now: Duration) -> Vec<(TaskId, Instruction)> {
        let polled = self.tasks.iter_mut().flat_map(|(task, owned)| {
            owned.index.poll(now).into_iter().map(|instruction| (*task, instruction))
        });
        polled.collect()
    }
}
