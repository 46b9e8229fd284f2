//! What time alone changes: late answers, tasks that nobody holds.

use std::time::Duration;

use p2p_api::peer::{self, Body};

use super::{actor::Actor, wire};
use crate::{NodeId, TaskId, peer::Action};

/// Shortest time between two looks at what time alone changes.
const TICK: Duration = Duration::from_millis(10);
/// Longest, where pieces come slowly.
const SLOW_TICK: Duration = Duration::from_millis(50);
/// Looks in the time that a piece usually takes.
const LOOKS: u32 = 16;
/// As much while nothing is wanted and nothing has happened for [`CALM`].
const CALM_TICK: Duration = Duration::from_millis(250);
/// What comes of an event comes within this time.
const CALM: Duration = Duration::from_millis(200);
/// Time between two looks at a task that wants nothing.
const LOOK: Duration = Duration::from_millis(50);

impl Actor {
    pub(super) fn is_idle(&self) -> bool {
        !self.owned.is_busy() && self.swarms.is_empty()
    }

    /// Time from one tick to the next.
    pub(super) fn until_tick(&self) -> Duration {
        let calm = self.now().saturating_sub(self.happened) > CALM;
        let unsatisfied = || self.swarms.values().filter(|swarm| !swarm.task.is_satisfied());
        if calm && unsatisfied().next().is_none() {
            return CALM_TICK;
        }
        let fastest = unsatisfied().map(|swarm| swarm.task.usual().unwrap_or_default()).min();
        fastest.map_or(SLOW_TICK, |usual| (usual / LOOKS).clamp(TICK, SLOW_TICK))
    }

    pub(super) fn tick(&mut self) {
        let now = self.now();
        self.owned.tick(now);
        let mut left = Vec::new();
        for (id, swarm) in &mut self.swarms {
            swarm.prune();
            if !swarm.task.is_satisfied() || swarm.next_look <= now {
                swarm.next_look = now + LOOK;
                self.stirred.insert(*id);
            }
            if swarm.is_left(now) {
                left.push(*id);
            }
        }
        left.into_iter().for_each(|task| self.leave(task));
        if self.unreachable.values().any(|until| *until <= now) {
            self.unreachable.retain(|_, until| *until > now);
            self.members_changed();
        }
        self.upload();
    }

    /// The disk may have lost pieces of any task.
    pub(super) fn look_for_losses(&mut self) {
        let tasks: Vec<_> = self.swarms.keys().copied().collect();
        tasks.into_iter().for_each(|task| self.look_for_loss(task));
    }

    /// Where a task believes to have pieces that are not here, it takes part anew with what is left: nobody is to ask this
    /// node for the rest.
    pub(super) fn look_for_loss(&mut self, task: TaskId) {
        let swarm = self.swarms.get(&task);
        if swarm.is_some_and(|swarm| swarm.stored.lacks(swarm.task.have())) {
            tracing::warn!(%task, "pieces are gone");
            self.begin_again(task);
        }
    }

    pub(super) fn begin_again(&mut self, task: TaskId) {
        let seed = self.random.u64(..);
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        let parted = swarm.begin_again(seed);
        self.part_from(task, parted);
        self.find_owner(task);
        self.check_whole(task);
    }

    /// Nobody here waits any more for what was wanted: the owner hears what still is. Else it would send this node for the
    /// rest again and again, as often as that fails.
    pub(super) fn rejoin(&mut self, task: TaskId) {
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        swarm.owner = None;
        self.find_owner(task);
    }

    /// Tells partners of a task that they are none any more.
    pub(super) fn part_from(&mut self, task: TaskId, nodes: Vec<NodeId>) {
        for node in nodes {
            self.say(node, Body::Part(peer::Part { task: wire::bytes(task) }));
        }
    }

    /// Takes part in a task no more.
    fn leave(&mut self, task: TaskId) {
        let Some(swarm) = self.swarms.remove(&task) else { return };
        tracing::debug!(%task, "nobody holds it any more");
        for node in swarm.greeted {
            self.send(task, Action::Part(node));
        }
        match swarm.owner {
            Some(owner) if owner == self.me => self.tell_owned(self.me, wire::leave(task)),
            Some(owner) => self.say(owner, wire::leave(task)),
            None => {}
        }
        self.limits.forget(task);
        self.uploads.left_task(task);
    }
}
