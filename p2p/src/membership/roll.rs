//! Who is alive, as one node believes: what to do with gossip, lists and time. Sends nothing and waits for nothing.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU32,
    time::Duration,
};

use foca::{Config, Foca, Member, NoCustomBroadcast, Notification, Runtime, State, Timer};
use p2p_api::peer;
use rand::{SeedableRng as _, rngs::SmallRng};

use super::{
    who::{self, Who},
    wire::{Parsed, Wire},
};
use crate::{NodeId, engine::Members, identity::Seal};

/// Longest datagram: it is not to be cut on its way.
const DATAGRAM: usize = 1400 - Seal::OVERHEAD;
/// Time between two exchanges of all that is known with somebody.
const EXCHANGE: Duration = Duration::from_secs(30);

/// Something to be sent.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// A datagram.
    Gossip(Who, Vec<u8>),
    /// All that is known.
    Tell(Who, peer::Members),
}

/// What one node believes.
pub(super) struct Roll {
    foca: Foca<Who, Wire, SmallRng, NoCustomBroadcast>,
    pending: Pending,
    timers: BTreeMap<(Duration, u64), Timer<Who>>,
    timer: u64,
    exchange_at: Duration,
    random: fastrand::Rng,
    /// Most members, dead ones among them.
    most: usize,
}

/// What foca wants done.
#[derive(Debug, Default)]
struct Pending {
    effects: Vec<Effect>,
    timers: Vec<(Duration, Timer<Who>)>,
    changed: bool,
}

impl Runtime<Who> for &mut Pending {
    fn notify(&mut self, _: Notification<'_, Who>) {
        self.changed = true;
    }

    fn send_to(&mut self, to: Who, data: &[u8]) {
        self.effects.push(Effect::Gossip(to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Who>, after: Duration) {
        self.timers.push((after, timer));
    }
}

impl Roll {
    /// What a node believes that knows of nobody yet.
    pub(super) fn new(me: Who, most: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            foca: Foca::new(me, settings(1), SmallRng::seed_from_u64(random.u64(..)), Wire),
            pending: Pending { changed: true, ..Pending::default() },
            timers: BTreeMap::new(),
            timer: 0,
            exchange_at: EXCHANGE.mul_f64(random.f64()),
            random,
            most,
        }
    }

    pub(super) fn me(&self) -> Who {
        *self.foca.identity()
    }

    /// How many others are alive.
    pub(super) fn others(&self) -> usize {
        self.foca.num_members()
    }

    /// Who is alive, this node among them.
    pub(super) fn alive(&self) -> Members {
        let others = self.foca.iter_members().map(|member| (member.id().node, member.id().address));
        others.chain([(self.me().node, self.me().address)]).collect()
    }

    /// Whether another set of nodes may be alive than when this was asked before.
    pub(super) fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.pending.changed)
    }

    /// What is to be sent.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.pending.effects)
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn wake_at(&self) -> Duration {
        let timer = self.timers.keys().next().map_or(Duration::MAX, |(at, _)| *at);
        timer.min(self.exchange_at)
    }

    /// A datagram that `sender` has sealed.
    pub(super) fn gossip(&mut self, now: Duration, sender: NodeId, datagram: &[u8]) {
        let Ok(mut parsed) = Parsed::of(datagram) else { return tracing::debug!(%sender, "no gossip") };
        let source = parsed.header.src;
        if source.node != sender {
            return tracing::debug!(%sender, "gossip in another's name");
        }
        // The sender's own place counts as well.
        parsed.members.push(Member::alive(source));
        self.admit(&mut parsed.members);
        if parsed.members.pop().is_none_or(|last| *last.id() != source) {
            return tracing::debug!(%sender, "gossip of one member too many");
        }
        let Ok(bytes) = parsed.bytes() else { return };
        let handled = self.foca.handle_data(&bytes, &mut self.pending);
        self.settle(now, "gossip", handled);
    }

    /// All that a member knows. It is answered unless it is an answer.
    pub(super) fn told(&mut self, now: Duration, from: NodeId, members: &peer::Members) {
        let me = self.me();
        let known: Vec<_> = members.members.iter().filter_map(who::read).collect();
        // A predecessor of this process whose clock was ahead: take its place.
        let latest = known.iter().map(Member::id).filter(|who| who.node == me.node).map(|who| who.boot).max();
        if let Some(boot) = latest.filter(|boot| *boot > me.boot) {
            let me = Who { boot: boot.saturating_add(1), ..me };
            let renewed = self.foca.change_identity(me, &mut self.pending);
            self.settle(now, "taking the place of a predecessor", renewed);
        }
        // What is said about former processes of this node is old.
        let me_now = self.me();
        let mut others = known;
        others.retain(|member| member.id().node != me.node || *member.id() == me_now);
        self.admit(&mut others);
        let source = others.iter().map(|member| *member.id()).find(|who| who.node == from);
        let applied = self.foca.apply_many(others.into_iter(), true, &mut self.pending);
        self.settle(now, "a list of members", applied);
        // Who is taken for dead here learns it by the answer, and comes back with a name of its own.
        let Some(source) = source else { return };
        if !members.answer || me_now != me || self.me() != me_now {
            // An answer is answered only with the question of whom this node has become.
            let known = self.known(!members.answer);
            self.pending.effects.push(Effect::Tell(source, known));
        }
    }

    /// What time brings.
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            let handled = self.foca.handle_timer(timer, &mut self.pending);
            self.settle(now, "a timer", handled);
        }
        if self.exchange_at <= now {
            self.exchange_at = now + EXCHANGE.mul_f64(self.random.f64().mul_add(0.2, 0.9));
            self.exchange();
        }
    }

    /// Tells all that is known to somebody, and to somebody who is taken for dead: it may live beyond a partition.
    fn exchange(&mut self) {
        let me = self.me().node;
        let others = self.foca.iter_membership_state().filter(|member| member.id().node != me);
        let (dead, alive): (Vec<_>, Vec<_>) =
            others.cloned().partition(|member| member.state() == State::Down);
        for somebody in [self.random.choice(alive), self.random.choice(dead)].into_iter().flatten() {
            let known = self.known(false);
            self.pending.effects.push(Effect::Tell(*somebody.id(), known));
        }
    }

    /// All that is known, for a message.
    pub(super) fn known(&self, answer: bool) -> peer::Members {
        let me = self.me();
        let others = self.foca.iter_membership_state().filter(|member| member.id().node != me.node);
        let members = others.map(who::write).chain([who::write(&Member::alive(me))]).collect();
        peer::Members { members, answer }
    }

    /// The node goes, and says so.
    pub(super) fn leave(&mut self, now: Duration) {
        let left = self.foca.leave_cluster(&mut self.pending);
        self.settle(now, "leaving", left);
    }

    /// Leaves out those for whom there is no room.
    fn admit(&self, members: &mut Vec<Member<Who>>) {
        let state = self.foca.iter_membership_state();
        if state.len() + members.len() <= self.most {
            return;
        }
        let mut known: HashSet<_> = state.map(|member| member.id().node).chain([self.me().node]).collect();
        members.retain(|member| {
            let node = member.id().node;
            known.contains(&node) || known.len() <= self.most && known.insert(node)
        });
    }

    fn settle(&mut self, now: Duration, what: &str, done: Result<(), foca::Error>) {
        if let Err(error) = done {
            tracing::debug!("{what}: {error}");
        }
        for (after, timer) in std::mem::take(&mut self.pending.timers) {
            self.timer += 1;
            self.timers.insert((now + after, self.timer), timer);
        }
        if self.pending.changed
            && let Err(error) = self.foca.set_config(settings(self.others() + 1))
        {
            tracing::error!("settings of the gossip: {error}");
        }
    }
}

/// Larger clusters suspect longer, and repeat news more often.
fn settings(members: usize) -> Config {
    let members = u32::try_from(members).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let max_packet_size = DATAGRAM.try_into().expect("not 0");
    Config { max_packet_size, ..Config::new_lan(members) }
}

impl std::fmt::Debug for Roll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roll").field("me", &self.me()).field("others", &self.others()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
