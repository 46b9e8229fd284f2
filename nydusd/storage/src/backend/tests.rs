//! One suite for every backend.

use std::time::Duration;

use ::registry::{
    Client, ClientOptions,
    testing::{Fault, TestRegistry},
};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::{http::HttpBackend, localfs::LocalFsBackend, registry::RegistryBackend, *};
use crate::{BlobSet, CacheDir, ReadPolicy, testing::TestBlob};

struct Places {
    registry: TestRegistry,
    dir: tempfile::TempDir,
    blob: BlobId,
    bytes: Bytes,
}

impl Places {
    async fn start() -> Self {
        let (registry, dir) = (TestRegistry::start().await, tempfile::tempdir().unwrap());
        let bytes: Bytes = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let digest = registry.put_blob(bytes.clone());
        let blob = BlobId::new(digest.trim_start_matches("sha256:")).unwrap();
        std::fs::write(dir.path().join(blob.as_str()), &bytes).unwrap();
        Self { registry, dir, blob, bytes }
    }

    fn client(&self) -> Client {
        Client::new(ClientOptions {
            hosts_dirs: Vec::new(),
            docker_config: Some(self.dir.path().into()),
            attempts: 1,
            ..ClientOptions::default()
        })
        .unwrap()
    }

    fn remote(&self) -> [Arc<dyn Backend>; 2] {
        let files = format!("http://{}/v2/app/blobs", self.registry.host());
        [
            Arc::new(RegistryBackend::new(self.client(), self.registry.repository("app"))),
            Arc::new(HttpBackend::new(self.client(), &files)),
        ]
    }
}

async fn read(backend: &Arc<dyn Backend>, blob: &BlobId, range: Range<u64>) -> Result<Bytes, BackendError> {
    let stream = Arc::clone(backend).read(blob.clone(), range, Priority::Demand, Via::default()).await?;
    let parts: Vec<Bytes> = stream.try_collect().await?;
    Ok(parts.concat().into())
}

#[tokio::test]
async fn every_backend_streams_exactly_the_range() {
    let places = Places::start().await;
    let local: Arc<dyn Backend> = Arc::new(LocalFsBackend::in_dir(places.dir.path()));
    for backend in places.remote().iter().chain([&local]) {
        for (from, to) in [(0, 1), (7, 399_999), (0, 400_000), (5, 5)] {
            let got = read(backend, &places.blob, from as u64..to as u64).await.unwrap();
            assert_eq!(got, places.bytes.slice(from..to), "{backend:?}");
        }
    }
}

#[tokio::test]
async fn every_backend_refuses_what_is_not_there_and_names_it() {
    let places = Places::start().await;
    let missing = BlobId::from_sha256(&[9; 32]);
    let local: Arc<dyn Backend> = Arc::new(LocalFsBackend::in_dir(places.dir.path()));
    for backend in places.remote().iter().chain([&local]) {
        let error = read(backend, &missing, 3..9).await.unwrap_err();
        let text = error.to_string();
        assert!(!error.retryable && text.contains(missing.as_str()) && text.contains("3..9"), "{text}");
        assert!(text.starts_with(&backend.name()), "{text}");
        assert!(read(backend, &places.blob, 399_999..400_001).await.is_err(), "past the end: {text}");
    }
}

#[tokio::test]
async fn remote_backends_say_which_failures_may_pass() {
    let places = Places::start().await;
    for backend in places.remote() {
        for (fault, retryable) in
            [(Fault::Status(503, None), true), (Fault::ShortBody, true), (Fault::WholeForRange, false)]
        {
            places.registry.fail(fault.clone(), 1);
            let error = read(&backend, &places.blob, 10..90_000).await.unwrap_err();
            assert_eq!(error.retryable, retryable, "{fault:?}: {error:?}");
            places.registry.heal();
        }
        assert_eq!(read(&backend, &places.blob, 10..20).await.unwrap(), places.bytes.slice(10..20));
    }
}

#[test]
fn a_password_in_the_url_is_not_shown() {
    let client = Client::new(ClientOptions::default()).unwrap();
    let backend = HttpBackend::new(client, "https://me:secret@example.com/blobs/");
    assert_eq!(backend.name(), "http example.com/blobs");
}

/// A blob of an image behind a mirror and its origin, both of which have it.
async fn mirrored(blob: &TestBlob) -> (TestRegistry, TestRegistry, tempfile::TempDir, Arc<dyn Backend>) {
    let (mirror, origin, dir) =
        (TestRegistry::start().await, TestRegistry::start().await, tempfile::tempdir().unwrap());
    let hosts = dir.path().join("certs.d/origin.test");
    std::fs::create_dir_all(&hosts).unwrap();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]", origin.host(), mirror.host());
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    for registry in [&mirror, &origin] {
        registry.put_blob(blob.file.clone());
    }
    let options = ClientOptions {
        hosts_dirs: vec![dir.path().join("certs.d")],
        docker_config: Some(dir.path().into()),
        read_timeout: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let repository = ::registry::Repository { host: "origin.test".into(), path: "app".into() };
    let backend = RegistryBackend::new(Client::new(options).unwrap(), repository);
    (mirror, origin, dir, Arc::new(backend))
}

#[tokio::test]
async fn readers_get_right_bytes_when_a_mirror_gives_wrong_ones() {
    let sizes = [3000; 40];
    // Of the table of a batch blob the flipped byte says nothing that counts: a unit tells that something is wrong.
    for (blob, asked) in [(TestBlob::new(1, &sizes), 1), (TestBlob::batched(1, &sizes, 20_000), 2)] {
        let (mirror, origin, dir, backend) = mirrored(&blob).await;
        mirror.fail(Fault::FlippedByte, usize::MAX);
        let cache = CacheDir::open(dir.path()).unwrap();
        let policy = ReadPolicy { window: 0, ..ReadPolicy::default() };
        let blobs = std::slice::from_ref(&blob.blob);
        let set = BlobSet::from_blobs(blobs, &cache, backend, policy).unwrap();
        for place in 0..40 {
            let (begin, end) = (place * 4096, place * 4096 + 3000);
            let bytes = set.clone().read(rafs::BlobIndex(0), begin as u64, 3000).await.unwrap();
            assert!(bytes == blob.image[begin..end], "chunk {place}");
        }
        assert_eq!(set.reads().failures, 0);
        assert_eq!(mirror.requests().len(), asked, "it is left after its first wrong bytes");
        assert!(!origin.requests().is_empty());
    }
}

#[tokio::test]
async fn a_mirror_that_falls_silent_is_left_in_the_middle_of_a_read() {
    let blob = TestBlob::new(1, &[30_000; 8]);
    for silence in [Fault::Delay(Duration::from_secs(60)), Fault::Stall] {
        let (mirror, origin, dir, backend) = mirrored(&blob).await;
        mirror.fail(silence.clone(), usize::MAX);
        let cache = CacheDir::open(dir.path()).unwrap();
        let policy = ReadPolicy {
            window: 0,
            stall: Duration::from_millis(400),
            deadline: Duration::from_secs(3),
            ..ReadPolicy::default()
        };
        let set = BlobSet::from_blobs(std::slice::from_ref(&blob.blob), &cache, backend, policy).unwrap();
        for place in 0..8 {
            let begin = place * 32_768;
            let bytes = set.clone().read(rafs::BlobIndex(0), begin as u64, 30_000).await.unwrap();
            assert!(bytes == blob.image[begin..begin + 30_000], "{silence:?}");
        }
        assert_eq!((mirror.requests().len(), set.reads().failures), (1, 0), "{silence:?}");
        assert!(!origin.requests().is_empty());
    }
}

#[tokio::test]
async fn a_source_that_drips_is_left_when_a_reader_has_waited_in_vain() {
    #[derive(Debug, Default)]
    struct Dripping(std::sync::atomic::AtomicUsize);
    impl Backend for Dripping {
        fn read(
            self: Arc<Self>,
            _: BlobId,
            range: Range<u64>,
            _: Priority,
            _: Via,
        ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
            let drops = futures_util::stream::iter(range).then(|_| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Bytes::from_static(b"x"))
            });
            async move { Ok(drops.boxed()) }.boxed()
        }

        fn distrust(&self, _: &BlobId, range: Range<u64>) -> bool {
            assert_eq!(range.start, 0);
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0
        }

        fn name(&self) -> String {
            "dripping".into()
        }
    }
    let (blob, dir) = (TestBlob::new(1, &[30_000]), tempfile::tempdir().unwrap());
    let (cache, backend) = (CacheDir::open(dir.path()).unwrap(), Arc::new(Dripping::default()));
    let policy = ReadPolicy { deadline: Duration::from_millis(300), ..ReadPolicy::default() };
    let blobs = std::slice::from_ref(&blob.blob);
    let set = BlobSet::from_blobs(blobs, &cache, backend.clone(), policy).unwrap();
    assert!(set.clone().read(rafs::BlobIndex(0), 0, 1).await.is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(backend.0.load(std::sync::atomic::Ordering::SeqCst), 1);
}
