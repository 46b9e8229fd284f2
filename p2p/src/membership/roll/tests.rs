//! Some nodes in virtual time, over a network that loses nothing but what it is told to.

use std::collections::BTreeSet;

use super::*;

const STEP: Duration = Duration::from_millis(10);

struct Cluster {
    now: Duration,
    nodes: Vec<Option<Roll>>,
    under_way: Vec<(usize, Who, Effect)>,
    /// Lists that were sent.
    lists: usize,
    /// Nodes in here do not reach the others.
    apart: BTreeSet<usize>,
}

fn who(number: usize, boot: u64) -> Who {
    let mut node = [0; 32];
    node[..8].copy_from_slice(&number.to_be_bytes());
    Who { node: NodeId(node), address: ([10, 0, 0, 1], 4700).into(), boot }
}

fn number(who: Who) -> usize {
    usize::from_be_bytes(who.node.0[..8].try_into().unwrap())
}

impl Cluster {
    /// Nodes that have each been introduced to the first.
    fn new(nodes: usize) -> Self {
        let rolls = (0..nodes).map(|number| Some(Roll::new(who(number, 1), 1000, number as u64)));
        let (now, apart) = (Duration::from_millis(1), BTreeSet::new());
        let mut cluster = Self { now, nodes: rolls.collect(), under_way: Vec::new(), lists: 0, apart };
        (1..nodes).for_each(|number| cluster.introduce(number, 0));
        cluster
    }

    fn introduce(&mut self, node: usize, to: usize) {
        let known = self.nodes[node].as_ref().unwrap().known(false);
        self.under_way.push((node, who(to, 1), Effect::Tell(who(to, 1), known)));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for (from, to, effect) in std::mem::take(&mut self.under_way) {
                let reached = self.apart.contains(&from) == self.apart.contains(&number(to));
                let Some(roll) = self.nodes[number(to)].as_mut().filter(|_| reached) else { continue };
                let sender = who(from, 0).node;
                match effect {
                    Effect::Gossip(_, bytes) => roll.gossip(self.now, sender, &bytes),
                    Effect::Tell(_, members) => {
                        self.lists += 1;
                        roll.told(self.now, sender, &members);
                    }
                }
            }
            for (number, roll) in self.nodes.iter_mut().enumerate() {
                let Some(roll) = roll else { continue };
                roll.tick(self.now);
                let effects = roll.effects().into_iter().map(|effect| match &effect {
                    Effect::Gossip(to, _) | Effect::Tell(to, _) => (number, *to, effect),
                });
                self.under_way.extend(effects);
            }
        }
    }

    fn sees(&self, node: usize) -> BTreeSet<usize> {
        let alive = self.nodes[node].as_ref().unwrap().alive();
        alive.into_keys().map(|node| number(Who { node, ..who(0, 0) })).collect()
    }

    fn all_see(&self, expected: &BTreeSet<usize>) -> bool {
        expected.iter().all(|node| self.sees(*node) == *expected)
    }
}

fn all(nodes: std::ops::Range<usize>) -> BTreeSet<usize> {
    nodes.collect()
}

#[test]
fn nodes_that_were_introduced_to_one_see_all() {
    let mut cluster = Cluster::new(24);
    cluster.run(Duration::from_secs(40));
    assert!(cluster.all_see(&all(0..24)));
    // A question and an answer at the join, and again within each 30 s.
    assert!(cluster.lists < 24 * 2 * 4, "{} lists", cluster.lists);
}

#[test]
fn the_dead_are_gone_in_time_and_their_next_process_is_seen() {
    let mut cluster = Cluster::new(5);
    cluster.run(Duration::from_secs(5));
    cluster.nodes[4] = None;
    cluster.run(Duration::from_secs(15));
    assert!(cluster.all_see(&all(0..4)));
    cluster.nodes[4] = Some(Roll::new(who(4, 2), 1000, 9));
    cluster.introduce(4, 2);
    cluster.run(Duration::from_secs(3));
    assert!(cluster.all_see(&all(0..5)));
}

#[test]
fn a_process_that_starts_at_once_takes_the_place_of_its_predecessor_even_if_the_clock_went_back() {
    let mut cluster = Cluster::new(3);
    cluster.run(Duration::from_secs(5));
    cluster.nodes[2] = Some(Roll::new(who(2, 0), 1000, 9));
    cluster.introduce(2, 0);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.all_see(&all(0..3)));
    assert!(cluster.nodes[2].as_ref().unwrap().me().boot > 1);
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.run(Duration::from_secs(5));
    let (now, leaving) = (cluster.now, cluster.nodes[1].as_mut().unwrap());
    leaving.leave(now);
    cluster.run(STEP * 2);
    cluster.nodes[1] = None;
    cluster.run(Duration::from_secs(1));
    assert!(cluster.all_see(&[0, 2].into()));
}

#[test]
fn a_partition_heals_and_each_refutes_its_own_death() {
    let mut cluster = Cluster::new(6);
    cluster.run(Duration::from_secs(5));
    cluster.apart = all(0..3);
    cluster.run(Duration::from_mins(2));
    assert!(cluster.all_see(&all(0..3)) && cluster.all_see(&all(3..6)));
    cluster.apart.clear();
    cluster.run(Duration::from_mins(2));
    assert!(cluster.all_see(&all(0..6)));
}

#[test]
fn a_node_alone_for_a_while_comes_back() {
    let mut cluster = Cluster::new(4);
    cluster.run(Duration::from_secs(5));
    cluster.apart = [3].into();
    cluster.run(Duration::from_mins(1));
    assert_eq!(cluster.sees(3), [3].into());
    cluster.apart.clear();
    cluster.run(Duration::from_mins(2));
    assert!(cluster.all_see(&all(0..4)));
}

#[test]
fn no_more_members_are_known_than_may_be() {
    let mut roll = Roll::new(who(0, 1), 10, 1);
    let crowd = (1..=100).map(|number| who::write(&Member::alive(who(number, 1))));
    let members = peer::Members { members: crowd.collect(), answer: true };
    for _ in 0..2 {
        roll.told(STEP, who(1, 0).node, &members);
    }
    assert!(roll.others() <= 10 && roll.others() > 0, "{}", roll.others());
}

#[test]
fn gossip_in_the_name_of_another_is_dropped() {
    let (mut roll, mut other) = (Roll::new(who(0, 1), 10, 1), Roll::new(who(1, 1), 10, 2));
    other.told(STEP, who(0, 0).node, &roll.known(true));
    other.tick(Duration::from_secs(2));
    let gossip = other.effects().into_iter().find_map(|effect| match effect {
        Effect::Gossip(_, bytes) => Some(bytes),
        Effect::Tell(..) => None,
    });
    let gossip = gossip.unwrap();
    roll.gossip(STEP, who(7, 0).node, &gossip);
    assert_eq!(roll.others(), 0);
    roll.gossip(STEP, who(1, 0).node, &gossip);
    assert_eq!(roll.others(), 1);
}
