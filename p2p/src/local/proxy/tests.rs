use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
    response::IntoResponse as _,
};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use registry::testing::Guard;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    super::{
        mirror::tests::{Answer, PROOF},
        tests::{Scene, scene},
    },
    *,
};

const LONG: Duration = Duration::from_secs(60);

/// Nodes with proxies, and the registry of the scene.
struct Bed {
    scene: Scene,
    proxies: Vec<SocketAddr>,
    stop: CancellationToken,
    serving: Vec<JoinHandle<io::Result<()>>>,
}

async fn bed(nodes: u8, rules: &str) -> Bed {
    let scene = scene(nodes).await;
    let rules: toml::Table = rules.parse().unwrap();
    let rules = rules.get("proxy_rules").map(|rules| rules.as_array().unwrap().clone());
    let rules = Rules::read(rules.unwrap_or_default()).unwrap();
    let (mut proxies, mut serving, stop) = (Vec::new(), Vec::new(), CancellationToken::new());
    for local in &scene.locals {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let options = ClientOptions { guarded: true, ..ClientOptions::default() };
        let proxy = Proxy::new(Arc::clone(local), options, rules.clone(), at);
        proxies.push(at);
        serving.push(tokio::spawn(proxy.serve(listener, stop.clone())));
    }
    Bed { scene, proxies, stop, serving }
}

impl Bed {
    /// Sends a request as it is, whole URL and all, and hands out the answer before its body.
    async fn begin(&self, node: usize, request: Request<Body>) -> Response {
        let io = TokioIo::new(TcpStream::connect(self.proxies[node]).await.unwrap());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        timeout(LONG, sender.send_request(request)).await.unwrap().unwrap().map(Body::new)
    }

    async fn send(&self, node: usize, request: Request<Body>) -> Answer {
        Answer::read(self.begin(node, request).await).await
    }

    async fn get(&self, node: usize, url: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(node, request.body(Body::empty()).unwrap()).await
    }

    /// A URL at the registry.
    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.scene.registry.host())
    }

    /// Asks for a tunnel, with the first bytes right behind, and says what status came.
    async fn connect(&self, target: &str, first: &[u8]) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.proxies[0]).await.unwrap();
        let mut asked = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes();
        asked.extend_from_slice(first);
        stream.write_all(&asked).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
        }
        (String::from_utf8(head).unwrap()[9..12].to_owned(), stream)
    }
}

/// A server that says what it was told once all of that has come.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
            });
        }
    });
    at
}

/// A web server.
async fn web(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    at
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_each_end_by_itself() {
    let bed = bed(1, "").await;
    let mut bytes = vec![0; 3 << 20];
    fastrand::Rng::with_seed(5).fill(&mut bytes);
    // A handshake's first record, long before the rest.
    bytes[..3].copy_from_slice(&[0x16, 0x03, 0x01]);
    let (status, stream) = bed.connect(&echo().await.to_string(), &bytes[..500]).await;
    assert_eq!(status, "200");
    let (mut from, mut to) = stream.into_split();
    to.write_all(&bytes[500..]).await.unwrap();
    to.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(LONG, from.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert!(heard == bytes);
}

#[tokio::test]
async fn a_proxy_that_stops_ends_at_once_without_tunnels_and_cuts_those_there_are() {
    let mut first = bed(1, "").await;
    first.stop.cancel();
    timeout(LONG, first.serving.remove(0)).await.unwrap().unwrap().unwrap();

    let mut second = bed(1, "").await;
    let (status, mut tunnel) = second.connect(&echo().await.to_string(), b"x").await;
    assert_eq!(status, "200");
    second.stop.cancel();
    let serving = second.serving.remove(0);
    assert!(!serving.is_finished(), "the tunnel is under way");
    serving.abort();
    let ended = timeout(LONG, tunnel.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn addresses_of_the_link_and_of_metadata_are_refused() {
    let bed = bed(1, "").await;
    for target in ["169.254.169.254:80", "2852039166:80", "[fe80::1]:80", "[::ffff:169.254.1.1]:1"] {
        assert_eq!(bed.connect(target, b"").await.0, "403", "{target}");
        let answer = bed.get(0, &format!("http://{target}/latest/meta-data"), &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{target}");
    }
    let path = format!("http://169.254.169.254/v2/a/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(bed.get(0, &path, &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bed.connect("no-port.example", b"").await.0, "400");
}

#[tokio::test]
async fn what_a_rule_denies_is_refused() {
    let bed = bed(
        1,
        "proxy_rules = [
            { match = '*/v2/secret/*', action = 'deny' }, { match = '127.0.0.1/v2/*', action = 'p2p' },
            { match = '127.0.0.*', action = 'deny' },
        ]",
    )
    .await;
    let denied = |answer: &Answer| {
        let told = String::from_utf8_lossy(answer.body.as_deref().unwrap()).into_owned();
        answer.status == StatusCode::FORBIDDEN && told.contains("a rule denies")
    };
    assert!(denied(&bed.get(0, &bed.url("secret/manifests/v1"), &[]).await));
    assert!(denied(&bed.get(0, &format!("http://{}/", bed.scene.registry.host()), &[]).await));
    let around = bed.get(0, &bed.url("open/../secret/manifests/v1"), &[]).await;
    assert_eq!(around.status, StatusCode::BAD_REQUEST);
    assert_eq!(bed.connect(&bed.scene.registry.host(), b"").await.0, "403");
    assert_eq!(bed.get(0, &bed.url("open/manifests/v1"), &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_leaves_the_registry_once_for_all_nodes_unless_a_rule_says_direct() {
    let bed = bed(2, "proxy_rules = [{ match = '*', action = 'p2p' }]").await;
    let (digest, bytes) = bed.scene.plain(1);
    let url = bed.url(&format!("shared/blobs/{digest}"));
    let (first, second) = tokio::join!(bed.get(0, &url, &[]), bed.get(1, &url, &[]));
    assert!(first.is(&bytes) && second.is(&bytes));
    assert_eq!(bed.scene.reads(), 6, "one request for each piece");
    bed.scene.registry.remove_blob(&digest);
    assert!(bed.get(0, &url, &[]).await.is(&bytes), "it stays here");

    let direct = self::bed(2, "proxy_rules = [{ match = '127.0.0.1', action = 'direct' }]").await;
    let (digest, bytes) = direct.scene.plain(1);
    let url = direct.url(&format!("shared/blobs/{digest}"));
    for node in 0..2 {
        assert!(direct.get(node, &url, &[]).await.is(&bytes));
    }
    assert_eq!(direct.scene.reads(), 2);
}

#[tokio::test]
async fn what_is_not_shared_goes_through_with_its_credential_and_is_not_kept() {
    let bed = bed(1, "").await;
    let (digest, bytes) = bed.scene.plain(2);
    bed.scene.registry.guard(Guard::Basic("user".into(), "password".into()));
    let url = bed.url(&format!("private/blobs/{digest}"));
    let proof = [("authorization", PROOF)];
    for _ in 0..2 {
        let refused = bed.get(0, &url, &[]).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.headers.contains_key(header::WWW_AUTHENTICATE));
        assert!(bed.get(0, &url, &proof).await.is(&bytes));
    }
    bed.scene.registry.remove_blob(&digest);
    assert_eq!(bed.get(0, &url, &proof).await.status, StatusCode::NOT_FOUND, "nothing was kept");
}

#[tokio::test]
async fn everything_else_is_handed_on_as_it_is() {
    let said = |request: Request<Body>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let told = format!("{} {} {:?} {}", head.method, head.uri, head.headers, body.len());
        (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere"), ("keep-alive", "5")], told)
            .into_response()
    };
    let (bed, at) = (bed(1, "").await, web(Router::new().fallback(said)).await);
    let put = |body: Body| {
        let request = Request::put(format!("http://{at}/a/b?c=d%20e"));
        let request = request.header("authorization", PROOF).header("proxy-authorization", "x");
        request.header("connection", "x-hop").header("x-hop", "1").header("host", "other").body(body).unwrap()
    };
    let chunks = stream::iter((0..9).map(|_| Ok::<_, io::Error>(Bytes::from(vec![1; 100_000]))));
    for (body, length, framing) in [
        (Body::from(vec![0; 1 << 20]), 1 << 20, "\"content-length\": \"1048576\""),
        (Body::from_stream(chunks), 900_000, "\"transfer-encoding\": \"chunked\""),
    ] {
        let answer = bed.send(0, put(body)).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "redirects are the caller's to follow");
        assert_eq!(answer.headers["location"], "/elsewhere");
        assert!(!answer.headers.contains_key("keep-alive"));
        let told = String::from_utf8(answer.body.unwrap()).unwrap();
        assert!(told.starts_with("PUT /a/b?c=d%20e ") && told.ends_with(&format!(" {length}")), "{told}");
        for kept in ["Basic dXNlcjpwYXNzd29yZA==", "1.1 shoal-0101010101010101", framing, &at.to_string()] {
            assert!(told.contains(kept), "{kept} in {told}");
        }
        assert!(!["x-hop", "proxy-authorization", "other"].iter().any(|hop| told.contains(hop)), "{told}");
    }
    let head = bed.send(0, Request::head(format!("http://{at}/")).body(Body::empty()).unwrap()).await;
    assert!(head.headers.contains_key("content-length") && head.body.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_away_is_a_502_and_what_comes_round_a_508() {
    let bed = bed(2, "").await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let blob = format!("http://{nobody}/v2/a/blobs/sha256:{}", "0".repeat(64));
    for url in [format!("http://{nobody}/"), blob] {
        assert_eq!(bed.get(0, &url, &[]).await.status, StatusCode::BAD_GATEWAY, "{url}");
    }
    assert_eq!(bed.connect(&nobody.to_string(), b"").await.0, "502");
    assert_eq!(bed.connect("no-such-host.invalid:443", b"").await.0, "502");

    let own = bed.proxies[0];
    assert_eq!(bed.connect(&own.to_string(), b"").await.0, "508");
    assert_eq!(bed.connect(&format!("localhost:{}", own.port()), b"").await.0, "508");
    for url in [format!("http://{own}/"), format!("http://{own}/v2/a/manifests/v1")] {
        assert_eq!(bed.get(0, &url, &[]).await.status, StatusCode::LOOP_DETECTED, "{url}");
        assert_eq!(bed.get(1, &url, &[]).await.status, StatusCode::BAD_REQUEST, "another's {url}");
    }
    assert_eq!(bed.get(0, "/v2/", &[]).await.status, StatusCode::BAD_REQUEST);
    let secure = bed.get(0, "https://registry.example/", &[]).await;
    assert_eq!(secure.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_slow_reader_holds_the_server_up_and_not_its_bytes_in_memory() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 256;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let large = move || {
        let sent = Arc::clone(&counted);
        let chunks = (0..CHUNKS).map(move |_| {
            sent.fetch_add(CHUNK, Ordering::Relaxed);
            Ok::<_, io::Error>(Bytes::from(vec![7; CHUNK]))
        });
        async { Body::from_stream(stream::iter(chunks)) }
    };
    let (bed, at) = (bed(1, "").await, web(Router::new().fallback(large)).await);
    let request = Request::get(format!("http://{at}/")).body(Body::empty()).unwrap();
    let mut body = bed.begin(0, request).await.into_body();
    let mut read = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    // Until nothing moves any more: then all buffers on the way are full.
    let mut before = 0;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(before < CHUNK * CHUNKS / 4, "{before} bytes wait somewhere");
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, CHUNK * CHUNKS);
}
