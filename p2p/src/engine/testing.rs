//! Nodes that are whole, but for their network, which is made up: within one process, for tokio's paused clock.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for tests: what does not hold is to end them"
)]

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use p2p_pieces::PieceLister;
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until, timeout},
};

use super::{Blob, Content, Engine, Members, Origin, OriginError, Parts};
use crate::{
    NodeId, PieceLayout, Priority,
    metrics::Metrics,
    owner::ranked,
    peer::Hold,
    rate::{Limits, Rate},
    store::{Budget, Store},
    transport::channel::{Network, Uplink, Weather},
};

/// An origin with a link of its own, that counts what leaves it.
#[derive(Debug)]
pub struct Server {
    /// What it has.
    pub blob: Vec<u8>,
    rate: u64,
    free_at: Mutex<Option<Instant>>,
    /// Bytes that have left it.
    pub sent: AtomicU64,
    /// Where pieces begin that it spoils, the first time that they leave.
    pub spoils: Mutex<Vec<u64>>,
    /// Whether it answers nothing.
    pub down: AtomicBool,
}

impl Server {
    /// An origin that sends so many bytes per second.
    #[must_use]
    pub fn new(blob: Vec<u8>, rate: u64) -> Self {
        let (free_at, spoils) = (Mutex::default(), Mutex::default());
        Self { blob, rate, free_at, sent: AtomicU64::new(0), spoils, down: AtomicBool::new(false) }
    }

    /// When so many bytes more have left.
    fn sent_at(&self, len: u64) -> Instant {
        let mut free_at = self.free_at.lock().unwrap();
        let begin = free_at.map_or_else(Instant::now, |at| at.max(Instant::now()));
        let done = begin + Duration::from_nanos(len * 1_000_000_000 / self.rate);
        *free_at = Some(done);
        done
    }

    #[allow(clippy::cast_possible_truncation, reason = "the blob is in memory")]
    fn bytes(&self, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = self.blob[range.start as usize..range.end as usize].to_vec();
        let mut spoils = self.spoils.lock().unwrap();
        if let Some(place) = spoils.iter().position(|start| *start == range.start) {
            spoils.swap_remove(place);
            bytes[7] ^= 1;
        }
        bytes
    }
}

impl Origin for Server {
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        Box::pin(async move {
            if self.down.load(Ordering::Relaxed) {
                let source = "it is down".into();
                return Err(OriginError { origin: "the server".into(), range, refused: false, source });
            }
            let len = range.end - range.start;
            self.sent.fetch_add(len, Ordering::Relaxed);
            sleep_until(self.sent_at(len)).await;
            Ok(self.bytes(&range).into())
        })
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many nodes.
    pub nodes: usize,
    /// Pieces of the blob, the last one shorter.
    pub pieces: usize,
    /// Bytes of a piece.
    pub piece: u32,
    /// Bytes per second of each node's link, each way.
    pub rate: u64,
    /// Bytes per second of the origin's.
    pub origin_rate: u64,
    /// How the network treats what is sent.
    pub weather: Weather,
    /// Decides what is left to chance.
    pub seed: u64,
}

impl Default for Shape {
    /// Sixteen nodes of 25 MB/s each, 0.5 ms apart.
    fn default() -> Self {
        Self {
            nodes: 16,
            pieces: 100,
            piece: PieceLayout::MIN_SIZE,
            rate: 25_000_000,
            origin_rate: 25_000_000,
            weather: Weather { delay: Duration::from_micros(500), loss: 0.0 },
            seed: 1,
        }
    }
}

/// A cluster of nodes that may all take part in one blob.
#[derive(Debug)]
pub struct Cluster {
    /// Between them.
    pub network: Network,
    /// Who is alive, as all see it.
    pub members: watch::Sender<Arc<Members>>,
    /// The nodes.
    pub engines: Vec<Engine>,
    /// What they count.
    pub metrics: Vec<Metrics>,
    /// The blob.
    pub content: Content,
    /// Where it is.
    pub server: Arc<Server>,
    /// How far their hosts need room.
    pub host: watch::Sender<Hold>,
    /// Where the nodes keep it.
    pub dir: tempfile::TempDir,
}

/// The name of a node of a cluster.
#[must_use]
pub fn id(number: usize) -> NodeId {
    NodeId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

impl Cluster {
    /// Starts one. To be called within tokio.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self::on(tempfile::tempdir().unwrap(), shape)
    }

    /// Starts one whose nodes keep their pieces below a directory, in one for each.
    #[must_use]
    pub fn on(dir: tempfile::TempDir, shape: Shape) -> Self {
        let mut blob = vec![0; shape.pieces * shape.piece as usize - 1000];
        fastrand::Rng::with_seed(shape.seed).fill(&mut blob);
        let mut lister = PieceLister::with_size(shape.piece).unwrap();
        lister.update(&blob);
        let content = Content::Listed { blob: [7; 32], list: Arc::new(lister.finish().unwrap()) };
        let network = Network::new(shape.seed, shape.weather);
        let members: Members =
            (0..shape.nodes).map(|number| (id(number), ([127, 0, 0, 1], 1).into())).collect();
        let (members, watched) = watch::channel(Arc::new(members));
        let metrics: Vec<_> = std::iter::repeat_with(Metrics::default).take(shape.nodes).collect();
        let host = watch::Sender::new(Hold::NONE);
        let start = |(number, metrics): (usize, Metrics)| {
            let link = Rate::per_second(shape.rate.try_into().unwrap());
            let (transport, events) = network.attach(id(number), Uplink { up: link, down: link });
            let budget = Budget { bytes: u64::MAX, keep_free: 0 };
            let store = Arc::new(Store::open(&dir.path().join(number.to_string()), budget).unwrap());
            Engine::start(Parts {
                transport: Arc::new(transport),
                events,
                store,
                members: watched.clone(),
                told: tokio::sync::mpsc::channel(1).0,
                limits: Limits::default(),
                host: host.subscribe(),
                metrics,
                seed: shape.seed.wrapping_mul(1_000_003) + number as u64,
            })
        };
        let engines = metrics.iter().cloned().enumerate().map(start).collect();
        let server = Arc::new(Server::new(blob, shape.origin_rate));
        Self { network, members, engines, metrics, content, server, host, dir }
    }

    /// Opens the blob at a node.
    pub async fn open(&self, node: usize) -> Blob {
        self.open_from(node, self.server.clone()).await
    }

    /// Opens it, where the node has an origin of its own.
    pub async fn open_from(&self, node: usize, origin: Arc<dyn Origin>) -> Blob {
        self.engines[node].open(self.content.clone(), origin).await.unwrap()
    }

    /// Fetches the whole blob on a node and compares it; gives how long that took.
    pub async fn download(&self, node: usize) -> Duration {
        let began = Instant::now();
        let blob = self.open(node).await;
        let all = 0..blob.layout().len();
        blob.fetch(all.clone(), Priority::Background).await.unwrap();
        let took = began.elapsed();
        assert!(blob.read(all, Priority::Demand).await.unwrap() == self.server.blob, "node {node}");
        took
    }

    /// How many copies have left the origin.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    pub fn copies(&self) -> f64 {
        self.server.sent.load(Ordering::Relaxed) as f64 / self.server.blob.len() as f64
    }

    /// Whether a node is the owner of the blob's task.
    #[must_use]
    pub fn owns(&self, node: usize) -> bool {
        let members = self.members.borrow().keys().copied().collect::<Vec<_>>();
        ranked(self.content.task(), members, 1) == [id(node)]
    }

    /// Ends all nodes.
    pub async fn stop(self) {
        timeout(Duration::from_secs(60), join_all(self.engines.into_iter().map(Engine::stop))).await.unwrap();
    }
}
