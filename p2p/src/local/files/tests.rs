use std::sync::{Mutex, atomic::AtomicU64, atomic::Ordering};

use axum::{Router, body::Bytes, extract::Request as Asking, http::Request, routing::get};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::super::tests::{Scene, scene_sharing};
use super::*;

const LEN: usize = (3 << 20) + 55;

/// A web server with one file.
struct Web {
    host: String,
    file: Arc<Served>,
}

#[derive(Default)]
struct Served {
    bytes: Mutex<(Bytes, u32)>,
    sent: AtomicU64,
}

impl Served {
    fn answer(&self, asking: &Asking) -> Response {
        let (bytes, version) = self.bytes.lock().unwrap().clone();
        let tag = format!("\"{version}\"");
        let text = |name: &str| asking.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let range = text("range").filter(|_| text("if-range").is_none_or(|wanted| wanted == tag));
        let range = range.and_then(|range| parse_range(&range, bytes.len() as u64));
        let Some(Range { start, end }) = range else {
            return ([("etag", tag)], bytes).into_response();
        };
        self.sent.fetch_add(end - start, Ordering::Relaxed);
        let content = format!("bytes {start}-{}/{}", end - 1, bytes.len());
        let part = bytes.slice(usize::try_from(start).unwrap()..usize::try_from(end).unwrap());
        (StatusCode::PARTIAL_CONTENT, [("content-range", content), ("etag", tag)], part).into_response()
    }
}

impl Web {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let file = Arc::new(Served::default());
        let served = Arc::clone(&file);
        let calls =
            Router::new().route("/{*path}", get(move |asking: Asking| async move { served.answer(&asking) }));
        tokio::spawn(async move { axum::serve(listener, calls).await });
        let web = Self { host, file };
        web.put(1);
        web
    }

    /// Another version of the file.
    fn put(&self, version: u32) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        fastrand::Rng::with_seed(version.into()).fill(&mut bytes);
        *self.file.bytes.lock().unwrap() = (bytes.clone().into(), version);
        bytes
    }

    fn copies(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        (self.file.sent.load(Ordering::Relaxed) as f64 / LEN as f64)
    }

    fn path(&self, name: &str, digest: Option<&[u8]>) -> String {
        let digest = digest.map(|bytes| format!("&digest=sha256:{}", hex::encode(Sha256::digest(bytes))));
        format!("/v1/files?url=http://{}/{name}{}", self.host, digest.unwrap_or_default())
    }
}

async fn ask(scene: &Scene, node: usize, path: &str, range: Option<&str>) -> (StatusCode, Option<Vec<u8>>) {
    let mut request = Request::get(path);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = scene.answer(node, request.body(Body::empty()).unwrap()).await;
    let status = answer.status();
    (status, answer.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec()))
}

#[tokio::test]
async fn a_file_of_a_known_digest_leaves_its_server_once_for_all_nodes() {
    let (scene, web) = (scene_sharing(3, &[]).await, Web::start().await);
    let bytes = web.put(7);
    let path = web.path("file", Some(&bytes));
    let (first, second, third) =
        tokio::join!(ask(&scene, 0, &path, None), ask(&scene, 1, &path, None), ask(&scene, 2, &path, None));
    for (status, body) in [first, second, third] {
        assert!(status == StatusCode::OK && body.as_deref() == Some(&bytes));
    }
    assert!(web.copies() < 1.01, "{} copies", web.copies());
    let (status, part) = ask(&scene, 1, &path, Some("bytes=1048570-")).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert!(part.as_deref() == Some(&bytes[1_048_570..]));

    let wrong = web.path("file", Some(b"something else"));
    let (status, body) = ask(&scene, 0, &wrong, None).await;
    assert!(!status.is_success() || body.is_none(), "a file that is not of its digest");
}

#[tokio::test]
async fn a_file_of_no_digest_is_shared_where_its_address_is_listed_and_in_one_version() {
    let web = Web::start().await;
    let share = format!("http://{}/public/*", web.host);
    let scene = scene_sharing(2, &[&share]).await;
    let path = web.path("public/file", None);
    for version in 1..3 {
        let (bytes, before) = (web.put(version), web.copies());
        let (_, part) = ask(&scene, 0, &path, Some("bytes=5-9")).await;
        assert!(part.as_deref() == Some(&bytes[5..10]), "version {version}, a part before the rest");
        for node in 0..2 {
            let (status, body) = ask(&scene, node, &path, None).await;
            assert!(status == StatusCode::OK && body.as_deref() == Some(&bytes), "version {version}");
        }
        let copies = web.copies() - before;
        assert!(copies < 1.01, "{copies} copies of version {version}");
    }
    let (status, _) = ask(&scene, 0, &web.path("other/file", None), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = ask(&scene, 0, &web.path("public/../other", None), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let secret = format!("/v1/files?url=http://me:pw@{}/public/file", web.host);
    assert_eq!(ask(&scene, 0, &secret, None).await.0, StatusCode::FORBIDDEN);
    let (status, _) = ask(&scene, 0, &path, Some("bytes=99999999-")).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
}
