//! Credentials from docker's configuration: `auths`, `credHelpers`, `credsStore`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::{Credential, RegistryError};

/// Longest time a credential program may take.
const HELPER_DEADLINE: Duration = Duration::from_secs(20);
/// The key under which docker keeps what is for its own registry.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, AuthEntry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// What docker's configuration in `dir` says for `host`. The file is read anew each time: credentials are rotated.
pub(crate) async fn find(dir: Option<&Path>, host: &str) -> Result<Option<Credential>, RegistryError> {
    let Some(path) = dir.map(Path::to_path_buf).or_else(default_dir).map(|dir| dir.join("config.json"))
    else {
        return Ok(None);
    };
    let failed = |problem: String| RegistryError::Credentials {
        host: host.into(),
        problem: format!("{}: {problem}", path.display()),
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let config: DockerConfig = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    let key = if is_docker(host) { DOCKER_KEY } else { host };
    let helper =
        config.cred_helpers.iter().find(|(server, _)| matches(server, host)).map(|(_, helper)| helper);
    if let Some(helper) = helper.or(config.creds_store.as_ref())
        && let Some(credential) = ask_helper(helper, key, host).await?
    {
        return Ok(Some(credential));
    }
    let entry = config
        .auths
        .get(key)
        .or_else(|| config.auths.iter().find(|(server, _)| matches(server, host)).map(|(_, entry)| entry));
    entry.map_or(Ok(None), |entry| read_entry(entry).map_err(|problem| failed(problem.into())))
}

fn default_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))
}

fn is_docker(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Whether a key of docker's configuration, a host or a URL, stands for `host`.
fn matches(key: &str, host: &str) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.split('/').next().unwrap_or(key);
    key == host || (is_docker(key) && is_docker(host))
}

fn read_entry(entry: &AuthEntry) -> Result<Option<Credential>, &'static str> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = set(&entry.identitytoken) {
        return Ok(Some(Credential::Identity(token)));
    }
    if let Some(token) = set(&entry.registrytoken) {
        return Ok(Some(Credential::Bearer(token)));
    }
    if let Some(auth) = set(&entry.auth) {
        let plain = STANDARD.decode(auth.trim()).map_err(|_| "auth is not base64")?;
        let plain = String::from_utf8(plain).map_err(|_| "auth is not text")?;
        let (user, password) = plain.split_once(':').ok_or("auth is not user:password")?;
        // Docker's own writer pads with NUL bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credential::Basic { user: user.into(), password: password.into() }));
    }
    let basic = set(&entry.username).zip(set(&entry.password));
    Ok(basic.map(|(user, password)| Credential::Basic { user, password }))
}

async fn ask_helper(helper: &str, key: &str, host: &str) -> Result<Option<Credential>, RegistryError> {
    if helper.contains('/') {
        let problem = format!("credential helper {helper:?} is a path");
        return Err(RegistryError::Credentials { host: host.into(), problem });
    }
    ask_program(&format!("docker-credential-{helper}"), key, host).await
}

async fn ask_program(program: &str, key: &str, host: &str) -> Result<Option<Credential>, RegistryError> {
    let failed = |problem: String| RegistryError::Credentials {
        host: host.into(),
        problem: format!("{program}: {problem}"),
    };
    let answer = timeout(HELPER_DEADLINE, run(program, key)).await;
    let output = answer
        .map_err(|_| failed(format!("no answer within {HELPER_DEADLINE:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("its answer is not a credential".into()))?;
        return Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::Identity(answer.secret),
            _ => Credential::Basic { user: answer.username, password: answer.secret },
        }));
    }
    // Helpers tell what is wrong on stdout.
    let said = String::from_utf8_lossy(&output.stdout);
    match said.contains("credentials not found") {
        true => Ok(None),
        false => Err(failed(said.trim().chars().take(200).collect())),
    }
}

async fn run(program: &str, key: &str) -> std::io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input still may answer.
        stdin.write_all(key.as_bytes()).await.ok();
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests;
