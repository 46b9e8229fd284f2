use registry::{
    Reference,
    testing::{Fault, TestRegistry},
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn whole_blobs_and_ranges_come_exactly() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a/b"), pattern(300_000));
    let digest = registry.put_blob(bytes.clone());
    assert_eq!(read(&client, &repository, &digest, None).await.unwrap(), bytes);
    for range in [0..1, 0..300_000, 7..299_999, 299_999..300_000, 5..5] {
        assert_eq!(read(&client, &repository, &digest, range.clone()).await.unwrap(), part(&bytes, &range));
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_retried_and_one_that_stays_is_reported() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(1000));
    let digest = registry.put_blob(bytes.clone());
    registry.fail(Fault::Status(503, None), 2);
    assert_eq!(read(&client, &repository, &digest, 0..10).await.unwrap(), bytes.slice(..10));
    assert_eq!(registry.requests().len(), 3);
    registry.fail(Fault::Status(503, None), usize::MAX);
    let error = read(&client, &repository, &digest, 4..10).await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    for part in ["503", &registry.host(), "of a at", &digest, "bytes 4-10"] {
        assert!(text.contains(part), "{text}: no {part}");
    }
}

#[tokio::test]
async fn a_refusal_for_good_is_not_retried() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository) = (setup.client(), registry.repository("a"));
    let missing = format!("sha256:{}", "0".repeat(64));
    let error = read(&client, &repository, &missing, 0..10).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_retryable(), "{error}");
    assert_eq!(registry.requests().len(), 1);
    assert!(read(&client, &repository, "sha256:short", None).await.is_err());
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let digest = registry.put_blob(pattern(10));
    registry.fail(Fault::Status(429, Some(1)), 1);
    let started = std::time::Instant::now();
    read(&setup.client(), &registry.repository("a"), &digest, 0..10).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_body_that_breaks_or_stalls_is_resumed_where_it_broke() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(200_000));
    let digest = registry.put_blob(bytes.clone());
    for fault in [Fault::ShortBody, Fault::Stall] {
        registry.fail(fault, 1);
        assert_eq!(
            read(&client, &repository, &digest, 1000..150_000).await.unwrap(),
            bytes.slice(1000..150_000)
        );
        registry.fail(Fault::ShortBody, 1);
        assert_eq!(read(&client, &repository, &digest, None).await.unwrap(), bytes);
    }
    let resumed = registry.requests()[1].range.clone().unwrap();
    let from: u64 = resumed.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
    assert!(from > 1000, "{resumed}");
}

#[tokio::test]
async fn a_body_that_keeps_breaking_is_an_error_and_never_a_short_end() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository) = (setup.client(), registry.repository("a"));
    let digest = registry.put_blob(pattern(100_000));
    registry.fail(Fault::ShortBody, usize::MAX);
    let error = read(&client, &repository, &digest, 0..100_000).await.unwrap_err().to_string();
    assert!(error.contains(&digest) && error.contains("of a at"), "{error}");
    assert!(read(&client, &repository, &digest, None).await.is_err());
}

#[tokio::test]
async fn ranges_that_are_not_those_asked_for_are_errors() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(1000));
    let digest = registry.put_blob(bytes.clone());
    for fault in [Fault::WholeForRange, Fault::WrongRange, Fault::ShortRange] {
        registry.heal();
        registry.fail(fault.clone(), usize::MAX);
        assert!(read(&client, &repository, &digest, 10..20).await.is_err(), "{fault:?}");
    }
    registry.heal();
    registry.fail(Fault::WholeForRange, 1);
    assert_eq!(read(&client, &repository, &digest, 0..1000).await.unwrap(), bytes, "the whole was asked for");
    let past_end = read(&client, &repository, &digest, 990..1001).await.unwrap_err();
    assert!(past_end.to_string().contains("Content-Range"), "{past_end}");
}

#[tokio::test]
async fn a_silent_registry_is_a_timeout() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let client = Client::new(ClientOptions { attempts: 1, ..setup.options() }).unwrap();
    let digest = registry.put_blob(pattern(10));
    registry.fail(Fault::Delay(Duration::from_secs(60)), 1);
    let error = read(&client, &registry.repository("a"), &digest, 0..10).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_digest_with_their_media_type() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let client = setup.client();
    let digest = registry.put_manifest("a", "v1", OCI_MANIFEST, "{\"schemaVersion\":2}");
    let by_tag = client.manifest(&registry.reference("a", "v1")).await.unwrap();
    assert_eq!(by_tag.descriptor.media_type().to_string(), OCI_MANIFEST);
    assert_eq!((by_tag.descriptor.digest().to_string(), by_tag.descriptor.size()), (digest.clone(), 19));
    let by_digest = client.manifest(&registry.reference("a", "v1").at_digest(&digest)).await.unwrap();
    assert_eq!(by_digest.bytes, by_tag.bytes);
    let index = "application/vnd.docker.distribution.manifest.list.v2+json";
    registry.put_manifest("a", "list", OCI_MANIFEST, format!("{{\"mediaType\":\"{index}\"}}"));
    let list = client.manifest(&registry.reference("a", "list")).await.unwrap();
    assert_eq!(list.descriptor.media_type().to_string(), index, "the bytes are covered by the digest");
}

#[tokio::test]
async fn a_manifest_with_other_bytes_or_too_many_is_refused() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let client = setup.client();
    let digest = registry.put_manifest("a", "v1", OCI_MANIFEST, "{}");
    registry.fail(Fault::FlippedByte, usize::MAX);
    let image = Reference { digest: Some(digest), ..registry.reference("a", "v1") };
    let error = client.manifest(&image).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    registry.heal();
    registry.put_manifest("a", "huge", OCI_MANIFEST, vec![b' '; (8 << 20) + 1]);
    let error = client.manifest(&registry.reference("a", "huge")).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_file_of_a_web_server_is_read_like_a_blob() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, bytes) = (setup.client(), pattern(1000));
    let digest = registry.put_blob(bytes.clone());
    registry.fail(Fault::Status(500, None), 1);
    let url = format!("http://{}/v2/x/blobs/{digest}", registry.host());
    let parts: Vec<Bytes> = client.file(&url, Some(5..105)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(parts.concat(), bytes[5..105]);
    assert!(client.file("ftp://example.com/x", None).await.is_err());
}

/// Where the rest of a file begins, how long the whole is, and the bytes.
async fn rest(client: &Client, url: &str, from: u64) -> (u64, Option<u64>, Vec<u8>) {
    let rest = client.rest_of_file(url, from).await.unwrap();
    let parts: Vec<Bytes> = rest.body.try_collect().await.unwrap();
    (rest.start, rest.total, parts.concat())
}

#[tokio::test]
async fn the_rest_of_a_file_comes_or_else_the_whole() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, bytes) = (setup.client(), pattern(1000));
    let url = format!("http://{}/v2/x/blobs/{}", registry.host(), registry.put_blob(bytes.clone()));
    for from in [0, 1, 999] {
        let index = usize::try_from(from).unwrap();
        assert_eq!(rest(&client, &url, from).await, (from, Some(1000), bytes[index..].to_vec()));
    }
    registry.fail(Fault::ShortBody, 1);
    assert_eq!(rest(&client, &url, 100).await, (100, Some(1000), bytes[100..].to_vec()), "where it broke");
    assert_eq!(rest(&client, &url, 1000).await, (1000, Some(1000), Vec::new()), "nothing is missing");
    let whole = (0, Some(1000), bytes.to_vec());
    assert_eq!(rest(&client, &url, 1001).await, whole, "another file was here");
    for fault in [Fault::WholeForRange, Fault::WrongRange, Fault::ShortRange] {
        registry.fail(fault.clone(), 1);
        assert_eq!(rest(&client, &url, 500).await, whole, "{fault:?}");
    }
    registry.remove_blob(&format!("sha256:{}", url.rsplit(':').next().unwrap()));
    assert!(client.rest_of_file(&url, 500).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    // The first answer breaks off; the next one is of another version.
    let server = tokio::spawn(async move {
        let ends = [
            "200 OK\r\nContent-Length: 10\r\nETag: \"1\"\r\n\r\n01234",
            "206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\nETag: \"2\"\r\n\r\n56789",
        ];
        for end in ends {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(asked > 0);
            stream.write_all(format!("HTTP/1.1 {end}").as_bytes()).await.unwrap();
        }
    });
    let rest = Setup::new().client().rest_of_file(&url, 0).await.unwrap();
    let error = rest.body.try_collect::<Vec<_>>().await.unwrap_err().to_string();
    assert!(error.contains("has changed"), "{error}");
    server.await.unwrap();
}
