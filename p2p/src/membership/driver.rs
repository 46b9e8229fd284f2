//! Sockets and clock for a [`Roll`].

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use p2p_api::peer::Body;
use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Told,
    roll::{Effect, Roll},
};
use crate::{
    NodeId,
    engine::Members,
    identity::Seal,
    transport::{Pool, Transport as _},
};

/// Longest datagram that is looked at.
const DATAGRAM: usize = 2048;
/// Rest when the socket fails.
const REST: Duration = Duration::from_millis(100);
/// Time for the name of a seed.
const LOOKUP: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Time between two looks for members by a node that knows of none, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub(super) struct Driver {
    roll: Roll,
    pool: Arc<Pool>,
    seal: Seal,
    socket: UdpSocket,
    seeds: Vec<String>,
    publish: watch::Sender<Arc<Members>>,
    began: Instant,
    look_at: Duration,
    look_after: Duration,
    /// Seeds that are being met.
    meeting: JoinSet<Option<NodeId>>,
}

impl Driver {
    pub(super) fn new(
        roll: Roll,
        pool: Arc<Pool>,
        seal: Seal,
        socket: UdpSocket,
        seeds: Vec<String>,
        publish: watch::Sender<Arc<Members>>,
    ) -> Self {
        let mine = roll.me().address.to_string();
        Self {
            roll,
            pool,
            seal,
            socket,
            seeds: seeds.into_iter().filter(|seed| *seed != mine).collect(),
            publish,
            began: Instant::now(),
            look_at: Duration::ZERO,
            look_after: LOOK.0,
            meeting: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self, mut told: mpsc::Receiver<Told>, stop: CancellationToken) {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let wake = self.began + self.wake_at();
            tokio::select! {
                () = stop.cancelled() => break,
                received = self.socket.recv_from(&mut datagram) => match received {
                    Ok((len, from)) => self.gossip(&datagram[..len], from),
                    Err(error) => {
                        tracing::warn!("datagrams cannot be received: {error}");
                        sleep(REST).await;
                    }
                },
                Some((from, members)) = told.recv() => self.roll.told(self.began.elapsed(), from, &members),
                Some(met) = self.meeting.join_next() => if let Ok(Some(node)) = met {
                    self.tell(node, Body::Members(self.roll.known(false)));
                },
                () = sleep_until(wake) => self.tick(),
            }
            self.settle();
        }
        self.meeting.shutdown().await;
        self.roll.leave(self.began.elapsed());
        self.settle();
    }

    fn wake_at(&self) -> Duration {
        let look = if self.is_looking() { self.look_at } else { Duration::MAX };
        // A day is soon enough, and no overflow.
        self.roll.wake_at().min(look).min(self.began.elapsed() + Duration::from_hours(24))
    }

    fn is_looking(&self) -> bool {
        self.roll.others() == 0 && self.meeting.is_empty() && !self.seeds.is_empty()
    }

    fn tick(&mut self) {
        let now = self.began.elapsed();
        self.roll.tick(now);
        if self.is_looking() && self.look_at <= now {
            self.look_at = now + self.look_after;
            self.look_after = (self.look_after * 2).min(LOOK.1);
            for seed in self.seeds.clone() {
                self.meeting.spawn(meet(Arc::clone(&self.pool), seed));
            }
        }
    }

    fn gossip(&mut self, datagram: &[u8], from: SocketAddr) {
        match self.seal.open(SystemTime::now(), datagram) {
            Ok((sender, payload)) => self.roll.gossip(self.began.elapsed(), sender, &payload),
            Err(error) => tracing::debug!(%from, "a datagram is dropped: {error}"),
        }
    }

    fn settle(&mut self) {
        for effect in self.roll.effects() {
            match effect {
                Effect::Gossip(to, payload) => {
                    let datagram = self.seal.seal(SystemTime::now(), to.node, &payload);
                    // Gossip may be lost; it comes again.
                    if let Err(error) = self.socket.try_send_to(&datagram, to.address) {
                        tracing::debug!(node = %to.node, "a datagram is not sent: {error}");
                    }
                }
                Effect::Tell(to, known) => {
                    if let Err(refused) = self.pool.connect(to.node, to.address) {
                        tracing::debug!(node = %to.node, "not connected to exchange members: {refused}");
                    }
                    self.tell(to.node, Body::Members(known));
                }
            }
        }
        if self.roll.has_changed() {
            let alive = self.roll.alive();
            if self.roll.others() > 0 {
                self.look_after = LOOK.0;
            }
            self.publish.send_if_modified(|published| {
                let modified = **published != alive;
                if modified {
                    tracing::info!(members = alive.len(), "the members have changed");
                    *published = Arc::new(alive);
                }
                modified
            });
        }
    }

    fn tell(&self, node: NodeId, known: Body) {
        if let Err(refused) = self.pool.send(node, known) {
            tracing::debug!(%node, "members are not told: {refused}");
        }
    }
}

/// Finds who is at a seed.
async fn meet(pool: Arc<Pool>, seed: String) -> Option<NodeId> {
    let found = match timeout(LOOKUP, lookup_host(&seed)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(seed, "its address is not found: {error}");
            return None;
        }
        Err(_) => {
            tracing::warn!(seed, "its address is not found in time");
            return None;
        }
    };
    for address in found.take(ADDRESSES) {
        match pool.meet(address).await {
            Ok(node) => return Some(node),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    None
}
