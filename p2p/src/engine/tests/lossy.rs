//! Disks that take pieces and do not keep them, or do not give them back. Disks have a time of their own: that of the clock.

use ring::digest::{SHA256, digest};

use super::*;
use crate::store::{StoreError, tests::lossy::Lossy};

const PATIENCE: Duration = Duration::from_secs(60);
const PIECES: usize = 20;

/// Two nodes, the first of which has its pieces on a disk of its own.
fn pair(disk: &Lossy, origin_rate: u64) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let first = disk.path().join("0");
    std::fs::create_dir(&first).unwrap();
    std::os::unix::fs::symlink(first, dir.path().join("0")).unwrap();
    Cluster::on(dir, Shape { origin_rate, ..shape(2, PIECES) })
}

/// The same blob, by all that may vouch for it.
fn contents(cluster: &Cluster) -> [Content; 3] {
    let (layout, name) = (cluster.content.layout().clone(), Arc::from("http://files.example/a 1"));
    let blob = digest(&SHA256, &cluster.server.blob).as_ref().try_into().unwrap();
    [
        cluster.content.clone(),
        Content::Whole { blob, layout: layout.clone() },
        Content::Unsaid { name, layout },
    ]
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect(what);
}

/// Fetches and reads all on a node, however often the disk says no.
async fn download(cluster: &Cluster, node: usize) {
    let blob = cluster.open(node).await;
    let all = 0..blob.layout().len();
    let downloading = async {
        loop {
            match blob.read(all.clone(), Priority::Background).await {
                Ok(bytes) => return assert!(bytes == cluster.server.blob, "node {node}"),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, downloading).await.expect("in time");
}

#[tokio::test]
async fn pieces_that_the_disk_did_not_keep_are_told_of_to_nobody_and_come_again() {
    let disk = Lossy::new();
    let mut cluster = pair(&disk, RATE);
    for content in contents(&cluster) {
        cluster.content = content;
        let (blob, other) = (cluster.open(0).await, cluster.open(1).await);
        other.read_unchecked(0..10, Priority::Demand).await.unwrap();
        disk.fill();
        // Too often lost it is an error, sooner or later.
        let fetched = timeout(PATIENCE, blob.fetch(0..blob.layout().len(), Priority::Background));
        drop(fetched.await.expect("in time"));
        until("the loss is seen", || blob.here() < blob.layout().count().get()).await;
        // A partner that was told of all of them.
        download(&cluster, 1).await;
        disk.mend();
        cluster.server.down.store(true, Ordering::Relaxed);
        download(&cluster, 0).await;
        assert!(blob.is_complete(), "what came again is checked like the first time");
        cluster.server.down.store(false, Ordering::Relaxed);
    }
    cluster.stop().await;
}

/// Leaves a node only the first piece, without a word.
fn cut(cluster: &Cluster, node: usize) {
    let task = hex::encode(cluster.content.task().as_bytes());
    let data = cluster.dir.path().join(node.to_string()).join(task).join("data");
    std::fs::File::options().write(true).open(data).unwrap().set_len(PIECE.into()).unwrap();
}

#[tokio::test]
async fn pieces_that_cannot_be_read_come_again() {
    let mut cluster = super::cluster(2, PIECES);
    for content in contents(&cluster) {
        cluster.content = content;
        let blob = cluster.open(0).await;
        download(&cluster, 0).await;
        download(&cluster, 1).await;
        cluster.server.down.store(true, Ordering::Relaxed);
        cut(&cluster, 0);
        download(&cluster, 0).await;
        assert!(blob.is_complete());
        cluster.server.down.store(false, Ordering::Relaxed);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn who_asks_for_a_piece_that_cannot_be_read_has_it_from_elsewhere() {
    let mut cluster = super::cluster(2, PIECES);
    for content in contents(&cluster) {
        cluster.content = content;
        let blob = cluster.open(0).await;
        download(&cluster, 0).await;
        cut(&cluster, 0);
        download(&cluster, 1).await;
        assert!(!blob.is_complete(), "it is not believed any more");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_disk_that_keeps_nothing_is_an_error_and_not_written_to_for_ever() {
    let disk = Lossy::new();
    let cluster = pair(&disk, RATE / 10);
    let blob = cluster.open(0).await;
    disk.fill();
    let all = 0..blob.layout().len();
    let failed = timeout(PATIENCE, blob.fetch(all, Priority::Background)).await.unwrap().unwrap_err();
    let P2pError::Store { source, .. } = failed else { panic!("{failed}") };
    assert!(matches!(*source, StoreError::NotKept(_)), "{source}");
    disk.mend();
    download(&cluster, 0).await;
    cluster.stop().await;
}
