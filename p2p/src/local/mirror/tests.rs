use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use registry::testing::{Fault, Guard};
use sha2::{Digest as _, Sha256};

use super::super::tests::{Scene, scene};
use super::*;

const MIB: usize = 1 << 20;
/// "user:password"
pub(in crate::local) const PROOF: &str = "Basic dXNlcjpwYXNzd29yZA==";

/// Status, headers and body of an answer, or how far the body came.
pub(in crate::local) struct Answer {
    pub(in crate::local) status: StatusCode,
    pub(in crate::local) headers: HeaderMap,
    pub(in crate::local) body: Result<Vec<u8>, usize>,
}

impl Answer {
    pub(in crate::local) async fn read(answer: Response) -> Self {
        let (head, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => {
                    return Self { status: head.status, headers: head.headers, body: Err(bytes.len()) };
                }
            }
        }
        Self { status: head.status, headers: head.headers, body: Ok(bytes) }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(in crate::local) fn is(&self, bytes: &[u8]) -> bool {
        self.status.is_success() && self.body.as_deref() == Ok(bytes)
    }
}

impl Scene {
    /// Makes a blob of several pieces.
    pub(in crate::local) fn plain(&self, seed: u64) -> (String, Vec<u8>) {
        let mut bytes = vec![0; 5 * MIB + 99];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        (self.registry.put_blob(bytes.clone()), bytes)
    }

    async fn pull(&self, node: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(format!("/v2/{path}?ns={}", self.registry.host()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(self.answer(node, request.body(Body::empty()).unwrap()).await).await
    }

    /// How often the registry was asked for bytes of a blob.
    pub(in crate::local) fn reads(&self) -> usize {
        let requests = self.registry.requests();
        requests.iter().filter(|asked| asked.method == "GET" && asked.target.contains("/blobs/")).count()
    }
}

#[test]
fn names_are_those_of_containerd_docker_and_podman() {
    let wanted = |rest, ns| {
        let wanted = Wanted::parse(rest, ns)?;
        Some((wanted.repository.to_string(), wanted.thing()))
    };
    let is = |repository: &str, thing: &str| Some((repository.to_owned(), thing.to_owned()));
    assert_eq!(wanted("a/b/manifests/v1", Some("r.example:5000")), is("r.example:5000/a/b", "manifests/v1"));
    assert_eq!(wanted("r.example/a/b/blobs/sha256:00", None), is("r.example/a/b", "blobs/sha256:00"));
    assert_eq!(wanted("library/alpine/manifests/3", None), is("docker.io/library/alpine", "manifests/3"));
    for none in
        ["a/tags/list", "manifests/v1", "a/manifests/..", "a/manifests/x%2f", "a/blobs/", "A B/blobs/x", ""]
    {
        assert_eq!(wanted(none, Some("r.example")), None, "{none}");
    }
}

#[tokio::test]
async fn a_plain_blob_leaves_the_registry_once_for_all_nodes() {
    let scene = scene(3).await;
    let (digest, bytes) = scene.plain(1);
    let path = format!("shared/blobs/{digest}");
    let (first, second, third) =
        tokio::join!(scene.pull(0, &path, &[]), scene.pull(1, &path, &[]), scene.pull(2, &path, &[]));
    for answer in [first, second, third] {
        assert!(answer.is(&bytes));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    }
    assert_eq!(scene.reads(), 6, "one request for each piece");
    scene.registry.remove_blob(&digest);
    assert!(scene.pull(0, &path, &[]).await.is(&bytes), "it stays here");
    let part = scene.pull(0, &path, &[("range", "bytes=1048570-")]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert!(part.is(&bytes[1_048_570..]));
}

#[tokio::test]
async fn a_blob_comes_at_whatever_priority_its_reader_says() {
    let scene = scene(1).await;
    for (seed, said) in (10..).zip(["background", "trace", "read-ahead", "demand", "urgent"]) {
        let (digest, bytes) = scene.plain(seed);
        let path = format!("shared/blobs/{digest}");
        assert!(scene.pull(0, &path, &[("x-shoal-priority", said)]).await.is(&bytes), "{said}");
    }
}

#[tokio::test]
async fn what_is_private_goes_through_and_is_not_kept() {
    let scene = scene(1).await;
    let (digest, bytes) = scene.plain(2);
    scene.registry.put_manifest("private", "v1", "application/vnd.oci.image.manifest.v1+json", "{}");
    scene.registry.guard(Guard::Basic("user".into(), "password".into()));
    let path = format!("private/blobs/{digest}");
    let proof = [("authorization", PROOF)];
    for path in [path.as_str(), "private/manifests/v1"] {
        let refused = scene.pull(0, path, &[]).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
    }
    assert!(scene.pull(0, &path, &proof).await.is(&bytes));
    let part = scene.pull(0, &path, &[("range", "bytes=5-9"), proof[0]]).await;
    assert!(part.status == StatusCode::PARTIAL_CONTENT && part.is(&bytes[5..10]));
    assert_eq!(scene.pull(0, &path, &[]).await.status, StatusCode::UNAUTHORIZED, "nothing of it was kept");
    let manifest = scene.pull(0, "private/manifests/v1", &proof).await;
    assert!(manifest.is(b"{}"));
    let digest = format!("sha256:{}", hex::encode(Sha256::digest("{}")));
    assert_eq!(manifest.header("docker-content-digest"), Some(digest.as_str()));
}

#[tokio::test]
async fn a_wrong_blob_is_never_handed_out_whole_and_a_right_one_soon_is() {
    let scene = scene(2).await;
    let (digest, bytes) = scene.plain(3);
    let path = format!("shared/blobs/{digest}");
    scene.registry.fail(Fault::FlippedByte, 1);
    let (first, second) = tokio::join!(scene.pull(0, &path, &[]), scene.pull(1, &path, &[]));
    for answer in [first, second] {
        assert!(answer.is(&bytes) || answer.body.is_err(), "wrong bytes as a whole blob");
    }
    for node in 0..2 {
        assert!(scene.pull(node, &path, &[]).await.is(&bytes), "node {node} heals");
    }
}

/// What is kept wrong in the registry is whole nowhere: not of one piece, not of several, shared or not.
#[tokio::test]
async fn a_blob_that_stays_wrong_is_given_whole_to_nobody() {
    for (repository, len) in [("shared", 999), ("shared", 5 * MIB), ("private", 999), ("private", 5 * MIB)] {
        let scene = scene(3).await;
        let digest = scene.registry.put_blob(vec![7; len]);
        scene.registry.fail(Fault::FlippedByte, 10_000);
        let path = format!("{repository}/blobs/{digest}");
        let (first, second, third) =
            tokio::join!(scene.pull(0, &path, &[]), scene.pull(1, &path, &[]), scene.pull(2, &path, &[]));
        for answer in [first, second, third] {
            assert!(!answer.status.is_success() || answer.body.is_err(), "{repository}, {len} bytes");
        }
    }
}

#[tokio::test]
async fn what_the_registry_does_not_have_or_say_is_told_as_it_is() {
    let scene = scene(1).await;
    let missing = format!("shared/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(scene.pull(0, &missing, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(scene.pull(0, "shared/manifests/none", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(scene.pull(0, "shared/tags/list", &[]).await.status, StatusCode::NOT_FOUND);
    let dead = Request::get("/v2/a/manifests/v1?ns=127.0.0.1:1").body(Body::empty()).unwrap();
    assert_eq!(scene.answer(0, dead).await.status(), StatusCode::BAD_GATEWAY);
    let there = Request::get("/v2/").body(Body::empty()).unwrap();
    assert_eq!(scene.answer(0, there).await.status(), StatusCode::OK);
}
