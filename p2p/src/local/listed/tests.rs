use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use p2p_pieces::{Codec, ListedChunk};
use rafs::{Compressor, DigestAlgorithm};
use registry::testing::Fault;

use super::{
    super::tests::{Scene, scene},
    *,
};

const CHUNK: usize = 300_000;
const CHUNKS: usize = 7;

struct Case {
    scene: Scene,
    digest: String,
    bytes: Vec<u8>,
    list: Vec<u8>,
}

impl Case {
    async fn new(nodes: u8) -> Self {
        let scene = scene(nodes).await;
        let mut bytes = vec![0; CHUNK * CHUNKS + 5000];
        fastrand::Rng::with_seed(4).fill(&mut bytes);
        let digest = scene.registry.put_blob(bytes.clone());
        let codec = Codec { compressor: Compressor::None, digest: DigestAlgorithm::Sha256 };
        let chunks = bytes.chunks_exact(CHUNK).enumerate().map(|(number, chunk)| ListedChunk {
            offset: (number * CHUNK) as u64,
            stored: u32::try_from(CHUNK).unwrap(),
            plain: u32::try_from(CHUNK).unwrap(),
            is_compressed: false,
            digest: codec.digest.digest(chunk),
        });
        let list = ChunkList::new(codec, chunks.collect()).unwrap().encode();
        Self { scene, digest, bytes, list }
    }

    async fn put(&self, node: usize, list: &[u8]) -> (StatusCode, String) {
        let host = self.scene.registry.host();
        let uri = format!("/v1/blobs/{}/chunks?repository={host}/shared", self.digest);
        let answer = self.scene.answer(node, Request::put(uri).body(list.to_vec().into()).unwrap()).await;
        let status = answer.status();
        let words = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(words.to_vec()).unwrap())
    }

    /// Reads a range; says where it came from.
    async fn get(&self, node: usize, list: &[u8], range: &str) -> Result<(String, Vec<u8>), StatusCode> {
        let uri = format!("/v1/blobs/{}?list={}", self.digest, blake3::hash(list).to_hex());
        let request = Request::get(uri).header("range", format!("bytes={range}"));
        let answer = self.scene.answer(node, request.body(Body::empty()).unwrap()).await;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(answer.status());
        }
        let source = answer.headers()["x-shoal-source"].to_str().unwrap().to_owned();
        Ok((source, answer.into_body().collect().await.unwrap().to_bytes().to_vec()))
    }

    async fn status(&self, node: usize) -> String {
        let answer = self.scene.answer(node, Request::get("/v1/status").body(Body::empty()).unwrap()).await;
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }
}

#[tokio::test]
async fn ranges_of_a_blob_whose_chunks_are_listed_come_from_other_nodes() {
    let case = Case::new(2).await;
    let name = blake3::hash(&case.list).to_hex();
    for node in 0..2 {
        let told = case.put(node, &case.list).await;
        assert_eq!(told, (StatusCode::OK, format!("{{\"list\":\"{name}\"}}")));
    }
    let first = case.get(0, &case.list, "1000000-1000099").await.unwrap();
    assert_eq!(first, ("origin".to_owned(), case.bytes[1_000_000..1_000_100].to_vec()));
    let second = case.get(1, &case.list, "1000000-1000099").await.unwrap();
    assert_eq!(second, ("peers".to_owned(), first.1));
    // Three chunks of these lengths are in a piece.
    let piece = format!("bytes={}-{}", 3 * CHUNK, 6 * CHUNK - 1);
    let asked: Vec<_> = case.scene.registry.requests().into_iter().filter_map(|asked| asked.range).collect();
    assert_eq!(asked, [piece], "whole chunks, once");
    assert!(case.status(1).await.contains("\"checked_by\":\"chunks\""));
    let behind = case.get(0, &case.list, &format!("{}-{}", CHUNK * CHUNKS - 5, CHUNK * CHUNKS)).await;
    assert_eq!(behind, Err(StatusCode::RANGE_NOT_SATISFIABLE), "what is behind the chunks is in no piece");
}

#[tokio::test]
async fn a_flipped_byte_of_the_registry_is_seen_before_anybody_has_it() {
    let case = Case::new(2).await;
    for node in 0..2 {
        assert_eq!(case.put(node, &case.list).await.0, StatusCode::OK);
    }
    case.scene.registry.fail(Fault::FlippedByte, 1);
    for node in 0..2 {
        let (_, bytes) = case.get(node, &case.list, "0-9").await.unwrap();
        assert_eq!(bytes, case.bytes[..10], "node {node}");
    }
}

#[tokio::test]
async fn a_false_list_of_chunks_spoils_nothing_for_the_true_one() {
    let case = Case::new(2).await;
    let mut false_list = case.list.clone();
    let last = false_list.len() - 1;
    false_list[last] ^= 1;
    assert_eq!(case.put(0, &false_list).await.0, StatusCode::OK);
    let range = format!("{}-{}", CHUNK * CHUNKS - 9, CHUNK * CHUNKS - 1);
    assert_eq!(case.get(0, &false_list, &range).await, Err(StatusCode::BAD_GATEWAY));
    for node in 0..2 {
        assert_eq!(case.put(node, &case.list).await.0, StatusCode::OK);
        let (_, bytes) = case.get(node, &case.list, &range).await.unwrap();
        assert_eq!(bytes, case.bytes[CHUNK * CHUNKS - 9..CHUNK * CHUNKS]);
    }
}

#[tokio::test]
async fn a_hostile_list_of_chunks_is_refused_with_the_place_of_what_is_wrong() {
    let case = Case::new(1).await;
    let mut overlapping = case.list.clone();
    // The offset of the second chunk, behind a header of 32 bytes and a record of 48.
    overlapping[80..88].copy_from_slice(&5_u64.to_le_bytes());
    let (status, words) = case.put(0, &overlapping).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(words.contains("chunk 1 at 5 lies before the end of the one before it"), "{words}");
    assert_eq!(case.put(0, b"rubbish").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(case.put(0, &case.list[..100]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(case.get(0, &case.list, "0-9").await, Err(StatusCode::NOT_FOUND));
}
