use std::sync::atomic::{AtomicUsize, Ordering};

use registry::testing::{Guard, TestRegistry};
use tokio::net::TcpListener;

use super::*;

fn rights(share: &[&str]) -> Rights {
    let share = ShareList::new(share.iter().map(|&pattern| pattern.into()).collect());
    Rights::new(share, anonymous(ClientOptions::default()).unwrap())
}

async fn registry(guard: Guard) -> (TestRegistry, String) {
    let registry = TestRegistry::start().await;
    let digest = registry.put_blob(vec![7; 1000]);
    registry.guard(guard);
    (registry, digest)
}

#[tokio::test]
async fn what_everybody_may_read_is_shared_and_nothing_else() {
    let (user, password) = ("user".to_owned(), "password".to_owned());
    for (guard, verdict) in [
        (Guard::Open, Verdict::Shared),
        (Guard::Anonymous, Verdict::Shared),
        (Guard::Basic(user.clone(), password.clone()), Verdict::Private),
        (Guard::Token(user, password), Verdict::Private),
        (Guard::Identity("secret".into()), Verdict::Private),
    ] {
        let (registry, digest) = registry(guard.clone()).await;
        let (rights, app) = (rights(&[]), registry.repository("app"));
        assert_eq!(rights.verdict(&app), Verdict::Unknown);
        assert_eq!(rights.probe(&app, &digest).await, verdict, "{guard:?}");
        assert_eq!(rights.verdict(&app), verdict);
        assert_eq!(rights.verdict(&registry.repository("other")), Verdict::Unknown);
        rights.stop().await;
    }
}

#[tokio::test]
async fn nobody_is_named_even_where_this_node_knows_a_credential() {
    let (registry, digest) = registry(Guard::Basic("user".into(), "password".into())).await;
    let dir = tempfile::tempdir().unwrap();
    let host = registry.host();
    // "user:password"
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpwYXNzd29yZA=="}}}}}}"#);
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let certs = dir.path().join(&host);
    std::fs::create_dir(&certs).unwrap();
    let hosts = format!(
        "[host.'http://{host}']\n  [host.'http://{host}'.header]\n    authorization = 'Basic dXNlcjpwYXNzd29yZA=='\n"
    );
    std::fs::write(certs.join("hosts.toml"), hosts).unwrap();
    let options = ClientOptions {
        docker_config: Some(dir.path().to_owned()),
        hosts_dirs: vec![dir.path().to_owned()],
        ..ClientOptions::default()
    };
    let app = registry.repository("app");
    let known = Client::new(options.clone()).unwrap().readable_size(&app, &digest).await.unwrap();
    assert_eq!(known, Some(1000), "the credential is good");
    registry.forget_requests();
    let rights = Rights::new(ShareList::default(), anonymous(options).unwrap());
    assert_eq!(rights.probe(&app, &digest).await, Verdict::Private);
    let requests = registry.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.authorization.is_none()));
}

#[tokio::test]
async fn what_is_listed_is_shared_without_a_question() {
    let (registry, digest) = registry(Guard::Basic("user".into(), "password".into())).await;
    let rights = rights(&[&format!("{}/shared*", registry.host())]);
    assert_eq!(rights.verdict(&registry.repository("shared/app")), Verdict::Shared);
    assert_eq!(rights.probe(&registry.repository("shared/app"), &digest).await, Verdict::Shared);
    assert!(registry.requests().is_empty());
}

#[tokio::test]
async fn many_who_ask_at_once_ask_the_registry_once() {
    let (registry, digest) = registry(Guard::Open).await;
    let (rights, app) = (rights(&[]), registry.repository("app"));
    let asking = (0..20).map(|_| rights.probe(&app, &digest));
    let verdicts = futures_util::future::join_all(asking).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Shared), "{verdicts:?}");
    assert_eq!(registry.requests().len(), 1);
}

/// A registry that hangs up on everybody, and counts them.
async fn rude() -> (Repository, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    (Repository { host, path: "app".into() }, calls)
}

#[tokio::test]
async fn without_an_answer_nothing_is_shared() {
    let (app, calls) = rude().await;
    let (rights, digest) = (rights(&[]), format!("sha256:{}", "0".repeat(64)));
    assert_eq!(rights.probe(&app, &digest).await, Verdict::Unknown);
    let before = calls.load(Ordering::Relaxed);
    assert_eq!(rights.probe(&app, &digest).await, Verdict::Unknown);
    assert_eq!(calls.load(Ordering::Relaxed), before, "it is not asked again at once");
    let (registry, _) = registry(Guard::Open).await;
    assert_eq!(rights.probe(&registry.repository("empty"), &digest).await, Verdict::Private);
    rights.stop().await;
    assert_eq!(rights.probe(&registry.repository("later"), &digest).await, Verdict::Unknown);
}
