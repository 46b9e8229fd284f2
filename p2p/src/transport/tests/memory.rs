//! The suite within one process, and what only that can do.

use std::num::NonZeroU64;

use tokio::time::Instant;

use super::{conformance::conforms, *};
use crate::{
    rate::Rate,
    transport::channel::{Channel, Network, Uplink, Weather},
};

const FREE: Uplink = Uplink { up: Rate::UNLIMITED, down: Rate::UNLIMITED };
const DELAY: Duration = Duration::from_millis(1);

struct Memory {
    network: Network,
    uplink: Uplink,
    next: u8,
}

impl Memory {
    fn new(seed: u64, loss: f64) -> Self {
        // Fast enough for the suite, and not without limit, so that queues fill.
        let rate = Rate::per_second(NonZeroU64::new(100 << 20).unwrap());
        let network = Network::new(seed, Weather { delay: DELAY, loss });
        Self { network, uplink: Uplink { up: rate, down: rate }, next: 0 }
    }

    fn attach(&self, number: u8, uplink: Uplink) -> Peer {
        let (channel, events): (Channel, _) = self.network.attach(NodeId([number; 32]), uplink);
        Peer { transport: Arc::new(channel), events, address: SocketAddr::from(([10, 0, 0, number], 1)) }
    }
}

impl Bed for Memory {
    async fn peer(&mut self) -> Peer {
        tokio::task::yield_now().await;
        self.next += 1;
        self.attach(self.next, self.uplink)
    }
}

conforms!(Memory::new(1, 0.0), tokio::test(start_paused = true));

mod lossy {
    use super::*;

    conforms!(Memory::new(2, 0.02), tokio::test(start_paused = true));
}

async fn next_in(peer: &mut Peer, time: Duration) -> Event {
    timeout(time, peer.events.recv()).await.expect("an event in time").expect("more events")
}

fn megabytes(rate: u64) -> Rate {
    Rate::per_second(NonZeroU64::new(rate << 20).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_piece_takes_the_time_of_the_slower_end_and_the_way() {
    let bed = Memory::new(1, 0.0);
    bed.network.set_weather(Weather { delay: Duration::from_millis(100), loss: 0.0 });
    for (number, up, down) in [(1, 2, 1), (3, 1, 2)] {
        let mut a = bed.attach(number, Uplink { up: megabytes(up), down: Rate::UNLIMITED });
        let mut b = bed.attach(number + 1, Uplink { up: Rate::UNLIMITED, down: megabytes(down) });
        a.connect(&b);
        a.connected(b.id()).await;
        b.connected(a.id()).await;
        let begin = Instant::now();
        for number in 0..10 {
            a.transport.send_piece(b.id(), piece(number, Lane::Urgent, vec![0; 1 << 20])).unwrap();
        }
        for number in 0..10 {
            assert_eq!(b.number().await, number);
        }
        assert!(matches!(a.next().await, (_, Incoming::Sent { piece: 0, .. })));
        let took = begin.elapsed().as_secs_f64();
        assert!((9.8..10.3).contains(&took), "{took}");
    }
}

#[tokio::test(start_paused = true)]
async fn receivers_share_the_way_out_evenly() {
    let bed = Memory::new(1, 0.0);
    let a = bed.attach(100, Uplink { up: megabytes(10), down: Rate::UNLIMITED });
    let mut receivers: Vec<_> = (1..=5).map(|number| bed.attach(number, FREE)).collect();
    for receiver in &receivers {
        a.connect(receiver);
        for number in 0..10 {
            a.transport.send_piece(receiver.id(), piece(number, Lane::Urgent, vec![0; 1 << 20])).unwrap();
        }
    }
    let begin = Instant::now();
    let (id, _a) = (a.id(), a.deaf());
    for receiver in &mut receivers {
        receiver.connected(id).await;
        while receiver.number().await < 9 {}
        let took = begin.elapsed().as_secs_f64();
        assert!((4.9..5.2).contains(&took), "{took}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_partition_delays_and_a_long_one_ends_the_connection() {
    let mut bed = Memory::new(1, 0.0);
    let (mut a, mut b) = pair(&mut bed).await;
    bed.network.set_part(b.id(), 1);
    a.say(b.id(), 1).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    b.quiet().await;
    bed.network.set_part(b.id(), 0);
    assert_eq!(b.number().await, 1);

    bed.network.set_part(b.id(), 1);
    a.say(b.id(), 2).unwrap();
    assert_eq!(a.closed(b.id()).await, Closed::Stalled);
    assert_eq!(b.closed(a.id()).await, Closed::Stalled);
    a.connect(&b);
    assert!(matches!(a.closed(b.id()).await, Closed::Unreachable(_)));
    bed.network.set_part(b.id(), 0);
    a.connect(&b);
    a.connected(b.id()).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_across_a_partition_is_noticed() {
    let mut bed = Memory::new(1, 0.0);
    let (mut a, b) = pair(&mut bed).await;
    bed.network.set_part(b.id(), 1);
    tokio::time::sleep(Duration::from_secs(50)).await;
    a.quiet().await;
    assert_eq!(a.closed(b.id()).await, Closed::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_follows_a_killed_one_is_heard_of_after_its_end() {
    let mut bed = Memory::new(1, 0.0);
    let (mut a, b) = pair(&mut bed).await;
    let (id, number) = (b.id(), b.id().0[0]);
    bed.network.kill(id);
    let mut again = bed.attach(number, FREE);
    again.connect(&a);
    assert_eq!(a.closed(id).await, Closed::There);
    a.connected(id).await;
    again.connected(a.id()).await;
    again.quiet().await;
}

/// Passes each piece on to the next node.
async fn pass_on(mut peer: Peer) {
    let next = NodeId([peer.id().0[0] + 1; 32]);
    loop {
        let (_, incoming) = next_in(&mut peer, Duration::from_mins(10)).await;
        if let Incoming::Piece { piece: number, bytes, .. } = incoming {
            peer.transport.send_piece(next, piece(number, Lane::Urgent, bytes)).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_nodes_pass_pieces_on_in_virtual_time() {
    const NODES: u8 = 250;
    let bed = Memory::new(1, 0.0);
    let uplink = Uplink { up: megabytes(1), down: megabytes(1) };
    let mut peers: Vec<_> = (0..NODES).map(|number| bed.attach(number, uplink)).collect();
    for at in 1..peers.len() {
        peers[at - 1].connect(&peers[at]);
    }
    let bytes = Bytes::from(vec![0; 1 << 20]);
    (0..20).for_each(|number| {
        peers[0].transport.send_piece(NodeId([1; 32]), piece(number, Lane::Urgent, bytes.clone())).unwrap();
    });
    let begin = Instant::now();
    let mut last = peers.pop().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    peers.into_iter().skip(1).for_each(|peer| _ = tasks.spawn(pass_on(peer)));
    last.connected(NodeId([NODES - 2; 32])).await;
    for number in 0..20 {
        let (_, Incoming::Piece { piece, .. }) = next_in(&mut last, Duration::from_mins(10)).await else {
            panic!()
        };
        assert_eq!(piece, number);
    }
    // A chain: one piece's time for each node before the last, and for each piece.
    let took = begin.elapsed().as_secs_f64();
    assert!((0.98..1.05).contains(&(took / (249.0 + 19.0))), "{took}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_times() {
    let mut times = Vec::new();
    for _ in 0..2 {
        let mut bed = Memory::new(7, 0.2);
        let begin = Instant::now();
        let (a, mut b) = pair(&mut bed).await;
        let a = a.deaf();
        let mut run = Vec::new();
        for number in 0..50 {
            a.transport.send_piece(b.id(), piece(number, Lane::Background, vec![0; 100_000])).unwrap();
        }
        for _ in 0..50 {
            b.number().await;
            run.push(begin.elapsed());
        }
        times.push(run);
    }
    assert_eq!(times[0], times[1]);
    assert!(times[0].last() > Some(&Duration::from_millis(200)), "something was lost");
}
