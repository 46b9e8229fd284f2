//! What every transport must do, checked over each.

mod conformance;
mod memory;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// Where nodes come from.
trait Bed {
    async fn peer(&mut self) -> Peer;
}

/// A node under test.
struct Peer {
    transport: Arc<dyn Transport>,
    events: mpsc::Receiver<Event>,
    address: SocketAddr,
}

impl Peer {
    fn id(&self) -> NodeId {
        self.transport.id()
    }

    fn connect(&self, to: &Self) {
        self.transport.connect(to.id(), to.address).unwrap();
    }

    async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(30), self.events.recv())
            .await
            .expect("an event in time")
            .expect("more events")
    }

    async fn connected(&mut self, to: NodeId) -> peer::Hello {
        match self.next().await {
            (from, Incoming::Connected(hello)) if from == to => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self, from: NodeId) -> Closed {
        match self.next().await {
            (node, Incoming::Closed(why)) if node == from => why,
            other => panic!("{other:?}"),
        }
    }

    /// The next message or piece as a number.
    async fn number(&mut self) -> u32 {
        match self.next().await {
            (_, Incoming::Message(Body::Have(have))) => have.pieces[0],
            (_, Incoming::Piece { piece, .. }) => piece,
            other => panic!("{other:?}"),
        }
    }

    /// Goes on without anybody who listens; what is sent is sent.
    fn deaf(mut self) -> Deaf {
        let transport = self.transport.clone();
        let listening =
            AbortOnDropHandle::new(tokio::spawn(async move { while self.events.recv().await.is_some() {} }));
        Deaf { transport, _listening: listening }
    }

    fn say(&self, to: NodeId, number: u32) -> Result<(), Refused> {
        self.transport.send(to, note(number))
    }

    /// Nothing comes for a while.
    async fn quiet(&mut self) {
        let more = timeout(Duration::from_millis(300), self.events.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

/// A node whose events nobody wants.
struct Deaf {
    transport: Arc<dyn Transport>,
    _listening: AbortOnDropHandle<()>,
}

fn task() -> TaskId {
    TaskId::from_bytes([3; 32])
}

fn note(number: u32) -> Body {
    Body::Have(peer::Have { task: vec![3; 32].into(), pieces: vec![number] })
}

fn piece(number: u32, lane: Lane, bytes: impl Into<Bytes>) -> Outgoing {
    Outgoing { task: task(), piece: number, bytes: bytes.into(), lane, limit: None, pace: None }
}

async fn pair(bed: &mut impl Bed) -> (Peer, Peer) {
    let (mut a, mut b) = (bed.peer().await, bed.peer().await);
    a.connect(&b);
    a.connected(b.id()).await;
    b.connected(a.id()).await;
    (a, b)
}
