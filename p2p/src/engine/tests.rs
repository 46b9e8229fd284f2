//! Whole nodes over a network within this process, in virtual time.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers of tests")]

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::{BoxFuture, join_all};
use p2p_pieces::PieceLister;
use tokio::time::{Duration, Instant, sleep, timeout};

mod plain;

use super::*;
use crate::{
    rate::Rate,
    store::Budget,
    transport::channel::{Network, Uplink, Weather},
};

const PIECE: u32 = PieceLayout::MIN_SIZE;
/// A piece takes 20 ms.
const RATE: u64 = 50 * PIECE as u64;

/// An origin with a link of its own, that counts what leaves it.
#[derive(Debug)]
struct Server {
    blob: Vec<u8>,
    rate: u64,
    free_at: Mutex<Option<Instant>>,
    sent: AtomicU64,
    /// Pieces that it spoils, the first time that they leave.
    spoils: Mutex<Vec<u64>>,
    down: std::sync::atomic::AtomicBool,
}

impl Server {
    fn new(blob: Vec<u8>, rate: u64) -> Self {
        let (free_at, spoils) = (Mutex::default(), Mutex::default());
        Self { blob, rate, free_at, sent: AtomicU64::new(0), spoils, down: false.into() }
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
            let done = {
                let mut free_at = self.free_at.lock().unwrap();
                let begin = free_at.map_or_else(Instant::now, |at| at.max(Instant::now()));
                let done = begin + Duration::from_nanos(len * 1_000_000_000 / self.rate);
                *free_at = Some(done);
                done
            };
            tokio::time::sleep_until(done).await;
            let mut bytes = self.blob[range.start as usize..range.end as usize].to_vec();
            let mut spoils = self.spoils.lock().unwrap();
            if let Some(place) = spoils.iter().position(|start| *start == range.start) {
                spoils.swap_remove(place);
                bytes[7] ^= 1;
            }
            Ok(bytes.into())
        })
    }
}

/// A cluster of nodes that may all take part in one blob.
struct Cluster {
    network: Network,
    members: watch::Sender<Arc<Members>>,
    engines: Vec<Engine>,
    content: Content,
    server: Arc<Server>,
    dir: tempfile::TempDir,
}

fn id(number: usize) -> NodeId {
    NodeId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

impl Cluster {
    fn new(nodes: usize, pieces: usize, origin_rate: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut blob = vec![0; pieces * PIECE as usize - 1000];
        random.fill(&mut blob);
        let mut lister = PieceLister::with_size(PIECE).unwrap();
        lister.update(&blob);
        let content = Content::Listed { blob: [7; 32], list: Arc::new(lister.finish().unwrap()) };
        let network = Network::new(1, Weather { delay: Duration::from_micros(500), loss: 0.0 });
        let members: Members = (0..nodes).map(|number| (id(number), ([127, 0, 0, 1], 1).into())).collect();
        let (members, watched) = watch::channel(Arc::new(members));
        let dir = tempfile::tempdir().unwrap();
        let engines = (0..nodes).map(|number| {
            let link = Rate::per_second(RATE.try_into().unwrap());
            let (transport, events) = network.attach(id(number), Uplink { up: link, down: link });
            let budget = Budget { bytes: u64::MAX, keep_free: 0 };
            let store = Arc::new(Store::open(&dir.path().join(number.to_string()), budget).unwrap());
            let (transport, members) = (Arc::new(transport), watched.clone());
            Engine::start(Parts {
                transport,
                events,
                store,
                members,
                told: tokio::sync::mpsc::channel(1).0,
                limits: crate::rate::Limits::default(),
                metrics: Metrics::default(),
                seed: number as u64,
            })
        });
        let engines = engines.collect();
        let server = Arc::new(Server::new(blob, origin_rate));
        Self { network, members, engines, content, server, dir }
    }

    async fn open(&self, node: usize) -> Blob {
        self.open_from(node, self.server.clone()).await
    }

    async fn open_from(&self, node: usize, origin: Arc<dyn Origin>) -> Blob {
        self.engines[node].open(self.content.clone(), origin).await.unwrap()
    }

    /// Fetches the whole blob on a node and compares it; gives how long that took.
    async fn download(&self, node: usize) -> Duration {
        let began = Instant::now();
        let blob = self.open(node).await;
        let all = 0..blob.layout().len();
        blob.fetch(all.clone(), Priority::Background).await.unwrap();
        let took = began.elapsed();
        assert!(blob.read(all, Priority::Demand).await.unwrap() == self.server.blob, "node {node}");
        took
    }

    fn copies(&self) -> f64 {
        self.server.sent.load(Ordering::Relaxed) as f64 / self.server.blob.len() as f64
    }

    /// Whether a node is the owner of the blob's task.
    fn owns(&self, node: usize) -> bool {
        let members = self.members.borrow().keys().copied().collect::<Vec<_>>();
        crate::owner::ranked(self.content.task(), members, 1) == [id(node)]
    }

    async fn stop(self) {
        timeout(Duration::from_secs(60), join_all(self.engines.into_iter().map(Engine::stop))).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_fetches_a_blob_and_reads_it() {
    let cluster = Cluster::new(1, 20, RATE);
    let took = cluster.download(0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!((cluster.copies() - 1.0).abs() < 0.01);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_nodes_take_one_copy_from_the_origin_and_little_longer_than_one() {
    sixteen_take_one_copy(|nodes| Cluster::new(nodes, 100, RATE)).await;
}

/// Downloads by one node and by sixteen at once, in clusters that `make` makes.
async fn sixteen_take_one_copy(make: impl Fn(usize) -> Cluster) {
    let alone = make(1);
    let one = alone.download(0).await;
    alone.stop().await;
    let cluster = make(16);
    let took = join_all((0..16).map(|node| cluster.download(node))).await;
    let last = took.iter().max().unwrap().as_secs_f64() / one.as_secs_f64();
    println!("16 nodes take {last:.2} times what one takes; {:.3} copies", cluster.copies());
    assert!(cluster.copies() <= 1.05, "{} copies", cluster.copies());
    assert!(last < 1.6, "{last}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_node_gets_all_from_the_others() {
    let cluster = Cluster::new(4, 30, RATE);
    join_all((0..3).map(|node| cluster.download(node))).await;
    cluster.server.down.store(true, Ordering::Relaxed);
    cluster.download(3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_the_origin_spoils_is_fetched_again() {
    let cluster = Cluster::new(3, 20, RATE);
    cluster.server.spoils.lock().unwrap().extend([0, 5 * u64::from(PIECE)]);
    join_all((0..3).map(|node| cluster.download(node))).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_down_is_an_error_in_time() {
    let cluster = Cluster::new(2, 5, RATE);
    cluster.server.down.store(true, Ordering::Relaxed);
    let blob = cluster.open(0).await;
    let failed = timeout(Duration::from_secs(60), blob.read(0..10, Priority::Demand)).await.unwrap();
    assert!(failed.unwrap_err().to_string().contains("it is down"));
    cluster.server.down.store(false, Ordering::Relaxed);
    blob.read(0..10, Priority::Demand).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_swarm_outlives_its_owner() {
    let mut cluster = Cluster::new(6, 60, RATE);
    let owner = (0..6).find(|node| cluster.owns(*node)).unwrap();
    let others: Vec<_> = (0..6).filter(|node| *node != owner).collect();
    let dying = async {
        let _part = cluster.open(owner).await;
        sleep(Duration::from_millis(400)).await;
        cluster.network.kill(id(owner));
    };
    let downloads = join_all(others.iter().map(|node| cluster.download(*node)));
    let (_, took) =
        timeout(Duration::from_secs(120), async { tokio::join!(dying, downloads) }).await.unwrap();
    println!("{took:?}, {} copies", cluster.copies());
    assert!(cluster.copies() < 1.3, "{} copies", cluster.copies());
    drop(cluster.engines.remove(owner));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_process_waits_for_overtakes_a_download() {
    let cluster = Cluster::new(4, 100, RATE);
    let downloads = join_all((0..3).map(|node| cluster.download(node)));
    let reader = async {
        sleep(Duration::from_millis(300)).await;
        let blob = cluster.open(3).await;
        let began = Instant::now();
        blob.read(5_000_000..5_000_100, Priority::Demand).await.unwrap();
        began.elapsed()
    };
    let (_, waited) = tokio::join!(downloads, reader);
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    cluster.stop().await;
}
