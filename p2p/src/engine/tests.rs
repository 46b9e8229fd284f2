//! Whole nodes over a network within this process, in virtual time.
#![allow(clippy::cast_precision_loss, reason = "small numbers of tests")]

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use tokio::time::{Duration, Instant, sleep, timeout};

mod chunks;
mod lossy;
mod plain;
mod yielding;

use super::{
    testing::{Cluster, Server, Shape, id},
    *,
};

const PIECE: u32 = PieceLayout::MIN_SIZE;
/// A piece takes 20 ms.
const RATE: u64 = 50 * PIECE as u64;

fn shape(nodes: usize, pieces: usize) -> Shape {
    Shape { nodes, pieces, piece: PIECE, rate: RATE, origin_rate: RATE, ..Shape::default() }
}

fn cluster(nodes: usize, pieces: usize) -> Cluster {
    Cluster::new(shape(nodes, pieces))
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_fetches_a_blob_and_reads_it() {
    let cluster = cluster(1, 20);
    let took = cluster.download(0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!((cluster.copies() - 1.0).abs() < 0.01);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_nodes_take_one_copy_from_the_origin_and_little_longer_than_one() {
    sixteen_take_one_copy(|nodes| cluster(nodes, 100)).await;
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
    let cluster = cluster(4, 30);
    join_all((0..3).map(|node| cluster.download(node))).await;
    cluster.server.down.store(true, Ordering::Relaxed);
    cluster.download(3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_the_origin_spoils_is_fetched_again() {
    let cluster = cluster(3, 20);
    cluster.server.spoils.lock().unwrap().extend([0, 5 * u64::from(PIECE)]);
    join_all((0..3).map(|node| cluster.download(node))).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_down_is_an_error_in_time() {
    let cluster = cluster(2, 5);
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
    let mut cluster = cluster(6, 60);
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
    let cluster = cluster(4, 100);
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
