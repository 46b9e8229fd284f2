use p2p_api::local::local_client::LocalClient;
use registry::testing::{Fault, Guard};
use tokio::net::UnixListener;
use tonic::{Code, transport::Channel};

use super::super::tests::{Scene, scene};
use super::*;

const MIB: usize = 1 << 20;

/// A node that is asked by gRPC, and a blob.
struct Case {
    scene: Scene,
    client: LocalClient<Channel>,
    digest: String,
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Case {
    async fn new() -> Self {
        let (scene, dir) = (scene(1).await, tempfile::tempdir().unwrap());
        let socket = dir.path().join("p2pd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let calls = scene.calls(0);
        tokio::spawn(async move { axum::serve(listener, calls).await });
        let client = LocalClient::connect(format!("unix://{}", socket.display())).await.unwrap();
        let mut bytes = vec![0; 3 * MIB + 7];
        fastrand::Rng::with_seed(8).fill(&mut bytes);
        let digest = scene.registry.put_blob(bytes.clone());
        Self { scene, client, digest, bytes, _dir: dir }
    }

    fn blob(&self, repository: &str, authorization: &str) -> Source {
        let repository = format!("{}/{repository}", self.scene.registry.host());
        Source::Blob(Blob { repository, digest: self.digest.clone(), authorization: authorization.into() })
    }

    /// Length that was promised, and what came.
    async fn download(&self, source: Source, start: u64, end: u64) -> Result<(Option<u64>, Vec<u8>), Status> {
        let priority = Priority::Demand.into();
        let request = DownloadRequest { source: Some(source), start, end, priority };
        let mut parts = self.client.clone().download(request).await?.into_inner();
        let (mut length, mut bytes) = (None, Vec::new());
        while let Some(part) = parts.message().await? {
            match part.part.unwrap() {
                Part::About(about) => length = about.length,
                Part::Data(data) => bytes.extend_from_slice(&data),
            }
        }
        Ok((length, bytes))
    }
}

#[tokio::test]
async fn a_blob_or_file_comes_whole_or_in_parts() {
    let case = Case::new().await;
    let len = case.bytes.len() as u64;
    let (length, bytes) = case.download(case.blob("shared", ""), 0, 0).await.unwrap();
    assert!(length == Some(len) && bytes == case.bytes);
    let (length, bytes) = case.download(case.blob("shared", ""), 5, 9).await.unwrap();
    assert!(length == Some(4) && bytes == case.bytes[5..9]);
    let (_, bytes) = case.download(case.blob("shared", ""), 2_000_000, 0).await.unwrap();
    assert!(bytes == case.bytes[2_000_000..]);
    let url = format!("http://{}/v2/shared/blobs/{}", case.scene.registry.host(), case.digest);
    for digest in ["", &case.digest] {
        let file = Source::File(File { url: url.clone(), digest: digest.into() });
        let (_, bytes) = case.download(file, 0, 0).await.unwrap();
        assert!(bytes == case.bytes, "digest {digest:?}");
    }
}

#[tokio::test]
async fn what_is_private_is_for_its_credential_and_what_fails_says_how() {
    let case = Case::new().await;
    case.scene.registry.guard(Guard::Basic("user".into(), "password".into()));
    let refused = case.download(case.blob("private", ""), 0, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // "user:password"
    let (_, bytes) = case.download(case.blob("private", "Basic dXNlcjpwYXNzd29yZA=="), 0, 0).await.unwrap();
    assert!(bytes == case.bytes);
    case.scene.registry.guard(Guard::Open);
    let nonsense = Source::Blob(Blob { repository: "x".into(), ..Blob::default() });
    assert_eq!(case.download(nonsense, 0, 0).await.unwrap_err().code(), Code::InvalidArgument);
    let backwards = case.download(case.blob("shared", ""), 9, 5).await.unwrap_err();
    assert_eq!(backwards.code(), Code::InvalidArgument);
    case.scene.registry.remove_blob(&case.digest);
    let gone = case.download(case.blob("shared", ""), 0, 0).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_wrong_blob_does_not_end_well() {
    let case = Case::new().await;
    case.scene.registry.fail(Fault::FlippedByte, 10_000);
    for repository in ["shared", "private"] {
        assert!(case.download(case.blob(repository, ""), 0, 0).await.is_err(), "{repository}");
    }
    let url = format!("http://{}/v2/shared/blobs/{}", case.scene.registry.host(), case.digest);
    let file = Source::File(File { url, digest: case.digest.clone() });
    assert!(case.download(file, 0, 0).await.is_err());
}
