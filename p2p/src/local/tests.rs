use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt as _;
use p2p_pieces::PieceLister;
use registry::{
    ClientOptions,
    testing::{Guard, TestRegistry},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::{
    NodeId, PieceLayout,
    engine::{Members, Parts},
    rate::Rate,
    rights::{ShareList, anonymous},
    store::{Budget, Store},
    transport::channel::{Network, Uplink, Weather},
};

mod tight;

pub(super) struct Scene {
    pub(super) registry: TestRegistry,
    blob: Vec<u8>,
    digest: String,
    list: Vec<u8>,
    pub(super) locals: Vec<Arc<Local>>,
    nodes: Vec<Router>,
    _dir: tempfile::TempDir,
}

pub(super) async fn scene(nodes: u8) -> Scene {
    scene_with(nodes, u64::MAX, &[]).await
}

/// Nodes that share what is at further addresses.
pub(super) async fn scene_sharing(nodes: u8, further: &[&str]) -> Scene {
    scene_with(nodes, u64::MAX, further).await
}

/// Nodes that store so many bytes each.
async fn scene_with(nodes: u8, budget: u64, further: &[&str]) -> Scene {
    scene_on(tempfile::tempdir().unwrap(), nodes, budget, further).await
}

/// Nodes whose pieces are below a directory, in one for each.
async fn scene_on(dir: tempfile::TempDir, nodes: u8, budget: u64, further: &[&str]) -> Scene {
    let mut blob = vec![0; 5 * PieceLayout::MIN_SIZE as usize + 99];
    fastrand::Rng::with_seed(3).fill(&mut blob);
    let mut lister = PieceLister::with_size(PieceLayout::MIN_SIZE).unwrap();
    lister.update(&blob);
    let list = lister.finish().unwrap().encode();
    let registry = TestRegistry::start().await;
    let digest = registry.put_blob(blob.clone());
    let network = Network::new(1, Weather { delay: Duration::from_micros(100), loss: 0.0 });
    let members: Members = (1..=nodes).map(|node| (NodeId([node; 32]), ([127, 0, 0, 1], 1).into())).collect();
    let (_, members) = watch::channel(Arc::new(members));
    let nodes = (1..=nodes).map(|node| {
        let rate = Rate::per_second((1 << 30).try_into().unwrap());
        let (transport, events) = network.attach(NodeId([node; 32]), Uplink { up: rate, down: rate });
        let budget = Budget { bytes: budget, keep_free: 0 };
        let store = Arc::new(Store::open(&dir.path().join(node.to_string()), budget).unwrap());
        let transport = Arc::new(transport);
        let engine = Engine::start(Parts {
            transport,
            events,
            store,
            members: members.clone(),
            told: tokio::sync::mpsc::channel(1).0,
            limits: crate::rate::Limits::default(),
            host: watch::channel(crate::peer::Hold::NONE).1,
            metrics: crate::metrics::Metrics::default(),
            seed: node.into(),
        });
        let mut share = vec![format!("{}/shared", registry.host())];
        share.extend(further.iter().map(|pattern| (*pattern).to_owned()));
        let share = ShareList::new(share);
        let rights = Rights::new(share, anonymous(ClientOptions::default()).unwrap());
        let registries = Registries {
            client: Client::new(ClientOptions::default()).unwrap(),
            upstream: anonymous(ClientOptions::default()).unwrap(),
        };
        let node = super::Node {
            id: NodeId([node; 32]),
            members: members.clone(),
            limits: crate::rate::Limits::default(),
            metrics: crate::metrics::Metrics::default(),
            piece_size: PieceLayout::DEFAULT_SIZE,
        };
        Arc::new(Local::new(engine, registries, rights, node))
    });
    let locals: Vec<_> = nodes.collect();
    let nodes = locals.iter().map(|local| router(Arc::clone(local))).collect();
    Scene { registry, blob, digest, list, locals, nodes, _dir: dir }
}

impl Scene {
    async fn put(&self, node: usize, repository: &str, list: &[u8]) -> (StatusCode, Vec<u8>) {
        let (digest, host) = (&self.digest, self.registry.host());
        let uri = format!("/v1/blobs/{digest}/pieces?repository={host}/{repository}");
        self.call(node, Request::put(uri).body(Body::from(list.to_vec())).unwrap()).await
    }

    /// Makes the list known again and again until somebody knows whether the repository is shared.
    async fn put_until_known(&self, node: usize, repository: &str) -> StatusCode {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let (status, _) = self.put(node, repository, &self.list).await;
            if status != StatusCode::TOO_EARLY {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody knows");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn get(&self, node: usize, range: &str) -> (StatusCode, Vec<u8>) {
        self.call(node, self.range(range)).await
    }

    /// The request for a range.
    fn range(&self, range: &str) -> Request<Body> {
        let list = blake3::hash(&self.list).to_hex();
        let uri = format!("/v1/blobs/{}?list={list}", self.digest);
        Request::get(uri).header(header::RANGE, range).body(Body::empty()).unwrap()
    }

    /// All that a node answers.
    pub(super) fn calls(&self, node: usize) -> Router {
        self.nodes[node].clone()
    }

    pub(super) async fn answer(&self, node: usize, request: Request<Body>) -> Response<Body> {
        let answered = self.nodes[node].clone().oneshot(request);
        tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap().unwrap()
    }

    async fn call(&self, node: usize, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let answer = self.answer(node, request).await;
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
}

#[tokio::test]
async fn ranges_are_read_on_every_node_and_leave_the_registry_once() {
    let scene = scene(3).await;
    assert_eq!(scene.digest, format!("sha256:{}", hex::encode(Sha256::digest(&scene.blob))));
    for node in 0..3 {
        assert_eq!(scene.put(node, "shared", &scene.list).await.0, StatusCode::OK);
        let (status, bytes) = scene.get(node, &format!("bytes=10-{}", scene.blob.len() - 1)).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert!(bytes == scene.blob[10..], "node {node}");
    }
    let asked = scene.registry.requests().len();
    assert_eq!(asked, 6, "one request for each piece");
}

#[tokio::test]
async fn an_answer_says_where_its_bytes_came_from() {
    let scene = scene(2).await;
    for node in 0..2 {
        assert_eq!(scene.put(node, "shared", &scene.list).await.0, StatusCode::OK);
    }
    let size = PieceLayout::MIN_SIZE;
    let (first, two, three) =
        ("bytes=0-9".to_owned(), format!("bytes=0-{}", 2 * size - 1), format!("bytes=0-{}", 3 * size - 1));
    let asked = [(0, &first, "origin"), (0, &first, "here"), (0, &two, "origin"), (1, &first, "peers")];
    for (node, range, source) in asked.into_iter().chain([(1, &three, "mixed"), (1, &three, "here")]) {
        let answer = scene.answer(node, scene.range(range)).await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.headers()["x-shoal-source"], source, "{range} on node {node}");
    }
}

#[tokio::test]
async fn what_is_not_shared_or_not_known_is_refused() {
    let scene = scene(1).await;
    scene.registry.guard(Guard::Basic("user".into(), "password".into()));
    assert_eq!(scene.get(0, "bytes=0-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(scene.put_until_known(0, "private").await, StatusCode::FORBIDDEN);
    scene.registry.guard(Guard::Open);
    assert_eq!(scene.put(0, "shared", b"rubbish").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(scene.get(0, "bytes=0-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(scene.put(0, "shared", &scene.list).await.0, StatusCode::OK);
    for range in ["bytes=5-4", "bytes=0-999999999", "bytes=-5", "lines=1-2"] {
        assert_eq!(scene.get(0, range).await.0, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
    }
    assert_eq!(scene.get(0, "bytes=0-9").await.0, StatusCode::PARTIAL_CONTENT);
}

#[tokio::test]
async fn a_false_list_spoils_nothing_for_the_true_one() {
    let scene = scene(2).await;
    let mut false_list = scene.list.clone();
    let last = false_list.len() - 1;
    false_list[last] ^= 1;
    assert_eq!(scene.put(0, "shared", &false_list).await.0, StatusCode::OK);
    let uri = format!("/v1/blobs/{}?list={}", scene.digest, blake3::hash(&false_list).to_hex());
    let end = scene.blob.len() - 1;
    let request = Request::get(uri).header(header::RANGE, format!("bytes={}-{end}", end - 50));
    let (status, _) = scene.call(0, request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    for node in 0..2 {
        assert_eq!(scene.put(node, "shared", &scene.list).await.0, StatusCode::OK);
        let (status, bytes) = scene.get(node, &format!("bytes={}-{end}", end - 50)).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert!(bytes == scene.blob[end - 50..]);
    }
}

#[tokio::test]
async fn what_everybody_may_read_is_shared_once_the_registry_has_said_so() {
    let scene = scene(1).await;
    let (first, _) = scene.put(0, "public", &scene.list).await;
    assert_eq!(first, StatusCode::TOO_EARLY, "no call waits for the registry");
    assert_eq!(scene.put_until_known(0, "public").await, StatusCode::OK);
    assert_eq!(scene.get(0, "bytes=0-9").await.0, StatusCode::PARTIAL_CONTENT);
    let questions = scene.registry.requests().iter().filter(|request| request.method == "HEAD").count();
    assert_eq!(questions, 1);
}

impl Scene {
    async fn get_by(&self, authorization: Option<&str>) -> StatusCode {
        let list = blake3::hash(&self.list).to_hex();
        let uri = format!("/v1/blobs/{}?list={list}", self.digest);
        let mut request = Request::get(uri).header(header::RANGE, "bytes=0-9");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        self.call(0, request.body(Body::empty()).unwrap()).await.0
    }
}

#[tokio::test]
async fn a_reader_s_credential_fetches_for_it_and_is_gone_with_it() {
    let scene = scene(1).await;
    scene.registry.guard(Guard::Basic("user".into(), "password".into()));
    assert_eq!(scene.put(0, "shared", &scene.list).await.0, StatusCode::OK);
    // "user:wrong", "user:password"
    let (wrong, right) = ("Basic dXNlcjp3cm9uZw==", "Basic dXNlcjpwYXNzd29yZA==");
    assert_eq!(scene.get_by(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(scene.get_by(Some(wrong)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(scene.get_by(Some("rubbish")).await, StatusCode::BAD_REQUEST);
    assert_eq!(scene.get_by(Some(right)).await, StatusCode::PARTIAL_CONTENT);
    scene.registry.forget_requests();
    let last = "bytes=300000-300009";
    assert_eq!(scene.get(0, last).await.0, StatusCode::UNAUTHORIZED, "no credential outlives its reader");
    assert!(scene.registry.requests().iter().all(|request| request.authorization.is_none()));
    assert_eq!(scene.get_by(None).await, StatusCode::PARTIAL_CONTENT, "what is here is shared");
}

impl Scene {
    /// Reads the blob, piece by piece, until something is refused.
    async fn get_all(&self, node: usize) -> StatusCode {
        for (number, piece) in self.blob.chunks(PieceLayout::MIN_SIZE as usize).enumerate() {
            let start = number * PieceLayout::MIN_SIZE as usize;
            let (status, bytes) = self.get(node, &format!("bytes={start}-{}", start + piece.len() - 1)).await;
            if status != StatusCode::PARTIAL_CONTENT {
                return status;
            }
            assert!(bytes == piece);
        }
        StatusCode::PARTIAL_CONTENT
    }
}

#[tokio::test]
async fn a_blob_that_is_closed_makes_room_for_the_next_and_comes_again() {
    let mut scene = scene_with(2, 8 * u64::from(PieceLayout::MIN_SIZE), &[]).await;
    assert_eq!(scene.put(0, "shared", &scene.list).await.0, StatusCode::OK);
    assert_eq!(scene.get_all(0).await, StatusCode::PARTIAL_CONTENT);
    let first = (scene.digest.clone(), scene.list.clone(), scene.blob.clone());
    // Another one, for which there is no room beside it.
    fastrand::Rng::with_seed(4).fill(&mut scene.blob);
    let mut lister = PieceLister::with_size(PieceLayout::MIN_SIZE).unwrap();
    lister.update(&scene.blob);
    scene.list = lister.finish().unwrap().encode();
    scene.digest = scene.registry.put_blob(scene.blob.clone());
    assert_eq!(scene.put(0, "shared", &scene.list).await.0, StatusCode::OK);
    assert_eq!(scene.get_all(0).await, StatusCode::INSUFFICIENT_STORAGE, "the first is in use");

    let close = |digest: &str| Request::delete(format!("/v1/blobs/{digest}")).body(Body::empty()).unwrap();
    assert_eq!(scene.call(0, close(&first.0)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(scene.call(0, close(&first.0)).await.0, StatusCode::NOT_FOUND);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let status = scene.get_all(0).await;
        if status == StatusCode::PARTIAL_CONTENT {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status}: nothing was evicted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.call(0, close(&scene.digest)).await.0, StatusCode::NO_CONTENT);
    (scene.digest, scene.list, scene.blob) = first;
    assert_eq!(scene.get_all(0).await, StatusCode::NOT_FOUND);
    assert_eq!(scene.put(0, "shared", &scene.list).await.0, StatusCode::OK);
    let (status, here) = {
        let uri = format!("/v1/blobs/{}/pieces?list={}", scene.digest, blake3::hash(&scene.list).to_hex());
        scene.call(0, Request::get(uri).body(Body::empty()).unwrap()).await
    };
    let here = String::from_utf8(here).unwrap();
    assert!(status == StatusCode::OK && here.contains("\"here\":[]"), "the oldest went: {here}");
}

#[test]
fn priorities_are_known_by_name() {
    let said = |text: &'static str| {
        handlers::stated_priority(
            &[("x-shoal-priority".parse().unwrap(), text.parse().unwrap())].into_iter().collect(),
        )
    };
    assert_eq!(said("demand"), Some(crate::Priority::Demand));
    assert_eq!(said("background"), Some(crate::Priority::Background));
    assert_eq!(said("urgent"), None);
}
