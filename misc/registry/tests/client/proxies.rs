//! A proxy comes from the environment, which a test cannot change for itself: it runs itself again.

use std::process::Command;

use registry::testing::TestRegistry;

use super::*;

const CHILD: &str = "SHOAL_TEST_PROXIED_DIGEST";

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_and_never_for_this_machine() {
    let (proxy, local) = (TestRegistry::start().await, TestRegistry::start().await);
    let digest = proxy.put_blob(pattern(100));
    local.put_blob(pattern(100));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--ignored", "proxies::reads_through_the_environments_proxy"]);
    child.env(CHILD, format!("{digest} {}", local.host()));
    for name in ["http_proxy", "HTTP_PROXY"] {
        child.env(name, format!("http://{}", proxy.host()));
    }
    for name in ["no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env_remove(name);
    }
    let output = tokio::process::Command::from(child).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let proxied = proxy.requests();
    assert_eq!(proxied.len(), 1, "{proxied:?}");
    assert!(proxied[0].target.starts_with("http://registry.invalid:5000/v2/a/blobs/"), "{proxied:?}");
    assert_eq!(local.requests().len(), 1);
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn reads_through_the_environments_proxy() {
    let told = std::env::var(CHILD).unwrap();
    let (digest, local) = told.split_once(' ').unwrap();
    let setup = Setup::new();
    setup.write("certs.d/registry.invalid/hosts.toml", "server = \"http://registry.invalid:5000\"");
    for host in ["registry.invalid", local] {
        let repository = Repository { host: host.into(), path: "a".into() };
        read(&setup.client(), &repository, digest, 0..100).await.unwrap();
    }
}
