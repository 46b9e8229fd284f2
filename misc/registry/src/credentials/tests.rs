use super::*;

async fn find_in(config: &str, host: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    find(Some(dir.path()), host).await.unwrap().map(show)
}

fn show(credential: Credential) -> String {
    match credential {
        Credential::Basic { user, password } => format!("{user}:{password}"),
        Credential::Identity(token) => format!("identity {token}"),
        Credential::Bearer(token) => format!("bearer {token}"),
    }
}

#[tokio::test]
async fn auths_are_found_by_host_and_by_url() {
    let auth = STANDARD.encode("me:pass:word");
    for key in ["example.com:5000", "https://example.com:5000", "http://example.com:5000/v1/"] {
        let config = format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}}}"#);
        assert_eq!(find_in(&config, "example.com:5000").await.as_deref(), Some("me:pass:word"), "{key}");
        assert_eq!(find_in(&config, "example.com").await, None);
    }
}

#[tokio::test]
async fn dockers_own_registry_has_its_index_key() {
    let config = r#"{"auths": {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}}"#;
    assert_eq!(find_in(config, "registry-1.docker.io").await.as_deref(), Some("u:p"));
    assert_eq!(find_in(config, "docker.io").await.as_deref(), Some("u:p"));
}

#[tokio::test]
async fn identity_and_registry_tokens_win_over_passwords() {
    let auth = STANDARD.encode("u:p");
    let config = format!(
        r#"{{"auths": {{"a.io": {{"auth": "{auth}", "identitytoken": "t"}}, "b.io": {{"registrytoken": "r"}}}}}}"#
    );
    assert_eq!(find_in(&config, "a.io").await.as_deref(), Some("identity t"));
    assert_eq!(find_in(&config, "b.io").await.as_deref(), Some("bearer r"));
}

#[tokio::test]
async fn no_file_is_no_credential_and_a_broken_one_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    assert!(find(Some(dir.path()), "a.io").await.unwrap().is_none());
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    let error = find(Some(dir.path()), "a.io").await.unwrap_err().to_string();
    assert!(error.contains("a.io") && error.contains("config.json"), "{error}");
}

#[tokio::test]
async fn a_helper_that_is_not_there_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        r#"{"credHelpers": {"a.io": "of-nobody"}, "auths": {"b.io": {"username": "u", "password": "p"}}}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let error = find(Some(dir.path()), "a.io").await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-of-nobody"), "{error}");
    assert_eq!(find(Some(dir.path()), "b.io").await.unwrap().map(show).as_deref(), Some("u:p"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_helper_is_told_the_host_and_its_token_user_means_identity() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("helper");
    let script = r#"#!/bin/sh
read -r key
case "$1 $key" in
"get a.io") echo '{"ServerURL": "a.io", "Username": "<token>", "Secret": "s"}' ;;
"get b.io") echo '{"Username": "u", "Secret": "p"}' ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac
"#;
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ask = async |host: &str| {
        ask_program(program.to_str().unwrap(), &format!("{host}\n"), host).await.unwrap().map(show)
    };
    assert_eq!(ask("a.io").await.as_deref(), Some("identity s"));
    assert_eq!(ask("b.io").await.as_deref(), Some("u:p"));
    assert_eq!(ask("c.io").await, None);
}
