//! Blobs of which only the whole is known.

use ring::digest::{SHA256, digest};

use super::*;
use crate::store::Standing;

const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster whose blob has no list.
fn plain(nodes: usize, pieces: usize) -> Cluster {
    let mut cluster = super::cluster(nodes, pieces);
    let blob = digest(&SHA256, &cluster.server.blob).as_ref().try_into().unwrap();
    cluster.content = Content::Whole { blob, layout: cluster.content.layout().clone() };
    cluster
}

/// An origin that gives other bytes, always the same.
fn liar_of(cluster: &Cluster) -> Arc<Server> {
    let mut blob = cluster.server.blob.clone();
    blob.chunks_mut(PIECE as usize).for_each(|piece| piece[7] ^= 1);
    Arc::new(Server::new(blob, RATE))
}

async fn downloads(cluster: &Cluster, nodes: impl IntoIterator<Item = usize>) {
    let downloads = join_all(nodes.into_iter().map(|node| cluster.download(node)));
    timeout(PATIENCE, downloads).await.expect("all finish in time");
}

#[tokio::test(start_paused = true)]
async fn many_nodes_take_one_copy_of_a_blob_without_a_list() {
    sixteen_take_one_copy(|nodes| plain(nodes, 100)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_good_or_read_before_the_whole_was_checked() {
    let cluster = plain(2, 20);
    let blob = cluster.open(0).await;
    let first = blob.read_unchecked(0..10, Priority::Demand).await.unwrap();
    assert_eq!(first, cluster.server.blob[..10]);
    let piece = blob.layout().piece(0).unwrap();
    assert_eq!(blob.stored.standing(piece), Some(Standing::Provisional(id(0))));
    cluster.server.down.store(true, Ordering::Relaxed);
    let read = timeout(PATIENCE, blob.read(0..10, Priority::Demand)).await.unwrap();
    assert!(matches!(read, Err(P2pError::Origin { .. })), "{read:?}");
    assert_eq!(blob.here(), 0);
    cluster.server.down.store(false, Ordering::Relaxed);
    // What was on its way fails too.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(blob.read(0..10, Priority::Demand).await.unwrap(), cluster.server.blob[..10]);
    assert!(blob.is_complete());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_lies_about_what_the_origin_sent_spoils_nobody_s_blob() {
    let cluster = plain(5, 40);
    let lying = async {
        let blob = cluster.open_from(0, liar_of(&cluster)).await;
        let read = timeout(PATIENCE, blob.fetch(0..blob.layout().len(), Priority::Background));
        assert!(matches!(read.await.unwrap(), Err(P2pError::Whole { .. })), "its own origin is wrong");
    };
    let honest = downloads(&cluster, 1..4);
    tokio::join!(lying, honest);
    println!("{:.2} copies", cluster.copies());
    downloads(&cluster, [4]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_lies_is_an_error_and_heals() {
    let mut cluster = plain(2, 10);
    let right = Arc::clone(&cluster.server);
    cluster.server = liar_of(&cluster);
    let blob = cluster.open(0).await;
    let read = timeout(PATIENCE, blob.read(0..10, Priority::Demand)).await.unwrap();
    assert!(matches!(read, Err(P2pError::Whole { .. })), "{read:?}");
    cluster.server = right;
    downloads(&cluster, 0..2).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_the_origin_spoils_once_is_found_by_the_whole() {
    let cluster = plain(3, 20);
    cluster.server.spoils.lock().unwrap().extend([0, 5 * u64::from(PIECE)]);
    downloads(&cluster, 0..3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_passes_on_other_bytes_than_it_had_is_passed_over() {
    let cluster = plain(4, 30);
    downloads(&cluster, 0..2).await;
    let task = hex::encode(cluster.content.task().as_bytes());
    let data = cluster.dir.path().join("0").join(task).join("data");
    std::fs::write(data, vec![9; cluster.server.blob.len()]).unwrap();
    downloads(&cluster, 2..4).await;
    assert!(cluster.copies() < 1.3, "{} copies", cluster.copies());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_vouches_for_is_shared_in_parts_by_the_word_of_who_fetched_it() {
    let mut cluster = super::cluster(3, 20);
    let (name, layout) = (Arc::from("http://files.example/a 1"), cluster.content.layout().clone());
    cluster.content = Content::Unsaid { name, layout };
    let range = 0..u64::from(PIECE);
    for node in 0..3 {
        let blob = cluster.open(node).await;
        let read = timeout(PATIENCE, blob.read(range.clone(), Priority::Demand)).await.unwrap();
        assert_eq!(read.unwrap(), cluster.server.blob[..PIECE as usize], "without the rest");
        assert_eq!(blob.here(), 1);
    }
    assert_eq!(cluster.server.sent.load(Ordering::Relaxed), u64::from(PIECE));
    downloads(&cluster, 0..3).await;
    assert!((cluster.copies() - 1.0).abs() < 0.01, "{} copies", cluster.copies());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_word_for_pieces_outlives_the_owner() {
    let mut cluster = plain(6, 60);
    let owner = (0..6).find(|node| cluster.owns(*node)).unwrap();
    let dying = async {
        let _part = cluster.open(owner).await;
        sleep(Duration::from_millis(400)).await;
        cluster.network.kill(id(owner));
    };
    let others = (0..6).filter(|node| *node != owner);
    tokio::join!(dying, downloads(&cluster, others));
    assert!(cluster.copies() < 1.3, "{} copies", cluster.copies());
    drop(cluster.engines.remove(owner));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_found_again_on_disk_is_good_and_passed_on() {
    let mut cluster = plain(2, 20);
    downloads(&cluster, [0]).await;
    let first = cluster.open(0).await;
    drop(first);
    cluster.server.down.store(true, Ordering::Relaxed);
    downloads(&cluster, [1]).await;
    cluster.engines.clear();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_doubts_comes_from_the_origin_again_and_its_fetcher_is_caught() {
    let cluster = plain(3, 20);
    let liar = (0..3).find(|node| !cluster.owns(*node)).unwrap();
    let lying = cluster.open_from(liar, liar_of(&cluster)).await;
    let range = 0..u64::from(PIECE);
    let wrong = lying.read_unchecked(range.clone(), Priority::Demand).await.unwrap();
    let reader = (0..3).find(|node| *node != liar).unwrap();
    let blob = cluster.open(reader).await;
    assert_eq!(
        blob.read_unchecked(range.clone(), Priority::Demand).await.unwrap(),
        wrong,
        "the lie has spread"
    );
    let before = cluster.server.sent.load(Ordering::Relaxed);
    blob.doubt(range.clone()).await.unwrap();
    let right = blob.read_unchecked(range.clone(), Priority::Demand).await.unwrap();
    assert_eq!(right, cluster.server.blob[..PIECE as usize]);
    blob.doubt(range.clone()).await.unwrap();
    let again = cluster.server.sent.load(Ordering::Relaxed) - before;
    assert_eq!(again, u64::from(PIECE), "once, whoever doubts");
    drop(lying);
    downloads(&cluster, (0..3).filter(|node| *node != liar)).await;
    blob.doubt(0..blob.layout().len()).await.unwrap();
    assert!(blob.is_complete(), "what was checked is not doubted");
    cluster.stop().await;
}

/// Reads piece by piece as a mirror does, while all of it is fetched; says whether what came is right.
async fn streams(cluster: &Cluster, node: usize) -> bool {
    let blob = cluster.open(node).await;
    let len = blob.layout().len();
    let all = blob.fetch(0..len, Priority::Trace);
    let pieces = async {
        let mut came = Vec::new();
        for piece in blob.layout().pieces() {
            came.extend(blob.read_unchecked(blob.layout().range(piece), Priority::Trace).await?);
        }
        Ok::<_, P2pError>(came)
    };
    let (fetched, came) = tokio::join!(all, pieces);
    // The whole may turn out to be wrong after its pieces came; then it is fetched again, or given up.
    let came = came.is_ok_and(|came| came == cluster.server.blob);
    fetched.is_ok() && came
}

#[tokio::test(start_paused = true)]
async fn streams_of_what_the_origin_spoils_are_right_or_known_to_be_wrong_and_heal() {
    let mut right = 0;
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (nodes, pieces) = (random.usize(2..5), random.usize(2..12));
        let cluster = plain(nodes, pieces);
        let spoiled = (0..random.usize(0..4)).map(|_| random.u64(0..pieces as u64) * u64::from(PIECE));
        cluster.server.spoils.lock().unwrap().extend(spoiled);
        let all = join_all((0..nodes).map(|node| streams(&cluster, node)));
        let outcomes = timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("seed {seed} is stuck"));
        right += outcomes.into_iter().filter(|right| *right).count();
        cluster.server.spoils.lock().unwrap().clear();
        downloads(&cluster, 0..nodes).await;
        cluster.stop().await;
    }
    println!("{right} streams were right at once");
    assert!(right > 0);
}
