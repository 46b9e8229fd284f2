//! Whole daemons, but for their network, in virtual time.
#![allow(clippy::print_stdout, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::time::Duration;

use futures_util::future::join_all;
use p2p::{
    engine::testing::{Cluster, Shape, id},
    transport::channel::Weather,
};
use swarm::{Scene, in_process, run};
use tokio::time::{sleep, timeout};

/// Less than a node that waits for one that is cut off would take to be told.
const PATIENCE: Duration = Duration::from_secs(300);

/// A chance of each run, printed so that a run that fails can be had again.
fn seed() -> u64 {
    let given = std::env::var("SHOAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("SHOAL_SEED={seed}");
    seed
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_nodes_finish_on_a_bad_network_that_falls_apart_for_a_while() {
    let weather = Weather { delay: Duration::from_millis(5), loss: 0.01 };
    let shape = Shape { nodes: 200, pieces: 40, weather, seed: seed(), rate: 3_000_000, ..Shape::default() };
    let cluster = Cluster::new(shape);
    let apart = async {
        sleep(Duration::from_millis(400)).await;
        (0..40).for_each(|node| cluster.network.set_part(id(node), 1));
        sleep(Duration::from_secs(3)).await;
        (0..40).for_each(|node| cluster.network.set_part(id(node), 0));
    };
    let downloads = join_all((0..shape.nodes).map(|node| cluster.download(node)));
    let (_, took) =
        timeout(PATIENCE, async { tokio::join!(apart, downloads) }).await.expect("nobody starves");
    let copies = cluster.copies();
    let last = took.iter().max().unwrap();
    println!("last {last:?}, median {:?}, {copies:.3} copies", took[100]);
    // Each part may need a copy of its own.
    assert!(copies <= 2.5, "{copies} copies");
    cluster.stop().await;
}

#[test]
fn simulated_nodes_take_as_long_as_whole_ones() {
    for nodes in [16, 64] {
        let scene = Scene { nodes, pieces: 100, ..Scene::default() };
        let (simulated, whole) = (run(&scene).last(), in_process(&scene).unwrap());
        println!("{nodes} nodes: {simulated:.2} s simulated, {:.2} s in process", whole.last);
        assert!((0.9..1.1).contains(&(whole.last / simulated)));
        assert!(whole.copies <= 1.05, "{} copies", whole.copies);
    }
}
