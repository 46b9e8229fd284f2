//! Blobs whose chunks are known and whose pieces are not listed.

#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]
use p2p_pieces::{Codec, ListedChunk};
use rafs::{Compressor, DigestAlgorithm, Encoder};

use super::*;
use crate::{
    metrics::Levels,
    store::{Budget, Kept, Known},
};

const PATIENCE: Duration = Duration::from_secs(300);
const CODEC: Codec = Codec { compressor: Compressor::Zstd, digest: DigestAlgorithm::Sha256 };
/// Chunks that are so far apart are in pieces of their own.
const APART: usize = 4096;

/// A blob of chunks of different lengths with so many bytes between them, and what is listed of it.
fn chunked(chunks: usize, between: &[u8]) -> (Vec<u8>, ChunkList) {
    let (mut random, mut encoder) = (fastrand::Rng::with_seed(2), Encoder::new(CODEC.compressor).unwrap());
    let (mut blob, mut listed) = (Vec::new(), Vec::new());
    for number in 0..chunks {
        let mut plain = vec![0; random.usize(80_000..160_000)];
        // About half of it can be compressed away; of some all that is there cannot.
        let noise = if number % 5 == 0 { plain.len() } else { plain.len() / 2 };
        random.fill(&mut plain[..noise]);
        let encoded = encoder.encode(&plain);
        let stored = encoded.unwrap_or(&plain);
        listed.push(ListedChunk {
            offset: blob.len() as u64,
            stored: stored.len() as u32,
            plain: plain.len() as u32,
            is_compressed: encoded.is_some(),
            digest: CODEC.digest.digest(&plain),
        });
        blob.extend_from_slice(stored);
        if number + 1 < chunks {
            blob.extend_from_slice(between);
        }
    }
    (blob, ChunkList::new(CODEC, listed).unwrap())
}

fn cluster(nodes: usize, chunks: usize, between: &[u8]) -> Cluster {
    let mut cluster = super::cluster(nodes, 1);
    let (blob, list) = chunked(chunks, between);
    cluster.server = Arc::new(Server::new(blob, RATE));
    cluster.content = Content::Chunks { blob: [7; 32], list: Arc::new(list) };
    cluster
}

async fn downloads(cluster: &Cluster, nodes: impl IntoIterator<Item = usize>) {
    let downloads = join_all(nodes.into_iter().map(|node| cluster.download(node)));
    timeout(PATIENCE, downloads).await.expect("all finish in time");
}

/// What a node has counted under this name.
fn counted(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let page = cluster.metrics[node].text(&Levels { members: 0, blobs: 0, stored: 0, beside: 0, budget: 0 });
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn many_nodes_take_one_copy_in_groups_of_chunks() {
    sixteen_take_one_copy(|nodes| cluster(nodes, 100, &[0; APART])).await;
}

#[tokio::test(start_paused = true)]
async fn a_part_is_good_and_passed_on_without_the_rest_and_without_the_origin() {
    let cluster = cluster(3, 40, &[]);
    let blob = cluster.open(0).await;
    let piece = blob.layout().range(blob.layout().piece(1).unwrap());
    assert!(piece.end - piece.start > 500_000, "several chunks are in a piece: {piece:?}");
    let right = &cluster.server.blob[piece.start as usize..piece.end as usize];
    assert_eq!(blob.read(piece.clone(), Priority::Demand).await.unwrap(), right);
    assert_eq!(blob.pieces_here(), [1]);
    cluster.server.down.store(true, Ordering::Relaxed);
    for node in 1..3 {
        let blob = cluster.open(node).await;
        let read = timeout(PATIENCE, blob.read(piece.clone(), Priority::Demand)).await.unwrap();
        assert_eq!(read.unwrap(), right, "node {node}");
        assert_eq!(blob.pieces_here(), [1], "good, and nothing else");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_liar_s_pieces_are_refused_and_struck_and_honest_ones_spread() {
    let cluster = cluster(4, 60, &[0; APART]);
    downloads(&cluster, 0..2).await;
    let task = hex::encode(cluster.content.task().as_bytes());
    let data = cluster.dir.path().join("0").join(task).join("data");
    std::fs::write(data, vec![9; cluster.server.blob.len()]).unwrap();
    downloads(&cluster, 2..4).await;
    let wrong = "shoal_p2p_pieces_total{from=\"peer\",fate=\"wrong\"}";
    let refused: u64 = (2..4).map(|node| counted(&cluster, node, wrong)).sum();
    let strikes: u64 = (2..4).map(|node| counted(&cluster, node, "shoal_p2p_strikes_total")).sum();
    assert!(refused > 0 && strikes == refused, "{refused} were refused, {strikes} strikes");
    assert!(cluster.copies() < 1.3, "{} copies", cluster.copies());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_the_origin_spoils_comes_again() {
    let cluster = cluster(3, 20, &[0; APART]);
    let layout = cluster.content.layout();
    let starts = [0, 5].map(|number| layout.range(layout.piece(number).unwrap()).start);
    cluster.server.spoils.lock().unwrap().extend(starts);
    downloads(&cluster, 0..3).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_has_between_chunks_reaches_nobody() {
    let cluster = cluster(2, 10, &[0xee; 100]);
    let blob = cluster.open(0).await;
    let all = 0..blob.layout().len();
    let first = blob.read(all.clone(), Priority::Background).await.unwrap();
    let (without, _) = chunked(10, &[0; 100]);
    assert!(first == without && first != cluster.server.blob);
    cluster.server.down.store(true, Ordering::Relaxed);
    let second = cluster.open(1).await.read(all, Priority::Background).await.unwrap();
    assert!(second == without);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_lists_chunks_falsely_spoils_nobody_s_pieces() {
    let cluster = cluster(2, 10, &[0; APART]);
    let Content::Chunks { list, .. } = &cluster.content else { unreachable!() };
    let mut bytes = list.encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let list = Arc::new(ChunkList::decode(&bytes).unwrap());
    let false_content = Content::Chunks { blob: [7; 32], list };
    assert_ne!(false_content.task(), cluster.content.task());
    let blob = cluster.engines[0].open(false_content, cluster.server.clone()).await.unwrap();
    let read = timeout(PATIENCE, blob.fetch(0..blob.layout().len(), Priority::Demand)).await.unwrap();
    assert!(matches!(read, Err(P2pError::Origin { .. })), "{read:?}");
    assert!(!blob.is_complete());
    downloads(&cluster, 0..2).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pieces_are_found_again_by_the_next_process() {
    let cluster = cluster(1, 12, &[0; APART]);
    downloads(&cluster, [0]).await;
    let (content, dir) = (cluster.content.clone(), cluster.dir.path().join("0"));
    let kept = tempfile::tempdir().unwrap();
    let store = kept.path().join("store");
    join_all(cluster.engines.into_iter().map(Engine::stop)).await;
    std::fs::rename(dir, &store).unwrap();
    let store = Store::open(&store, Budget { bytes: u64::MAX, keep_free: 0 }).unwrap();
    let bytes = content.layout().pieces().map(|piece| u64::from(content.layout().piece_len(piece))).sum();
    let Content::Chunks { blob, list } = &content else { unreachable!() };
    let known = store.known();
    let (layout, kept) = (content.layout().clone(), Kept::Chunks { blob: *blob, list: *list.digest() });
    assert_eq!(known, [Known { task: content.task(), layout, kept, bytes }]);
    let stored = content.with_vouch(|vouch| store.task(vouch, content.layout().clone())).unwrap();
    assert!(stored.good().is_full());
    let piece = content.layout().piece(7).unwrap();
    assert!(list.vouches_for(piece, &stored.read(piece).unwrap()));
}
