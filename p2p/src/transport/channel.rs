//! A network within one process: delay, loss, partitions, and a rate for each node's way out and in.
//!
//! Made for tokio's paused clock: hundreds of nodes, in virtual time, the same each time for the same seed. What is lost
//! comes later, as over TCP; who is cut off falls silent, and is noticed as it would be over the network.

mod line;
mod link;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2p_api::{VERSION, peer::Hello};
use tokio::sync::{mpsc, watch};

use super::{Body, Closed, Event, Outgoing, Refused, Transport, frame, outbox::Item};
use crate::{
    NodeId, TaskId,
    rate::{Rate, STEP},
};
use line::Line;
use link::Link;

/// Events that wait for a node.
const EVENTS: usize = 64;

/// How the network treats what is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// How long everything is under way.
    pub delay: Duration,
    /// Part of the steps that are lost and sent again.
    pub loss: f64,
}

/// The rates of a node.
#[derive(Debug, Clone, Copy)]
pub struct Uplink {
    /// What it sends.
    pub up: Rate,
    /// What it receives.
    pub down: Rate,
}

/// The network.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Told of partitions that come and go.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    random: fastrand::Rng,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), Arc<Link>>,
}

#[derive(Debug, Clone)]
struct Node {
    events: mpsc::Sender<Event>,
    up: Arc<Line>,
    down: Arc<Line>,
    hello: Hello,
    /// Nodes in different parts do not reach each other.
    part: u32,
}

/// A node's connections over a [`Network`].
#[derive(Debug)]
pub struct Channel {
    id: NodeId,
    network: Network,
}

impl Network {
    /// A network whose chances follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let (nodes, links) = (BTreeMap::new(), BTreeMap::new());
        let state = State { weather, random: fastrand::Rng::with_seed(seed), nodes, links };
        let (changed, _) = watch::channel(());
        Self(Arc::new(Inner { state: Mutex::new(state), changed }))
    }

    /// Adds a node, or the process that follows one which was killed.
    #[must_use]
    pub fn attach(&self, id: NodeId, uplink: Uplink) -> (Channel, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(EVENTS);
        let mut state = self.lock();
        let hello = Hello { version: VERSION, boot: state.random.u64(..), ..Hello::default() };
        let (up, down) = (Arc::new(Line::new(uplink.up)), Arc::new(Line::new(uplink.down)));
        state.nodes.insert(id, Node { events, up, down, hello, part: 0 });
        drop(state);
        self.0.changed.send_replace(());
        (Channel { id, network: self.clone() }, received)
    }

    /// Changes the rates of a node.
    pub fn set_uplink(&self, id: NodeId, uplink: Uplink) {
        if let Some(node) = self.lock().nodes.get(&id) {
            node.up.set_rate(uplink.up);
            node.down.set_rate(uplink.down);
        }
    }

    /// Changes delay and loss.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Puts a node into a part of the network; it reaches only those in the same part. All begin in part 0.
    pub fn set_part(&self, id: NodeId, part: u32) {
        if let Some(node) = self.lock().nodes.get_mut(&id) {
            node.part = part;
        }
        self.0.changed.send_replace(());
    }

    /// Ends a node's process: its connections are closed, and it is told nothing more.
    pub fn kill(&self, id: NodeId) {
        let mut state = self.lock();
        state.nodes.remove(&id);
        for link in state.links.iter().filter(|((a, b), _)| *a == id || *b == id).map(|(_, link)| link) {
            link.kill(id);
        }
        drop(state);
        self.0.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        let part = |id| self.nodes.get(&id).map(|node| node.part);
        part(a).is_some() && part(a) == part(b)
    }

    /// Two nodes, if they are there and reach each other.
    fn both(&self, a: NodeId, b: NodeId) -> Option<[Node; 2]> {
        if !self.reaches(a, b) {
            return None;
        }
        Some([self.nodes.get(&a)?.clone(), self.nodes.get(&b)?.clone()])
    }

    /// Whether `node` is still the process that has this name.
    fn lives(&self, id: NodeId, node: &Node) -> bool {
        self.nodes.get(&id).is_some_and(|current| current.hello.boot == node.hello.boot)
    }

    /// How long a step is under way, with what is lost of it.
    fn travel(&mut self) -> Duration {
        /// How long a sender waits before it sends again.
        const AGAIN: Duration = Duration::from_millis(200);
        let mut time = self.weather.delay;
        while self.random.f64() < self.weather.loss.min(0.9) {
            time += AGAIN;
        }
        time
    }
}

/// The two ends of a link in order, whichever way it is looked at.
fn ends(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a < b { (a, b) } else { (b, a) }
}

impl Channel {
    fn push(&self, node: NodeId, item: Item) -> Result<(), Refused> {
        let state = self.network.lock();
        let link = state.links.get(&ends(self.id, node)).ok_or(Refused::NotConnected)?;
        link.outbox(self.id).push(item)
    }
}

impl Transport for Channel {
    fn id(&self) -> NodeId {
        self.id
    }

    fn connect(&self, node: NodeId, _address: SocketAddr) -> Result<(), Refused> {
        if node == self.id {
            return Err(Refused::Myself);
        }
        let mut state = self.network.lock();
        let ends = ends(self.id, node);
        let existing = state.links.get(&ends);
        if let Some(link) = existing.filter(|link| !link.is_killed()) {
            link.wanted_by(self.id);
            return Ok(());
        }
        let link = Arc::new(Link::new(ends, self.id, existing.map(Arc::as_ref)));
        state.links.insert(ends, link.clone());
        // It ends with its nodes, or with the runtime.
        tokio::spawn(link.live(self.network.clone()));
        Ok(())
    }

    fn send(&self, node: NodeId, message: Body) -> Result<(), Refused> {
        let frame = frame::encode(message)?;
        self.push(node, Item::Frame(frame))
    }

    fn send_piece(&self, node: NodeId, piece: Outgoing) -> Result<(), Refused> {
        frame::announce(&piece, &(0..piece.bytes.len()))?;
        self.push(node, Item::Piece(piece))
    }

    fn withdraw(&self, node: NodeId, task: TaskId, piece: u32) -> bool {
        let state = self.network.lock();
        let link = state.links.get(&ends(self.id, node));
        link.is_some_and(|link| link.outbox(self.id).withdraw(task, piece))
    }

    fn disconnect(&self, node: NodeId) {
        if let Some(link) = self.network.lock().links.get(&ends(self.id, node)) {
            link.stop(self.id, Closed::Here);
        }
    }
}

/// How many bytes go at once.
fn step_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(STEP).min(STEP)
}
