//! Nodes of the piece network in namespaces of their own, before one registry.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};

use crate::{
    blob::Blob,
    network::{Answer, Host, Network},
    p2pd::P2pd,
    registry::Registry,
    relay::{Link, Relay},
    scratch::Scratch,
};

const PORT: u16 = 4700;
/// Hosts that are begun at a time.
const AT_ONCE: usize = 8;
/// Numbers below are the hub's.
const FIRST: u16 = 2;

/// How fast the links are.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of each node, each way, in bits per second.
    pub node: u64,
    /// Of the registry.
    pub origin: u64,
}

/// Registry and nodes. Ends in the order of its fields.
#[derive(Debug)]
pub struct SwarmBed {
    /// The nodes.
    pub nodes: Vec<Host<P2pd>>,
    /// Before the registry; counts what it sends.
    pub relay: Relay,
    /// The registry.
    pub registry: Registry,
    scratch: Scratch,
    flags: Vec<String>,
}

impl SwarmBed {
    /// Starts so many nodes that all see each other. The calling thread is the hub from then on.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn start(nodes: usize, rates: Rates) -> Result<Self> {
        Self::start_with(nodes, rates, &[])
    }

    /// Starts them with further flags.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn start_with(nodes: usize, rates: Rates, flags: &[String]) -> Result<Self> {
        let network = Network::new()?;
        let scratch = Scratch::new("swarm")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        let link = Link { round_trip: Duration::from_millis(1), bits_per_second: rates.origin };
        let relay = Relay::at(Network::HUB, registry.address(), link)?;
        let flags = flags.to_owned();
        let mut bed = Self { nodes: Vec::new(), relay, registry, scratch, flags };
        bed.add(network, 1, rates.node)?;
        while bed.nodes.len() < nodes {
            bed.add(network, AT_ONCE.min(nodes - bed.nodes.len()), rates.node)?;
        }
        bed.on_all(move |node| node.sees(nodes))?;
        Ok(bed)
    }

    fn add(&mut self, network: Network, count: usize, rate: u64) -> Result<()> {
        let token = match self.nodes.first() {
            Some(first) => Some(first.call(|node| node.token())?),
            None => None,
        };
        let first = FIRST + u16::try_from(self.nodes.len())?;
        let started: Vec<_> = (first..first + u16::try_from(count)?)
            .map(|number| {
                let (dir, token) = (self.scratch.path().join(format!("node-{number}")), token.clone());
                let (registry, flags) = (self.relay.address(), self.flags.clone());
                Host::start(network, number, rate, move || {
                    // For its mount namespace, which stays with the thread: the registry is trusted in it.
                    Scratch::new("swarm-node")?.trust(registry)?;
                    let address = Network::address(number);
                    let share = format!("{registry}/*");
                    P2pd::start_with(&dir, address, PORT, token.as_deref(), &share, &flags)
                })
            })
            .collect::<Result<_>>()?;
        for (node, made) in started {
            made.wait()?;
            self.nodes.push(node);
        }
        Ok(())
    }

    /// Makes a blob and pushes it.
    ///
    /// # Errors
    /// Where the registry does not take it.
    pub fn publish(&self, seed: u64, pieces: usize, piece_size: u32) -> Result<Arc<Blob>> {
        let shape = (seed, pieces, piece_size);
        Ok(Arc::new(Blob::publish(&self.registry, self.relay.address(), self.scratch.path(), shape)?))
    }

    /// Begins something on all nodes at once.
    pub fn begin_on_all<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut P2pd) -> Result<T> + Clone + Send + 'static,
    ) -> Vec<Answer<T>> {
        self.nodes.iter().map(|node| node.begin(work.clone())).collect()
    }

    /// Does something on all nodes at once.
    ///
    /// # Errors
    /// What one fails with.
    pub fn on_all<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut P2pd) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        self.begin_on_all(work)
            .into_iter()
            .enumerate()
            .map(|(at, answer)| answer.wait().with_context(|| format!("node {at}")))
            .collect()
    }
}
