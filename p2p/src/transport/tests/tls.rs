//! The suite over TLS, and what only that can do wrong.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{conformance::conforms, *};
use crate::{ClusterSecret, Identity, rate::Limits};

/// Nodes of one cluster on the loopback.
struct Loopback {
    secret: ClusterSecret,
    connections: usize,
}

impl Loopback {
    fn new() -> Self {
        Self { secret: ClusterSecret::generate().unwrap(), connections: 64 }
    }

    async fn pool(&self) -> (Pool, mpsc::Receiver<Event>, SocketAddr) {
        self.pool_as(Identity::ephemeral(&self.secret).unwrap()).await
    }

    async fn pool_as(&self, identity: Identity) -> (Pool, mpsc::Receiver<Event>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = PoolConfig {
            build: "test".to_owned(),
            role: peer::Role::Peer,
            connections: self.connections,
            limits: Limits::default(),
        };
        let (pool, events) = Pool::start(identity, listener, config).unwrap();
        (pool, events, address)
    }
}

impl Bed for Loopback {
    async fn peer(&mut self) -> Peer {
        let (pool, events, address) = self.pool().await;
        Peer { transport: Arc::new(pool), events, address }
    }
}

conforms!(Loopback::new(), tokio::test(flavor = "multi_thread", worker_threads = 2));

#[tokio::test]
async fn a_greeting_says_what_the_node_is() {
    let mut bed = Loopback::new();
    let (mut a, b) = (bed.peer().await, bed.peer().await);
    a.connect(&b);
    let hello = a.connected(b.id()).await;
    assert_eq!((hello.version, hello.build.as_str()), (p2p_api::VERSION, "test"));
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_reached_and_hears_nothing() {
    let (mut a, mut stranger) = (Loopback::new().peer().await, Loopback::new().peer().await);
    a.connect(&stranger);
    assert!(matches!(a.closed(stranger.id()).await, Closed::Unreachable(_)));
    stranger.connect(&a);
    assert!(matches!(stranger.closed(a.id()).await, Closed::Unreachable(_)));
    a.quiet().await;
    stranger.quiet().await;
}

#[tokio::test]
async fn a_member_at_the_address_of_another_is_not_taken_for_it() {
    let mut bed = Loopback::new();
    let (mut a, mut b, c) = (bed.peer().await, bed.peer().await, bed.peer().await);
    a.transport.connect(c.id(), b.address).unwrap();
    assert!(matches!(a.closed(c.id()).await, Closed::Unreachable(_)));
    b.quiet().await;
    assert_eq!(a.transport.connect(c.id(), c.address), Err(Refused::BackingOff));
}

#[tokio::test]
async fn what_speaks_no_tls_gets_nothing() {
    let mut bed = Loopback::new();
    let mut a = bed.peer().await;
    let mut stream = TcpStream::connect(a.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    // An alert of TLS at most.
    assert!(ended.is_err() || answer.len() <= 7, "{answer:?}");
    a.quiet().await;
}

#[tokio::test]
async fn silent_strangers_neither_stay_nor_keep_members_out() {
    let mut bed = Loopback::new();
    let (mut a, mut b) = (bed.peer().await, bed.peer().await);
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(b.address).await.unwrap());
    }
    // Beyond the bound they are closed at once, the others when their time is over.
    let mut byte = [0];
    for stream in &mut silent {
        let ended = timeout(Duration::from_secs(20), stream.read(&mut byte)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    a.connect(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
}

#[tokio::test]
async fn a_member_is_met_by_its_address_alone() {
    let bed = Loopback::new();
    let ((a, events_a, address_a), (b, events_b, address_b)) = (bed.pool().await, bed.pool().await);
    assert_eq!(a.meet(address_b).await.unwrap(), b.id());
    assert!(matches!(b.meet(address_b).await, Err(MeetError::TurnedAway { .. })), "itself");
    let (a_id, b_id) = (a.id(), b.id());
    let mut a = Peer { transport: Arc::new(a), events: events_a, address: address_a };
    let mut b = Peer { transport: Arc::new(b), events: events_b, address: address_b };
    a.connected(b_id).await;
    b.connected(a_id).await;
    a.say(b_id, 1).unwrap();
    assert_eq!(b.number().await, 1);
}

#[tokio::test]
async fn a_node_that_restarts_is_connected_anew_and_the_old_end_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Loopback::new();
    let mut a = bed.peer().await;
    for round in 0..3 {
        let identity = Identity::open(dir.path(), &bed.secret).unwrap();
        let (pool, events, address) = bed.pool_as(identity).await;
        let mut b = Peer { transport: Arc::new(pool), events, address };
        b.connect(&a);
        if round > 0 {
            a.closed(b.id()).await;
        }
        a.connected(b.id()).await;
        b.connected(a.id()).await;
    }
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut bed = Loopback::new();
    bed.connections = 2;
    let mut a = bed.peer().await;
    for _ in 0..2 {
        let mut other = bed.peer().await;
        a.connect(&other);
        a.connected(other.id()).await;
        other.connected(a.id()).await;
        std::mem::forget(other);
    }
    let mut third = bed.peer().await;
    assert_eq!(a.transport.connect(third.id(), third.address), Err(Refused::Crowded));
    third.connect(&a);
    assert!(matches!(third.closed(a.id()).await, Closed::Unreachable(_)));
}

#[tokio::test]
async fn a_pool_that_stops_ends_its_connections() {
    let bed = Loopback::new();
    let ((a, _events, _), (b, events, address)) = (bed.pool().await, bed.pool().await);
    let a_id = a.id();
    a.connect(b.id(), address).unwrap();
    let mut b = Peer { transport: Arc::new(b), events, address };
    b.connected(a_id).await;
    timeout(Duration::from_secs(5), a.stop()).await.unwrap();
    assert_eq!(b.closed(a_id).await, Closed::There);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_dial_each_other_have_one_connection_for_each_pair() {
    let mut bed = Loopback::new();
    let mut peers = Vec::new();
    for _ in 0..6 {
        peers.push(bed.peer().await);
    }
    let known: Vec<_> = peers.iter().map(|peer| (peer.id(), peer.address)).collect();
    for peer in &peers {
        for (id, address) in known.iter().filter(|(id, _)| *id != peer.id()) {
            peer.transport.connect(*id, *address).unwrap();
            peer.say(*id, 1).unwrap();
        }
    }
    for peer in &mut peers {
        let mut notes = 0;
        let mut open = std::collections::HashMap::<_, i32>::new();
        while notes < known.len() - 1 || open.values().any(|count| *count != 1) {
            match peer.next().await {
                (id, Incoming::Connected(_)) => *open.entry(id).or_default() += 1,
                (id, Incoming::Closed(_)) => *open.entry(id).or_default() -= 1,
                (_, Incoming::Message(_)) => notes += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(open.values().all(|count| *count == 1), "{open:?}");
    }
}
