//! Real nodes on the loopback.

use std::net::Ipv4Addr;

use tokio::{
    net::TcpListener,
    time::{Duration, Instant, sleep, timeout},
};

use super::*;
use crate::{
    ClusterSecret, Identity,
    rate::Limits,
    transport::{Incoming, PoolConfig},
};

struct Node {
    id: NodeId,
    membership: Membership,
    pool: Arc<Pool>,
    forward: JoinHandle<()>,
}

impl Node {
    async fn start(identity: Identity, host: u8, port: u16, seed: Option<SocketAddr>) -> (Self, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).await.unwrap();
        let advertise = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(advertise).await.unwrap();
        let (id, seal) = (identity.id(), identity.seal().unwrap());
        let config = PoolConfig {
            build: String::new(),
            role: peer::Role::Peer,
            connections: 16,
            limits: Limits::default(),
        };
        let (pool, mut events) = Pool::start(identity, listener, config).unwrap();
        let (pool, (tell, told)) = (Arc::new(pool), Membership::inbox());
        let forward = tokio::spawn(async move {
            while let Some((node, event)) = events.recv().await {
                if let Incoming::Message(peer::Body::Members(members)) = event {
                    tell.try_send((node, members)).ok();
                }
            }
        });
        let seeds = seed.iter().map(ToString::to_string).collect();
        let membership =
            Membership::start(Arc::clone(&pool), seal, socket, told, MembershipConfig { advertise, seeds });
        (Self { id, membership, pool, forward }, advertise)
    }

    async fn sees(&self, expected: &[NodeId]) {
        let expected: std::collections::BTreeSet<_> = expected.iter().copied().collect();
        let mut members = self.membership.members();
        let seen = timeout(Duration::from_secs(20), members.wait_for(|members| members.keys().eq(&expected)));
        assert!(seen.await.is_ok(), "{:?}", self.membership.members().borrow());
    }

    /// Without a word.
    async fn kill(self) {
        self.forward.abort();
        drop(self.membership);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut pool = self.pool;
        loop {
            match Arc::try_unwrap(pool) {
                Ok(last) => return last.stop().await,
                Err(shared) => pool = shared,
            }
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_who_comes_goes_and_comes_back_and_no_stranger() {
    let secret = ClusterSecret::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = |name: &str| Identity::open(&dir.path().join(name), &secret).unwrap();
    let (a, seed) = Node::start(identity("a"), 2, 0, None).await;
    let (b, _) = Node::start(identity("b"), 3, 0, Some(seed)).await;
    let (c, address) = Node::start(identity("c"), 4, 0, Some(seed)).await;
    let stranger = Identity::ephemeral(&ClusterSecret::generate().unwrap()).unwrap();
    let (stranger, _) = Node::start(stranger, 5, 0, Some(seed)).await;
    let all = [a.id, b.id, c.id];
    for node in [&a, &b, &c] {
        node.sees(&all).await;
    }
    c.kill().await;
    a.sees(&all[..2]).await;
    b.sees(&all[..2]).await;
    let (c, _) = Node::start(identity("c"), 4, address.port(), Some(seed)).await;
    for node in [&a, &b, &c] {
        node.sees(&all).await;
    }
    stranger.sees(&[stranger.id]).await;
    c.membership.stop().await;
    a.sees(&all[..2]).await;
    b.sees(&all[..2]).await;
}
