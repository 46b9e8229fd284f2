use futures_util::{StreamExt as _, stream, stream::BoxStream};
use registry::{
    Credential,
    testing::{Guard, TestRegistry},
};

use super::*;

fn pieces(bytes: &Bytes) -> BoxStream<'static, std::io::Result<Bytes>> {
    let pieces: Vec<_> = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

fn digest_of(registry: &TestRegistry, bytes: &Bytes) -> String {
    let digest = registry.put_blob(bytes.clone());
    registry.remove_blob(&digest);
    digest
}

#[tokio::test]
async fn a_blob_is_streamed_with_one_token_and_then_known() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.guard(Guard::Token("me".into(), "pw".into()));
    let credential = Some(Credential::Basic { user: "me".into(), password: "pw".into() });
    let client = Client::new(ClientOptions { credential, ..setup.options() }).unwrap();
    let (repository, bytes) = (registry.repository("a"), pattern(123_456));
    let digest = digest_of(&registry, &bytes);
    assert_eq!(client.blob_size(&repository, &digest).await.unwrap(), None);
    client.push_blob(&repository, &digest, 123_456, pieces(&bytes)).await.unwrap();
    assert_eq!(registry.blob(&digest).unwrap(), bytes);
    assert_eq!(client.blob_size(&repository, &digest).await.unwrap(), Some(123_456));
    let tokens = registry.requests().into_iter().filter(|request| request.target.starts_with("/token"));
    assert_eq!(tokens.count(), 1);
    let empty = digest_of(&registry, &Bytes::new());
    client.push_blob(&repository, &empty, 0, pieces(&Bytes::new())).await.unwrap();
    assert_eq!(registry.blob(&empty).unwrap().len(), 0);
}

#[tokio::test]
async fn a_stream_of_another_length_or_digest_stores_nothing() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(5000));
    let digest = digest_of(&registry, &bytes);
    for wrong in [4999, 5001] {
        let error = client.push_blob(&repository, &digest, wrong, pieces(&bytes)).await.unwrap_err();
        assert!(matches!(error, RegistryError::Source { .. }), "{wrong}: {error}");
    }
    let broken = stream::iter([Ok(bytes.slice(..10)), Err(std::io::Error::other("torn tape"))]).boxed();
    let error = client.push_blob(&repository, &digest, 5000, broken).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("torn tape"));
    let error =
        client.push_blob(&repository, &digest, 5000, pieces(&pattern(5001).slice(1..))).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert!(registry.blob(&digest).is_none());
}

#[tokio::test]
async fn a_stalled_upload_is_a_timeout() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(5000));
    let digest = digest_of(&registry, &bytes);
    let stalled = stream::iter([Ok(bytes.slice(..10))]).chain(stream::pending()).boxed();
    let error = client.push_blob(&repository, &digest, 5000, stalled).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_known_blob_is_mounted_and_an_unknown_one_is_not() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, from, to) = (setup.client(), registry.repository("from"), registry.repository("to"));
    let digest = registry.put_blob(pattern(10));
    assert!(client.mount_blob(&to, &digest, &from).await.unwrap());
    let target = &registry.requests()[0].target;
    assert!(
        target.starts_with("/v2/to/blobs/uploads/?mount=sha256") && target.contains("from=from"),
        "{target}"
    );
    registry.remove_blob(&digest);
    assert!(!client.mount_blob(&to, &digest, &from).await.unwrap());
    let elsewhere = Repository { host: "example.com".into(), path: "from".into() };
    assert!(!client.mount_blob(&to, &digest, &elsewhere).await.unwrap());
}

#[tokio::test]
async fn a_manifest_is_pushed_under_its_tag_or_else_its_digest() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, media_type) = (setup.client(), "application/vnd.oci.image.manifest.v1+json");
    let tagged = registry.reference("a", "v1");
    client.push_manifest(&tagged, media_type, Bytes::from_static(b"{ }")).await.unwrap();
    let manifest = client.manifest(&tagged).await.unwrap();
    assert_eq!(manifest.bytes, "{ }");
    let digest = manifest.descriptor.digest().to_string();
    client.push_manifest(&tagged.at_digest(&digest), media_type, manifest.bytes).await.unwrap();
    let error = client.push_manifest(&tagged.at_digest(&digest), media_type, Bytes::new()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
}
