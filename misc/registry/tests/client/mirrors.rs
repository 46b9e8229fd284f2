use futures_util::future::join_all;
use registry::{
    Credential,
    testing::{Fault, Guard, TestRegistry},
};

use super::*;

/// A registry of name `origin.test` that is only reached through its hosts.toml.
struct Mirrored {
    mirror: TestRegistry,
    origin: TestRegistry,
    setup: Setup,
    repository: Repository,
}

impl Mirrored {
    async fn start() -> Self {
        let (mirror, origin, setup) =
            (TestRegistry::start().await, TestRegistry::start().await, Setup::new());
        let hosts = format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             [host.\"http://{}\".header]\nx-mirror = \"yes\"",
            origin.host(),
            mirror.host(),
            mirror.host()
        );
        setup.write("certs.d/origin.test/hosts.toml", &hosts);
        let repository = Repository { host: "origin.test".into(), path: "a/b".into() };
        Self { mirror, origin, setup, repository }
    }

    fn counts(&self) -> (usize, usize) {
        let counts = (self.mirror.requests().len(), self.origin.requests().len());
        self.mirror.forget_requests();
        self.origin.forget_requests();
        counts
    }
}

#[tokio::test]
async fn the_mirror_is_asked_first_with_namespace_and_header() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(100));
    m.origin.put_blob(bytes.clone());
    let digest = m.mirror.put_blob(bytes.clone());
    assert_eq!(read(&client, &m.repository, &digest, 0..100).await.unwrap(), bytes);
    let asked = m.mirror.requests();
    assert!(asked[0].target.ends_with("?ns=origin.test"), "{}", asked[0].target);
    assert_eq!(asked[0].custom, [("x-mirror".to_owned(), "yes".to_owned())]);
    assert_eq!(m.counts(), (1, 0));
}

#[tokio::test]
async fn what_the_mirror_lacks_comes_from_the_origin_without_putting_the_mirror_aside() {
    let m = Mirrored::start().await;
    let (client, digest) = (m.setup.client(), m.origin.put_blob(pattern(100)));
    for _ in 0..2 {
        read(&client, &m.repository, &digest, 0..9).await.unwrap();
        assert_eq!(m.counts(), (1, 1));
    }
    assert!(m.origin.requests().iter().all(|request| request.custom.is_empty()));
}

#[tokio::test]
async fn a_mirror_that_fails_is_put_aside_and_tried_again_later() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(100));
    m.origin.put_blob(bytes.clone());
    let digest = m.mirror.put_blob(bytes.clone());
    m.mirror.fail(Fault::Status(502, None), 1);
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    assert_eq!(m.counts(), (1, 1), "fails over at once");
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    assert_eq!(m.counts(), (0, 1), "rests");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    assert_eq!(m.counts(), (1, 0), "is back");
}

#[tokio::test]
async fn one_request_tries_a_mirror_after_its_rest_and_the_others_go_round_it() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(100));
    m.origin.put_blob(bytes.clone());
    let digest = m.mirror.put_blob(bytes);
    m.mirror.fail(Fault::Status(502, None), 1);
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    m.counts();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    m.mirror.fail(Fault::Delay(Duration::from_millis(200)), 1);
    let all = join_all((0..8).map(|_| read(&client, &m.repository, &digest, 0..9))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(m.counts(), (1, 7));
}

#[tokio::test]
async fn a_resting_mirror_still_serves_when_the_origin_is_gone() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(100));
    let digest = m.mirror.put_blob(bytes.clone());
    m.mirror.fail(Fault::Status(502, None), 1);
    m.origin.fail(Fault::Status(500, None), usize::MAX);
    m.origin.put_blob(bytes.clone());
    assert_eq!(read(&client, &m.repository, &digest, 0..9).await.unwrap(), bytes.slice(..9));
}

#[tokio::test]
async fn a_body_that_breaks_goes_on_at_the_next_host() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(200_000));
    m.origin.put_blob(bytes.clone());
    let digest = m.mirror.put_blob(bytes.clone());
    m.mirror.fail(Fault::Stall, 1);
    assert_eq!(read(&client, &m.repository, &digest, None).await.unwrap(), bytes);
    assert_eq!(m.counts(), (1, 1));
}

#[tokio::test]
async fn a_dead_mirror_and_a_dead_origin_give_the_origins_error() {
    let m = Mirrored::start().await;
    let Mirrored { mirror, origin, setup, repository } = m;
    let (digest, host) = (origin.put_blob(pattern(10)), origin.host());
    drop((mirror, origin));
    let error = read(&setup.client(), &repository, &digest, 0..9).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&host), "{error}");
}

#[tokio::test]
async fn capabilities_keep_tags_and_pushes_from_hosts_that_must_not_have_them() {
    let (mirror, origin, setup) = (TestRegistry::start().await, TestRegistry::start().await, Setup::new());
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]",
        origin.host(),
        mirror.host()
    );
    setup.write("certs.d/origin.test/hosts.toml", &hosts);
    let (client, media_type) = (setup.client(), "application/vnd.oci.image.manifest.v1+json");
    let image = registry::Reference::parse("origin.test/a:v1").unwrap();
    client.push_manifest(&image, media_type, Bytes::from_static(b"{}")).await.unwrap();
    client.manifest(&image).await.unwrap();
    assert!(mirror.requests().is_empty());
    setup.write(
        "certs.d/none.test/hosts.toml",
        &format!("server = \"http://{}\"\ncapabilities = [\"pull\"]", origin.host()),
    );
    let error = client.manifest(&registry::Reference::parse("none.test/a:v1").unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoHost { capability: "resolve", .. }), "{error}");
}

#[tokio::test]
async fn the_callers_credential_goes_to_the_origin_and_never_to_a_mirror() {
    let m = Mirrored::start().await;
    let credential = Some(Credential::Basic { user: "me".into(), password: "pw".into() });
    let client = Client::new(ClientOptions { credential, ..m.setup.options() }).unwrap();
    let digest = m.mirror.put_blob(pattern(10));
    m.origin.put_blob(pattern(10));
    for registry in [&m.mirror, &m.origin] {
        registry.guard(Guard::Basic("me".into(), "pw".into()));
    }
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    assert!(m.mirror.requests().iter().all(|request| request.authorization.is_none()));
    assert_eq!(m.origin.requests().len(), 2);
}

#[tokio::test]
async fn a_mirror_that_gave_wrong_bytes_is_left_for_that_blob_and_a_while() {
    let m = Mirrored::start().await;
    let (client, bytes, others) = (m.setup.client(), pattern(100), pattern(50));
    let (digest, other) = (m.origin.put_blob(bytes.clone()), m.origin.put_blob(others.clone()));
    m.mirror.put_blob(bytes.clone());
    m.mirror.put_blob(others.clone());
    m.mirror.fail(Fault::FlippedByte, 1);
    assert_ne!(read(&client, &m.repository, &digest, 10..20).await.unwrap(), bytes.slice(10..20));
    assert!(!client.distrust(&m.repository, &digest, &(20..30)), "nobody gave these");
    assert!(client.distrust(&m.repository, &digest, &(0..11)));
    assert_eq!(m.counts(), (1, 0));
    for _ in 0..2 {
        assert_eq!(read(&client, &m.repository, &digest, 10..20).await.unwrap(), bytes.slice(10..20));
        assert_eq!(m.counts(), (0, 1), "the origin is asked instead");
    }
    assert!(
        !client.distrust(&m.repository, &digest, &(10..20)),
        "the origin gave these, and nobody knows better"
    );
    assert_eq!(read(&client, &m.repository, &other, 10..20).await.unwrap(), others.slice(10..20));
    assert_eq!(m.counts(), (1, 0), "other blobs still come from the mirror");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for counts in [(1, 0), (0, 1)] {
        read(&client, &m.repository, &digest, 10..20).await.unwrap();
        assert_eq!(m.counts(), counts, "one request tries it again");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        read(&client, &m.repository, &digest, 10..20).await.unwrap();
        assert_eq!(m.counts(), (1, 0), "nobody complained");
    }
}

#[tokio::test]
async fn a_mirror_that_gave_wrong_bytes_is_asked_when_nobody_else_answers() {
    let m = Mirrored::start().await;
    let (client, bytes) = (m.setup.client(), pattern(100));
    let digest = m.mirror.put_blob(bytes.clone());
    m.mirror.fail(Fault::FlippedByte, 1);
    read(&client, &m.repository, &digest, 0..9).await.unwrap();
    assert!(client.distrust(&m.repository, &digest, &(0..9)));
    m.origin.fail(Fault::Status(503, None), usize::MAX);
    m.origin.put_blob(bytes.clone());
    assert_eq!(read(&client, &m.repository, &digest, 0..9).await.unwrap(), bytes.slice(..9));
}
