use registry::testing::{Fault, Guard, Logged, Server, TestRegistry};

use super::*;

fn at(registry: &TestRegistry, server: Server) -> Vec<Logged> {
    registry.requests().into_iter().filter(|request| request.server == server).collect()
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials_and_remembered() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.guard(Guard::Anonymous);
    registry.redirect(true);
    setup.write(
        &format!("certs.d/{}/hosts.toml", registry.host()),
        &format!("server = \"http://{}\"\n[header]\nx-secret = \"s\"", registry.host()),
    );
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(5000));
    let digest = registry.put_blob(bytes.clone());
    for range in [0..10, 10..20, 4000..5000] {
        assert_eq!(read(&client, &repository, &digest, range.clone()).await.unwrap(), part(&bytes, &range));
    }
    let own = at(&registry, Server::Registry);
    assert_eq!(own.len(), 3, "401, token, redirect: {own:?}");
    assert!(
        own.iter()
            .filter(|request| request.target.starts_with("/v2/"))
            .all(|request| request.custom.len() == 1)
    );
    let store = at(&registry, Server::Store);
    assert_eq!(store.len(), 3);
    assert!(store.iter().all(|request| request.authorization.is_none() && request.custom.is_empty()));
    assert!(store.iter().all(|request| request.range.is_some()));
}

#[tokio::test]
async fn a_redirect_that_expired_is_asked_for_again() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.redirect(true);
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(5000));
    let digest = registry.put_blob(bytes.clone());
    for _ in 0..3 {
        assert_eq!(read(&client, &repository, &digest, 0..10).await.unwrap(), bytes.slice(..10));
        registry.expire_redirects();
    }
    assert_eq!(at(&registry, Server::Registry).len(), 3);
    registry.redirect(false);
    read(&client, &repository, &digest, 0..10).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_is_not_remembered() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.redirect(true);
    let (client, repository, bytes) = (setup.client(), registry.repository("a"), pattern(5000));
    let digest = registry.put_blob(bytes.clone());
    read(&client, &repository, &digest, 0..10).await.unwrap();
    registry.fail(Fault::Status(500, None), 1);
    assert_eq!(read(&client, &repository, &digest, 0..10).await.unwrap(), bytes.slice(..10));
    registry.fail(Fault::ShortBody, 1);
    assert_eq!(read(&client, &repository, &digest, 0..5000).await.unwrap(), bytes);
    assert_eq!(at(&registry, Server::Registry).len(), 3);
}
