use futures_util::future::join_all;
use registry::{
    Credential,
    testing::{Guard, TestRegistry},
};

use super::*;

fn basic(user: &str, password: &str) -> Credential {
    Credential::Basic { user: user.into(), password: password.into() }
}

fn with(setup: &Setup, credential: Credential) -> Client {
    Client::new(ClientOptions { credential: Some(credential), ..setup.options() }).unwrap()
}

fn tokens(registry: &TestRegistry) -> usize {
    registry.requests().iter().filter(|request| request.target.starts_with("/token")).count()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all_requests_of_its_scope() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.guard(Guard::Anonymous);
    let (client, repository, digest) =
        (setup.client(), registry.repository("a/b"), registry.put_blob(pattern(99)));
    for _ in 0..3 {
        read(&client, &repository, &digest, 0..9).await.unwrap();
    }
    let requests = registry.requests();
    assert_eq!(requests.len(), 5, "one 401, one token, three reads");
    assert!(requests[1].target.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", requests[1].target);
    assert!(requests[1].target.contains("service=test"));
    read(&client, &registry.repository("other"), &digest, 0..9).await.unwrap();
    assert_eq!(tokens(&registry), 2, "another repository is another scope");
}

#[tokio::test]
async fn sixteen_reads_at_once_fetch_one_token_also_after_it_expired() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.guard(Guard::Anonymous);
    let (client, repository, digest) =
        (setup.client(), registry.repository("a"), registry.put_blob(pattern(99)));
    for round in 1..3 {
        let all = join_all((0..16).map(|at| read(&client, &repository, &digest, at..at + 1))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(tokens(&registry), round);
        registry.expire_tokens();
    }
}

#[tokio::test]
async fn the_token_service_gets_basic_or_identity_and_the_registry_gets_neither() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (repository, digest) = (registry.repository("a"), registry.put_blob(pattern(99)));
    for (guard, credential) in [
        (Guard::Token("me".into(), "pw".into()), basic("me", "pw")),
        (Guard::Identity("secret".into()), Credential::Identity("secret".into())),
    ] {
        registry.forget_requests();
        registry.guard(guard);
        registry.expire_tokens();
        read(&with(&setup, credential), &repository, &digest, 0..9).await.unwrap();
        let reads = registry.requests().into_iter().filter(|request| request.target.starts_with("/v2/"));
        assert!(reads.filter_map(|read| read.authorization).all(|value| value.starts_with("Bearer token-")));
    }
}

#[tokio::test]
async fn basic_and_ready_bearer_credentials_answer_a_challenge() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (repository, digest) = (registry.repository("a"), registry.put_blob(pattern(99)));
    registry.guard(Guard::Basic("me".into(), "pw".into()));
    let client = with(&setup, basic("me", "pw"));
    for _ in 0..2 {
        read(&client, &repository, &digest, 0..9).await.unwrap();
    }
    let sent: Vec<bool> = registry.requests().iter().map(|request| request.authorization.is_some()).collect();
    assert_eq!(sent, [false, true, true], "asked for once");

    registry.guard(Guard::Anonymous);
    let token = format!("{:?}", with(&setup, Credential::Bearer("x".into())));
    assert!(!token.contains("\"x\""), "secrets are not shown");
    let error = read(&with(&setup, Credential::Bearer("wrong".into())), &repository, &digest, 0..9).await;
    assert!(matches!(error, Err(RegistryError::Unauthorized { .. })));
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_is_not_retried() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (repository, digest) = (registry.repository("a"), registry.put_blob(pattern(99)));
    registry.guard(Guard::Token("me".into(), "pw".into()));
    let error = read(&with(&setup, basic("me", "wrong")), &repository, &digest, 0..9).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn dockers_configuration_is_used_and_the_callers_credential_wins() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (repository, digest) = (registry.repository("a"), registry.put_blob(pattern(99)));
    let config = |password: &str| {
        format!(r#"{{"auths":{{"{}":{{"username":"me","password":"{password}"}}}}}}"#, registry.host())
    };
    registry.guard(Guard::Basic("me".into(), "pw".into()));
    setup.write("docker/config.json", &config("pw"));
    read(&setup.client(), &repository, &digest, 0..9).await.unwrap();
    setup.write("docker/config.json", &config("old"));
    assert!(read(&setup.client(), &repository, &digest, 0..9).await.is_err());
    read(&with(&setup, basic("me", "pw")), &repository, &digest, 0..9).await.unwrap();
}

#[tokio::test]
async fn a_rotated_password_is_read_anew_when_the_registry_refuses_the_old_one() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, digest) =
        (setup.client(), registry.repository("a"), registry.put_blob(pattern(99)));
    for password in ["one", "two"] {
        registry.guard(Guard::Basic("me".into(), password.into()));
        let config =
            format!(r#"{{"auths":{{"{}":{{"username":"me","password":"{password}"}}}}}}"#, registry.host());
        setup.write("docker/config.json", &config);
        read(&client, &repository, &digest, 0..9).await.unwrap();
    }
}
