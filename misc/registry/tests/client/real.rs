//! Against the distribution project's registry, as Debian packages it.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Instant,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use registry::{Credential, OriginOptions, Reference};
use sha2::{Digest as _, Sha256};

use super::*;

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// `me` with password `pw`.
const HTPASSWD: &str = "me:$2b$04$r2yA5U1clP4VD141cOkfJ.IGyfS9sgdjK/M.Mq6xZEY43qEeS3RYG\n";
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client/tls");

struct RealRegistry {
    process: Child,
    host: String,
    _dir: TempDir,
}

impl RealRegistry {
    /// Starts it on a free port; `more` goes under `http:`, and `auth` behind it. `None` on a developer's machine
    /// that has none.
    fn start(more: &str, auth: &str) -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&paths).any(|dir| dir.join("docker-registry").is_file()) {
            assert!(std::env::var_os("CI").is_none(), "docker-registry is not installed");
            eprintln!("skipped: docker-registry is not installed");
            return None;
        }
        // Another process may take the port between its choice and its use.
        Some((0..5).find_map(|_| Self::try_start(more, auth)).expect("docker-registry starts"))
    }

    fn try_start(more: &str, auth: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = dir.path().display();
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http:\n  addr: {host}\n{more}\n{}",
            auth.replace("DIR", &root.to_string())
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = Self { process: command.spawn().unwrap(), host, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&started.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on {}", started.host);
            std::thread::yield_now();
        }
        started.process.try_wait().unwrap().is_none().then_some(started)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Pushes, mounts, reads back whole and in parallel ranges.
async fn exercise(client: &Client, host: &str) {
    let bytes = pattern(5_000_000);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    let (first, second) =
        (Reference::parse(&format!("{host}/team/a:v1")).unwrap(), format!("{host}/team/b:v1"));
    let second = Reference::parse(&second).unwrap();
    let pieces: Vec<_> = bytes.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    assert_eq!(client.blob_size(&first.repository, &digest).await.unwrap(), None);
    client.push_blob(&first.repository, &digest, 5_000_000, stream::iter(pieces).boxed()).await.unwrap();
    assert_eq!(client.blob_size(&first.repository, &digest).await.unwrap(), Some(5_000_000));
    assert!(client.mount_blob(&second.repository, &digest, &first.repository).await.unwrap());

    assert_eq!(read(client, &second.repository, &digest, None).await.unwrap(), bytes);
    let ranges = (0..16).map(|at| at * 300_000..at * 300_000 + 299_999);
    let parts = join_all(ranges.clone().map(|range| read(client, &second.repository, &digest, range))).await;
    for (range, got) in ranges.zip(parts) {
        assert_eq!(got.unwrap(), part(&bytes, &range));
    }

    let layer =
        format!("{{\"mediaType\":\"application/octet-stream\",\"digest\":\"{digest}\",\"size\":5000000}}");
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MEDIA_TYPE}\",\"config\":{layer},\"layers\":[{layer}]}}"
    );
    client.push_manifest(&first, MEDIA_TYPE, manifest.clone().into()).await.unwrap();
    let found = client.manifest(&first).await.unwrap();
    assert_eq!(
        (found.bytes, found.descriptor.media_type().to_string()),
        (manifest.into(), MEDIA_TYPE.into())
    );
    let by_digest = client.manifest(&first.at_digest(found.descriptor.digest().to_string())).await.unwrap();
    assert_eq!(by_digest.descriptor, found.descriptor);
    assert!(client.manifest(&second).await.unwrap_err().is_not_found());
}

fn patient(setup: &Setup) -> ClientOptions {
    ClientOptions { read_timeout: Duration::from_secs(20), ..setup.options() }
}

#[tokio::test]
async fn a_real_registry_on_loopback_takes_and_gives_images_over_plain_http() {
    let Some(registry) = RealRegistry::start("", "") else { return };
    let setup = Setup::new();
    exercise(&Client::new(patient(&setup)).unwrap(), &registry.host).await;
}

#[tokio::test]
async fn a_real_registry_with_password_private_authority_and_client_certificate() {
    let tls =
        format!("  tls: {{certificate: {TLS}/server.pem, key: {TLS}/server.key, clientcas: [{TLS}/ca.pem]}}");
    let auth = "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}";
    let Some(registry) = RealRegistry::start(&tls, auth) else { return };
    let setup = Setup::new();
    let credential = Some(Credential::Basic { user: "me".into(), password: "pw".into() });
    let options = ClientOptions { credential, ..patient(&setup) };
    let hosts = |more: &str| {
        let text = format!("server = \"https://{}\"\nca = \"{TLS}/ca.pem\"\n{more}", registry.host);
        setup.write(&format!("certs.d/{}/hosts.toml", registry.host), &text);
    };
    hosts("");
    let image = Reference::parse(&format!("{}/team/a:v1", registry.host)).unwrap();
    let error = Client::new(options.clone()).unwrap().manifest(&image).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "without a client certificate: {error}");
    hosts(&format!("client = [[\"{TLS}/client.pem\", \"{TLS}/client.key\"]]"));
    exercise(&Client::new(options.clone()).unwrap(), &registry.host).await;
    let stranger = Client::new(ClientOptions { credential: None, ..options }).unwrap();
    let error = stranger.manifest(&image).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_refused_unless_verification_is_skipped() {
    let tls = format!("  tls: {{certificate: {TLS}/server.pem, key: {TLS}/server.key}}");
    let Some(registry) = RealRegistry::start(&tls, "") else { return };
    let setup = Setup::new();
    let image = Reference::parse(&format!("{}/team/a:v1", registry.host)).unwrap();
    let file = format!("certs.d/{}/hosts.toml", registry.host);
    setup.write(&file, &format!("server = \"https://{}\"", registry.host));
    let options = ClientOptions { attempts: 1, ..patient(&setup) };
    let error = Client::new(options.clone()).unwrap().manifest(&image).await.unwrap_err();
    assert!(!error.is_not_found(), "{error}");
    let blob = format!("https://{}/v2/team/a/blobs/sha256:{}", registry.host, "0".repeat(64));
    let error = Client::new(options.clone()).unwrap().file(&blob, None).await.err().unwrap();
    assert!(!error.is_not_found(), "{error}");
    let trusted = [
        OriginOptions { skip_verify: true, ..OriginOptions::default() },
        OriginOptions { ca: vec![format!("{TLS}/ca.pem").into()], ..OriginOptions::default() },
    ];
    for origin in trusted {
        let client = Client::new(ClientOptions { origin, ..options.clone() }).unwrap();
        assert!(client.manifest(&image).await.unwrap_err().is_not_found());
        assert!(client.file(&blob, None).await.err().unwrap().is_not_found());
    }
    setup.write(&file, &format!("server = \"https://{}\"\nskip_verify = true", registry.host));
    assert!(Client::new(options).unwrap().manifest(&image).await.unwrap_err().is_not_found());
}
