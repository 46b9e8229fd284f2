//! Who keeps order in a task: a few nodes that everyone computes alike, one hop away, without a lookup.
//!
//! Rendezvous hashing: each member gets a score for the task, the highest is its owner, the next its standby. A member
//! that comes or goes moves only the tasks that it won.

mod claims;
mod index;
mod leases;
mod window;

use crate::{NodeId, TaskId};

pub use index::{Index, Instruction};

/// The `count` members with the highest scores for `task`, best first: owner, standby, further index peers.
#[must_use]
pub fn ranked(task: TaskId, members: impl IntoIterator<Item = NodeId>, count: usize) -> Vec<NodeId> {
    let mut scored: Vec<_> = members.into_iter().map(|node| (score(task, node), node)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.truncate(count);
    scored.into_iter().map(|(_, node)| node).collect()
}

fn score(task: TaskId, node: NodeId) -> [u8; 8] {
    let hash = blake3::keyed_hash(task.as_bytes(), &node.0);
    let (score, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    *score
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vouch;

    fn nodes(count: u32) -> Vec<NodeId> {
        (0..count).map(|number| NodeId(*blake3::hash(&number.to_le_bytes()).as_bytes())).collect()
    }

    fn task(number: u32) -> TaskId {
        TaskId::of(Vouch::Url(&number.to_string()))
    }

    #[test]
    fn everyone_computes_the_same_order_from_the_same_members() {
        let mut members = nodes(50);
        let order = ranked(task(1), members.clone(), 3);
        members.reverse();
        assert_eq!(ranked(task(1), members, 3), order);
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_tasks_and_those_to_the_standby() {
        let members = nodes(50);
        for number in 0..200 {
            let before = ranked(task(number), members.clone(), 2);
            let rest = members.iter().copied().filter(|node| *node != members[7]);
            let after = ranked(task(number), rest, 1);
            let expected = if before[0] == members[7] { before[1] } else { before[0] };
            assert_eq!(after, [expected]);
        }
    }

    #[test]
    fn tasks_spread_over_the_members() {
        let members = nodes(20);
        let mut won = [0_u32; 20];
        for number in 0..2000 {
            let owner = ranked(task(number), members.clone(), 1)[0];
            won[members.iter().position(|node| *node == owner).unwrap()] += 1;
        }
        assert!(won.iter().all(|count| (50..200).contains(count)), "{won:?}");
    }
}
