//! Who is alive, and where: gossip (SWIM, by foca) in sealed datagrams, and lists of all members over TLS.
//!
//! A node finds its first member at the addresses of its token, and exchanges lists with it; so it does with a random
//! member every 30 s, and with one that is taken for dead, so that partitions heal. In between each node probes another
//! every second; one that answers neither directly nor through others is suspected, and after some seconds taken for dead.
//! One that lives after all hears of that, and comes back under a later boot; so does the next process of a node.
//!
//! [`roll`] decides; the driver has the sockets.

mod driver;
mod roll;
mod who;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use p2p_api::peer;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    NodeId,
    engine::Members,
    identity::Seal,
    transport::{Pool, Transport as _},
};
use driver::Driver;
use roll::Roll;
use who::Who;

/// Most members of a cluster, those that died within a day among them: their list fits a message.
pub const MOST: usize = 10_000;
/// Lists of members that wait to be read.
const LISTS: usize = 16;

/// A list of members, and which node sent it.
pub type Told = (NodeId, peer::Members);

/// How a node finds others and is found.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// Where others reach this node, by TCP and UDP.
    pub advertise: SocketAddr,
    /// Where members may be found at the start: host or address, and port.
    pub seeds: Vec<String>,
}

/// A node's part in its cluster. Dropping it ends it without a word; [`Self::stop`] takes leave of the others.
#[derive(Debug)]
pub struct Membership {
    members: watch::Receiver<Arc<Members>>,
    stop: CancellationToken,
    driver: Option<JoinHandle<()>>,
}

impl Membership {
    /// Joins. `told` receives the lists that come in by `pool`.
    #[must_use]
    pub fn start(
        pool: Arc<Pool>,
        seal: Seal,
        socket: UdpSocket,
        told: mpsc::Receiver<Told>,
        config: MembershipConfig,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let me = Who { node: pool.id(), address: config.advertise, boot };
        let (publish, members) = watch::channel(Arc::new(BTreeMap::from([(me.node, me.address)])));
        let stop = CancellationToken::new();
        let roll = Roll::new(me, MOST, fastrand::u64(..));
        let driver = Driver::new(roll, pool, seal, socket, config.seeds, publish);
        let driver = Some(tokio::spawn(driver.run(told, stop.clone())));
        Self { members, stop, driver }
    }

    /// Who is alive, this node among them.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Where lists of members are told, and where a [`Membership`] takes them from.
    #[must_use]
    pub fn inbox() -> (mpsc::Sender<Told>, mpsc::Receiver<Told>) {
        mpsc::channel(LISTS)
    }

    /// Takes leave of the others.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(driver) = self.driver.take() else { return };
        if let Err(error) = driver.await {
            tracing::error!("the membership has ended badly: {error}");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}

#[cfg(test)]
mod tests;
