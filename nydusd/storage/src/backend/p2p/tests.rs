use std::{
    collections::VecDeque,
    os::unix::net::UnixListener as StdListener,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::backend::{Detour, Way, localfs::LocalFsBackend};

/// What the daemon does with a read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Answer,
    BreakOff,
    Hang,
    Forget,
    Refuse,
    NotYet,
}

struct Scene {
    dir: tempfile::TempDir,
    blob: BlobId,
    bytes: Bytes,
    backend: Arc<dyn Backend>,
    inner: Arc<Counting>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The image's own backend; counts its reads.
#[derive(Debug)]
struct Counting(Arc<LocalFsBackend>, AtomicUsize);

impl Backend for Counting {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.0).read(blob, range, priority, via)
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// A daemon that does as told, read by read, and answers well from then on.
async fn daemon(
    listener: UnixListener,
    script: Arc<Mutex<VecDeque<Does>>>,
    bytes: Bytes,
    asked: Arc<Mutex<Vec<String>>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (script, bytes, asked) = (Arc::clone(&script), bytes.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Some(head) = head(&mut stream).await {
                let authorization = head.lines().find(|line| line.starts_with("authorization"));
                // The head is in lower case here.
                assert_eq!(
                    authorization,
                    (!head.contains("/pieces?") && !head.contains("/chunks?"))
                        .then_some("authorization: basic dxnlcjpwyxnzd29yza=="),
                    "only for what it is needed"
                );
                asked.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
                if head.starts_with("PUT") {
                    let answer = introduced(&mut script.lock().unwrap());
                    stream.write_all(answer).await.unwrap();
                    continue;
                }
                if head.starts_with("post") {
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    continue;
                }
                let does = script.lock().unwrap().pop_front().unwrap_or(Does::Answer);
                if !serve(&mut stream, &head, does, &bytes).await {
                    return;
                }
            }
        });
    }
}

fn introduced(script: &mut VecDeque<Does>) -> &'static [u8] {
    match script.front() {
        Some(Does::Refuse) => b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        Some(Does::NotYet) => {
            script.pop_front();
            b"HTTP/1.1 425 Too Early\r\ncontent-length: 0\r\n\r\n"
        }
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"list\":\"name\"}",
    }
}

/// The head of a request; its body, if it has one, is read and left aside.
async fn head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase().replace("put ", "PUT ");
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

async fn serve(stream: &mut UnixStream, head: &str, does: Does, bytes: &Bytes) -> bool {
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")).unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let part = bytes.slice(first.parse().unwrap()..last.parse::<usize>().unwrap() + 1);
    let answer = format!(
        "HTTP/1.1 206 Partial Content\r\nx-shoal-source: peers\r\ncontent-length: {}\r\n\r\n",
        part.len()
    );
    match does {
        Does::Forget | Does::Refuse | Does::NotYet => {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.is_ok()
        }
        Does::Hang => {
            std::future::pending::<()>().await;
            false
        }
        Does::BreakOff => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(&part[..part.len() / 2]).await.unwrap();
            stream.flush().await.unwrap();
            false
        }
        Does::Answer => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.write_all(&part).await.is_ok()
        }
    }
}

fn scene(script: &[Does], has_list: bool) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Bytes = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = BlobId::new(&"ab".repeat(32)).unwrap();
    std::fs::write(dir.path().join(blob.as_str()), &bytes).unwrap();
    if has_list {
        std::fs::write(dir.path().join(format!("{blob}.pieces")), b"a list").unwrap();
    }
    let socket = dir.path().join("socket");
    let asked = Arc::default();
    if !script.is_empty() {
        let listener = StdListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = Arc::new(Mutex::new(script.iter().copied().collect()));
        let listener = UnixListener::from_std(listener).unwrap();
        tokio::spawn(daemon(listener, script, bytes.clone(), Arc::clone(&asked)));
    }
    let inner = Arc::new(Counting(Arc::new(LocalFsBackend::in_dir(dir.path())), AtomicUsize::new(0)));
    let credential = Credential::Basic { user: "user".into(), password: "password".into() };
    let bootstrap = dir.path().join("image.boot");
    let backend =
        P2pBackend::new(&socket, "example.com/app", &bootstrap, Some(&credential), inner.clone()).unwrap();
    assert!(!format!("{backend:?}").contains("dXNlcjpwYXNzd29yZA=="), "it is never shown");
    Scene { dir, blob, bytes, backend: Arc::new(backend), inner, asked }
}

impl Scene {
    /// Reads, and says how the bytes came.
    async fn read(&self, range: Range<u64>) -> Way {
        let (via, backend) = (Via::default(), Arc::clone(&self.backend));
        let stream = backend.read(self.blob.clone(), range.clone(), Priority::Demand, via.clone());
        let stream = stream.await.unwrap();
        let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert!(parts.concat() == self.bytes[start..end]);
        via.way()
    }

    fn own_reads(&self) -> usize {
        self.inner.1.load(Ordering::Relaxed)
    }
}

fn why(way: &Way) -> String {
    way.detour.as_ref().map(|detour| detour.why.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn ranges_come_from_the_network_once_it_has_the_list() {
    let scene = scene(&[Does::Answer], true);
    assert_eq!(scene.read(10..100_000).await, Way { network: Some(Supply::Peers), detour: None });
    scene.read(5..6).await;
    assert_eq!(scene.own_reads(), 0);
    let asked = scene.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|line| line.starts_with("PUT")).count(), 1, "{asked:?}");
    assert!(asked[0].contains("repository=example.com%2fapp"), "{asked:?}");
    drop(scene.dir);
}

#[tokio::test]
async fn without_a_daemon_reads_come_from_the_backend() {
    let scene = scene(&[], true);
    for _ in 0..2 {
        let way = scene.read(0..10).await;
        assert!(way.network.is_none() && why(&way).starts_with("p2pd is away: "), "{way:?}");
    }
    assert_eq!(scene.own_reads(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_goes_on_at_the_backend_from_that_byte() {
    let scene = scene(&[Does::BreakOff], true);
    let way = scene.read(1000..150_000).await;
    assert_eq!(scene.own_reads(), 1);
    assert_eq!(way.network, Some(Supply::Peers));
    assert!(why(&way).starts_with("p2pd broke off: "), "{way:?}");
    assert_eq!(way.detour.map(|detour| detour.from), Some(1000 + 149_000 / 2));
}

#[tokio::test]
async fn a_daemon_that_was_started_again_gets_the_list_again() {
    let scene = scene(&[Does::Answer, Does::Forget, Does::Answer], true);
    scene.read(0..10).await;
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 0);
    let puts = scene.asked.lock().unwrap().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!(puts, 2);
}

#[tokio::test]
async fn what_is_refused_or_has_no_sound_list_is_not_asked_for_again() {
    for (script, has_list) in [([Does::Refuse].as_slice(), true), (&[Does::Answer], false)] {
        let scene = scene(script, has_list);
        if !has_list {
            std::fs::create_dir(scene.dir.path().join(format!("{}.pieces", scene.blob))).unwrap();
        }
        let ways = [scene.read(0..10).await, scene.read(0..10).await];
        let kind = if has_list { "refused" } else { "no-list" };
        assert!(ways.iter().all(|way| way.detour.as_ref().unwrap().why.kind() == kind), "{ways:?}");
        assert_eq!(scene.own_reads(), 2);
        assert!(scene.asked.lock().unwrap().len() <= 1);
    }
}

#[tokio::test]
async fn a_blob_without_a_list_comes_unchecked_and_what_was_wrong_is_doubted_before_it_is_asked_for_again() {
    let scene = scene(&[Does::Answer], false);
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 0);
    assert!(scene.backend.distrust(&scene.blob, 0..10));
    assert_eq!(scene.read(0..10).await.detour, Some(Detour { from: 0, why: Why::Distrusted }));
    tokio::time::pause();
    tokio::time::advance(REFUSED).await;
    tokio::time::resume();
    scene.read(20..30).await;
    assert_eq!(scene.own_reads(), 1);
    let asked = scene.asked.lock().unwrap();
    let calls: Vec<_> = asked
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().0.replace(scene.blob.as_str(), "blob"))
        .collect();
    let put = "PUT /v1/blobs/sha256:blob?repository=example.com%2fapp";
    let get = "get /v1/blobs/sha256:blob?unchecked=true";
    assert_eq!(calls, [put, get, put, "post /v1/blobs/sha256:blob/doubts", get]);
}

#[tokio::test]
async fn an_image_without_a_list_of_pieces_hands_over_one_of_its_chunks_and_doubts_nothing() {
    let scene = scene(&[Does::Answer], false);
    let image = super::lists::tests::image_of(&scene.blob);
    std::fs::write(scene.dir.path().join("image.boot"), image).unwrap();
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 0);
    assert!(scene.backend.distrust(&scene.blob, 0..10));
    tokio::time::pause();
    tokio::time::advance(REFUSED).await;
    tokio::time::resume();
    scene.read(20..30).await;
    let asked = scene.asked.lock().unwrap();
    let calls: Vec<_> = asked
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().0.replace(scene.blob.as_str(), "blob"))
        .collect();
    let put = "PUT /v1/blobs/sha256:blob/chunks?repository=example.com%2fapp";
    let get = "get /v1/blobs/sha256:blob?list=name";
    assert_eq!(calls, [put, get, put, get]);
}

#[tokio::test]
async fn a_daemon_that_hangs_costs_its_patience_once_and_is_asked_again_later() {
    let scene = scene(&[Does::Hang], true);
    let began = Instant::now();
    scene.read(0..10).await;
    assert!(began.elapsed() >= PATIENCE);
    let began = Instant::now();
    scene.read(0..10).await;
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(scene.own_reads(), 2);
    tokio::time::sleep(AWAY).await;
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 2);
}

#[tokio::test]
async fn bytes_that_prove_wrong_are_read_from_the_backend() {
    let scene = scene(&[Does::Answer], true);
    scene.read(0..10).await;
    assert!(scene.backend.distrust(&scene.blob, 0..10));
    let way = scene.read(0..10).await;
    assert_eq!(way.detour, Some(Detour { from: 0, why: Why::Distrusted }));
    assert_eq!(scene.own_reads(), 1);
}

#[tokio::test]
async fn lists_are_handed_over_at_mount_until_the_network_knows_whether_it_may() {
    let scene = scene(&[Does::NotYet, Does::NotYet, Does::Answer], true);
    Arc::clone(&scene.backend).prepare(vec![scene.blob.clone()]).await;
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 0);
    let asked = scene.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|line| line.starts_with("PUT")).count(), 3, "{asked:?}");
}

#[tokio::test]
async fn a_read_does_not_wait_until_the_network_knows_whether_it_may() {
    let scene = scene(&[Does::NotYet, Does::Answer], true);
    let way = scene.read(0..10).await;
    assert_eq!(way.detour, Some(Detour { from: 0, why: Why::NotYet }));
    assert_eq!(scene.own_reads(), 1, "it went to the backend");
    tokio::time::sleep(SOON).await;
    scene.read(0..10).await;
    assert_eq!(scene.own_reads(), 1, "and soon the network is asked again");
}

#[tokio::test]
async fn many_first_reads_hand_the_list_over_once() {
    let scene = scene(&[Does::Answer], true);
    futures_util::future::join_all((0..10).map(|at| scene.read(at..at + 10))).await;
    let asked = scene.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|line| line.starts_with("PUT")).count(), 1, "{asked:?}");
}
