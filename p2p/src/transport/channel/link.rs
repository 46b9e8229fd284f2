//! A connection of two nodes: its begin, its end, and who is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Closed, Incoming,
        connection::{STALLED, Stop},
        outbox::Outbox,
        tcp::DIAL,
    },
    Network, Node, wire,
};
use crate::NodeId;

/// A link, made or being made.
#[derive(Debug)]
pub(super) struct Link {
    sides: [Side; 2],
    /// The link of a process that was killed: nobody hears of this one before the end of that.
    previous: Option<CancellationToken>,
    over: CancellationToken,
    killed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Side {
    pub(super) id: NodeId,
    pub(super) outbox: Outbox,
    /// Ended by this side.
    stop: Stop,
    /// Whether it dialed, and so hears when that fails.
    dialed: AtomicBool,
}

impl Link {
    pub(super) fn new((a, b): (NodeId, NodeId), dialing: NodeId, previous: Option<&Self>) -> Self {
        let side = |id| Side {
            id,
            outbox: Outbox::default(),
            stop: Stop::default(),
            dialed: AtomicBool::new(id == dialing),
        };
        let previous = previous.map(|link| link.over.clone());
        Self {
            sides: [side(a), side(b)],
            previous,
            over: CancellationToken::new(),
            killed: AtomicBool::new(false),
        }
    }

    fn side(&self, id: NodeId) -> &Side {
        &self.sides[usize::from(self.sides[0].id != id)]
    }

    pub(super) fn outbox(&self, id: NodeId) -> &Outbox {
        &self.side(id).outbox
    }

    pub(super) fn wanted_by(&self, id: NodeId) {
        self.side(id).dialed.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&self, id: NodeId, why: Closed) {
        self.side(id).stop.because(why);
    }

    /// The process on one side has ended.
    pub(super) fn kill(&self, id: NodeId) {
        self.killed.store(true, Ordering::Relaxed);
        self.stop(id, Closed::Here);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// The whole life of the link.
    pub(super) async fn live(self: Arc<Self>, network: Network) {
        if let Some(previous) = &self.previous {
            previous.cancelled().await;
        }
        self.connect(&network).await;
        let (mut state, [a, b]) = (network.lock(), &self.sides);
        if state.links.get(&(a.id, b.id)).is_some_and(|link| Arc::ptr_eq(link, &self)) {
            state.links.remove(&(a.id, b.id));
        }
        self.over.cancel();
    }

    async fn connect(&self, network: &Network) {
        let [a, b] = &self.sides;
        let Some([node_a, node_b]) = self.begin(network).await else { return };
        tell(&node_a, b.id, Incoming::Connected(node_b.hello.clone())).await;
        tell(&node_b, a.id, Incoming::Connected(node_a.hello.clone())).await;
        let ends = [
            wire::Way { network, from: (a.id, &node_a), to: (b.id, &node_b), outbox: &a.outbox },
            wire::Way { network, from: (b.id, &node_b), to: (a.id, &node_a), outbox: &b.outbox },
        ];
        let [there, back] = ends;
        let why = tokio::select! {
            why = a.stop.stopped() => [why, Closed::There],
            why = b.stop.stopped() => [Closed::There, why],
            why = there.carry() => [why.clone(), why],
            why = back.carry() => [why.clone(), why],
        };
        self.end(network, [&node_a, &node_b], why).await;
    }

    /// Connects, if both are there and reach each other in time.
    async fn begin(&self, network: &Network) -> Option<[Node; 2]> {
        let [a, b] = &self.sides;
        let deadline = Instant::now() + DIAL;
        let round_trip = { 2 * network.lock().travel() };
        let reached = async {
            sleep(round_trip).await;
            let mut changed = network.0.changed.subscribe();
            loop {
                if let Some(nodes) = network.lock().both(a.id, b.id) {
                    return nodes;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let why = tokio::select! {
            reached = timeout_at(deadline, reached) => match reached {
                Ok(nodes) => return Some(nodes),
                Err(_) => Closed::Unreachable("no answer in time".to_owned()),
            },
            why = a.stop.stopped() => why,
            why = b.stop.stopped() => why,
        };
        for (side, other) in [(a, b), (b, a)] {
            let node = network.lock().nodes.get(&side.id).cloned();
            if let Some(node) = node.filter(|_| side.dialed.load(Ordering::Relaxed)) {
                tell(&node, other.id, Incoming::Closed(why.clone())).await;
            }
        }
        None
    }

    /// Tells both sides that it is over, each as soon as it can know.
    async fn end(&self, network: &Network, nodes: [&Node; 2], why: [Closed; 2]) {
        let [a, b] = &self.sides;
        let notice = { network.lock().travel() };
        let [why_a, why_b] = why;
        let told = |node: Node, side: NodeId, other: NodeId, why: Closed| {
            let network = network.clone();
            async move {
                let later =
                    if why == Closed::There { network.notice(side, other, notice).await } else { why };
                if network.lock().lives(side, &node) {
                    tell(&node, other, Incoming::Closed(later)).await;
                }
            }
        };
        tokio::join!(told(nodes[0].clone(), a.id, b.id, why_a), told(nodes[1].clone(), b.id, a.id, why_b),);
    }
}

impl Network {
    /// How `side` learns that `other` is gone: after `notice`, or by its silence.
    async fn notice(&self, side: NodeId, other: NodeId, notice: Duration) -> Closed {
        let cut = {
            let state = self.lock();
            state.nodes.contains_key(&other) && !state.reaches(side, other)
        };
        sleep(if cut { STALLED } else { notice }).await;
        if cut { Closed::Silent } else { Closed::There }
    }
}

/// Tells a node something, unless it is gone.
pub(super) async fn tell(node: &Node, other: NodeId, incoming: Incoming) {
    drop(node.events.send((other, incoming)).await);
}
