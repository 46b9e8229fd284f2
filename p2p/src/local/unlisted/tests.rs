use axum::{
    body::Body,
    http::{Method, Request},
};
use http_body_util::BodyExt as _;
use registry::testing::Fault;

use super::super::tests::{Scene, scene};
use super::*;

const LEN: usize = (3 << 20) + 55;
/// Within the second piece.
const RANGE: &str = "bytes=1500000-1500099";

struct Case {
    scene: Scene,
    digest: String,
    bytes: Vec<u8>,
}

impl Case {
    async fn new(nodes: u8) -> Self {
        let scene = scene(nodes).await;
        let mut bytes = vec![0; LEN];
        fastrand::Rng::with_seed(4).fill(&mut bytes);
        let digest = scene.registry.put_blob(bytes.clone());
        Self { scene, digest, bytes }
    }

    async fn call(
        &self,
        node: usize,
        method: Method,
        what: &str,
        range: Option<&str>,
    ) -> (StatusCode, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(format!("/v1/blobs/{}{what}", self.digest));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = self.scene.answer(node, request.body(Body::empty()).unwrap()).await;
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn introduce(&self, node: usize, repository: &str) -> StatusCode {
        let what = format!("?repository={}/{repository}", self.scene.registry.host());
        self.call(node, Method::PUT, &what, None).await.0
    }

    async fn read(&self, node: usize) -> Vec<u8> {
        let (status, bytes) = self.call(node, Method::GET, "?unchecked=true", Some(RANGE)).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        bytes
    }

    /// How often the registry was asked for bytes of the blob.
    fn reads(&self) -> usize {
        let requests = self.scene.registry.requests();
        requests.iter().filter(|asked| asked.method == "GET" && asked.target.contains("/blobs/")).count()
    }
}

#[tokio::test]
async fn who_checks_by_itself_reads_a_piece_before_the_whole_is_here_and_it_leaves_the_registry_once() {
    let case = Case::new(3).await;
    let unknown = case.call(0, Method::GET, "?unchecked=true", Some(RANGE)).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    for node in 0..3 {
        assert_eq!(case.introduce(node, "shared").await, StatusCode::OK);
        assert_eq!(case.read(node).await, case.bytes[1_500_000..1_500_100]);
    }
    let sizes = case.reads();
    assert!(sizes <= 4, "{sizes} requests for one piece and three sizes");
    let (status, all) = case.call(1, Method::GET, "", Some(&format!("bytes=0-{}", LEN - 1))).await;
    assert!(status == StatusCode::PARTIAL_CONTENT && all == case.bytes, "and the whole when it was checked");
}

#[tokio::test]
async fn what_is_doubted_is_read_from_the_registry_again() {
    let case = Case::new(2).await;
    for node in 0..2 {
        assert_eq!(case.introduce(node, "shared").await, StatusCode::OK);
    }
    case.scene.registry.fail(Fault::FlippedByte, 1);
    let right = &case.bytes[1_048_576..1_048_586];
    let first = Some("bytes=1048576-1048585");
    for node in 0..2 {
        let (_, wrong) = case.call(node, Method::GET, "?unchecked=true", first).await;
        assert_ne!(wrong, right, "node {node} believes the fetcher");
    }
    for node in 0..2 {
        assert_eq!(case.call(node, Method::POST, "/doubts", first).await.0, StatusCode::NO_CONTENT);
        let (_, bytes) = case.call(node, Method::GET, "?unchecked=true", first).await;
        assert_eq!(bytes, right, "node {node}");
    }
    let nothing = case.call(0, Method::POST, "/doubts", None).await.0;
    assert_eq!(nothing, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn what_is_not_shared_is_not_taken() {
    let case = Case::new(1).await;
    case.scene.registry.guard(registry::testing::Guard::Basic("user".into(), "password".into()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match case.introduce(0, "private").await {
            StatusCode::TOO_EARLY => assert!(tokio::time::Instant::now() < deadline, "nobody knows"),
            status => break assert_eq!(status, StatusCode::FORBIDDEN),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(case.call(0, Method::GET, "?unchecked=true", Some(RANGE)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn where_the_most_are_open_what_nobody_reads_makes_room_and_nothing_else_is_refused() {
    let mut case = Case::new(1).await;
    let local = Arc::clone(&case.scene.locals[0]);
    *local.blobs() = super::super::Blobs::new(2);
    let mut digests = vec![case.digest.clone()];
    digests.extend([5, 6].map(|number| case.scene.registry.put_blob(vec![number; LEN])));
    for digest in &digests[..2] {
        case.digest.clone_from(digest);
        assert_eq!(case.introduce(0, "shared").await, StatusCode::OK);
    }
    let reader_of = |digest: &String| {
        let opened = local.blobs().get(&(parse_digest(digest).unwrap(), None)).cloned();
        opened.unwrap().origin.on_behalf_of(None)
    };
    let (first, second) = (reader_of(&digests[0]), reader_of(&digests[1]));
    case.digest.clone_from(&digests[2]);
    assert_eq!(case.introduce(0, "shared").await, StatusCode::SERVICE_UNAVAILABLE, "both are read");
    drop(second);
    assert_eq!(case.introduce(0, "shared").await, StatusCode::OK);
    drop(first);
    for (digest, status) in digests.iter().zip([206, 404, 206]) {
        case.digest.clone_from(digest);
        assert_eq!(case.call(0, Method::GET, "?unchecked=true", Some(RANGE)).await.0, status);
    }
}
