//! A TCP relay that makes loopback a slower link: a round trip, a bandwidth shared by all connections, and a count of
//! the bytes that came through.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

const SEGMENT: usize = 16 << 10;
/// Segments under way on one connection: more than any link here can hold.
const UNDER_WAY: usize = 256;

/// A kind of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Time for a question and its answer.
    pub round_trip: Duration,
    /// Bits per second each way; 0 sets no limit.
    pub bits_per_second: u64,
}

impl Link {
    /// Loopback as it is.
    pub const DIRECT: Self = Self { round_trip: Duration::ZERO, bits_per_second: 0 };
    /// An ordinary registry: 10 ms away, 200 Mbit/s.
    pub const ORDINARY: Self = Self { round_trip: Duration::from_millis(10), bits_per_second: 200_000_000 };
    /// A good one: 10 ms away, 1 Gbit/s.
    pub const FAST: Self = Self { round_trip: Duration::from_millis(10), bits_per_second: 1_000_000_000 };
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    runtime: Option<Runtime>,
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Relay {
    /// Relays connections on loopback to `target`.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn start(target: SocketAddr, link: Link) -> Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST, target, link)
    }

    /// Relays connections to this address.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn at(address: Ipv4Addr, target: SocketAddr, link: Link) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((address, 0))).context("listen for the relay")?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let up = Arc::new(Direction::new(link, Arc::default()));
        let down = Arc::new(Direction::new(link, Arc::clone(&received)));
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                tokio::spawn(async move {
                    // The handshake of a far host takes a round trip of its own.
                    sleep(link.round_trip).await;
                    drop(relay(client, target, up, down).await);
                });
            }
        });
        Ok(Self { runtime: Some(runtime), address, received })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that clients have received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One way of the link, shared by all connections.
#[derive(Debug)]
struct Direction {
    delay: Duration,
    bits_per_second: u64,
    free: Mutex<Instant>,
    count: Arc<AtomicU64>,
}

impl Direction {
    fn new(link: Link, count: Arc<AtomicU64>) -> Self {
        let (delay, bits_per_second) = (link.round_trip / 2, link.bits_per_second);
        Self { delay, bits_per_second, free: Mutex::new(Instant::now()), count }
    }

    /// When bytes that are ready now have passed the link: it sends one segment after another.
    fn arrival(&self, bytes: usize) -> Instant {
        let busy = match self.bits_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / rate),
        };
        let mut free = self.free.lock().expect("no holder panics");
        *free = (*free).max(Instant::now()) + busy;
        *free + self.delay
    }
}

async fn relay(
    client: TcpStream,
    target: SocketAddr,
    up: Arc<Direction>,
    down: Arc<Direction>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let ends = tokio::join!(one_way(from_client, to_server, &up), one_way(from_server, to_client, &down));
    ends.0.and(ends.1)
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    direction: &Direction,
) -> io::Result<()> {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let enter = async {
        let send = send;
        loop {
            let mut segment = vec![0; SEGMENT];
            let len = from.read(&mut segment).await?;
            segment.truncate(len);
            if len == 0 || send.send((direction.arrival(len), segment)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let leave = async {
        let mut receive = std::mem::replace(&mut receive, mpsc::channel(1).1);
        while let Some((arrival, segment)) = receive.recv().await {
            sleep_until(arrival).await;
            to.write_all(&segment).await?;
            direction.count.fetch_add(segment.len() as u64, Ordering::Relaxed);
        }
        to.shutdown().await
    };
    tokio::try_join!(enter, leave).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        thread,
    };

    use super::*;

    fn server(answer: usize) -> SocketAddr {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(&vec![7; answer]).unwrap();
        });
        address
    }

    fn ask(link: Link, answer: usize) -> (Duration, u64) {
        let relay = Relay::start(server(answer), link).unwrap();
        let start = std::time::Instant::now();
        let mut stream = std::net::TcpStream::connect(relay.address()).unwrap();
        stream.write_all(&[1]).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![7; answer]);
        (start.elapsed(), relay.received())
    }

    #[test]
    fn an_answer_takes_a_handshake_a_round_trip_and_its_length() {
        let link = Link { round_trip: Duration::from_millis(20), bits_per_second: 80_000_000 };
        let (took, bytes) = ask(link, 1_000_000);
        assert!(took >= Duration::from_millis(140), "{took:?}");
        assert_eq!(bytes, 1_000_000);
    }
}
