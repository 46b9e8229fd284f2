//! nydusd's configuration for one image: a template, filled with where the image's blobs are.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use registry::Repository;
use serde_json::{Value, json};

/// A nydusd configuration, version 1 or 2, that lacks only the image.
#[derive(Debug, Clone)]
pub struct Template {
    json: Value,
    hosts_dirs: Vec<PathBuf>,
    p2p_socket: Option<PathBuf>,
}

impl Template {
    /// The configuration to use where the operator gives none.
    #[must_use]
    pub fn standard(cache: &Path) -> Self {
        let json = json!({
            "version": 2,
            "backend": { "type": "registry" },
            "cache": { "type": "blobcache", "filecache": { "work_dir": cache } },
        });
        Self { json, hosts_dirs: Vec::new(), p2p_socket: None }
    }

    /// Reads the operator's configuration. Where the cache is is ours to say: images share it.
    ///
    /// # Errors
    /// Where the file cannot be read or is no JSON object.
    pub fn read(file: &Path, cache: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let mut json: Value =
            serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        anyhow::ensure!(json.is_object(), "{} is not a JSON object", file.display());
        let work_dir: &[&str] = match json.get("device") {
            Some(_) => &["device", "cache", "config", "work_dir"],
            None => &["cache", "filecache", "work_dir"],
        };
        set(&mut json, work_dir, json!(cache));
        Ok(Self { json, hosts_dirs: Vec::new(), p2p_socket: None })
    }

    /// How registries are reached. Without `hosts_dirs` nydusd looks where containerd and docker do. The operator's
    /// configuration may name another socket, or an empty one.
    #[must_use]
    pub fn with_registry(self, hosts_dirs: &[PathBuf], p2p_socket: Option<&Path>) -> Self {
        Self { hosts_dirs: hosts_dirs.to_vec(), p2p_socket: p2p_socket.map(Path::to_owned), ..self }
    }

    /// The configuration of the image that is mounted at `id`, from this repository. A credential without a user is a
    /// bearer token. Backends other than a registry stay as they are.
    #[must_use]
    pub fn fill(&self, id: &str, repository: &Repository, credential: Option<(&str, &str)>) -> Value {
        let mut filled = self.json.clone();
        set(&mut filled, &["id"], json!(id));
        let backend: &[&str] =
            if filled.get("device").is_some() { &["device", "backend"] } else { &["backend"] };
        let kind = format!("/{}/type", backend.join("/"));
        if filled.pointer(&kind).is_some_and(|kind| kind != "registry") {
            return filled;
        }
        let settings = if backend.len() > 1 { "config" } else { "registry" };
        let own_socket = filled.pointer(&format!("/{}/{settings}/p2p_socket", backend.join("/"))).is_some();
        let mut put =
            |key: &str, value: Value| set(&mut filled, &[backend, &[settings, key]].concat(), value);
        put("host", json!(repository.host));
        put("repo", json!(repository.path));
        if !self.hosts_dirs.is_empty() {
            put("hosts_dirs", json!(self.hosts_dirs));
        }
        if let (Some(socket), false) = (&self.p2p_socket, own_socket) {
            put("p2p_socket", json!(socket));
        }
        match credential {
            Some(("", token)) => put("registry_token", json!(token)),
            Some((user, secret)) => put("auth", json!(BASE64_STANDARD.encode(format!("{user}:{secret}")))),
            None => {}
        }
        filled
    }
}

/// Sets a value deep inside, making objects on the way.
fn set(target: &mut Value, path: &[&str], value: Value) {
    let slot = path.iter().fold(target, |slot, key| {
        if !slot.is_object() {
            *slot = json!({});
        }
        &mut slot[*key]
    });
    *slot = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Repository {
        Repository { host: "example.com:5000".into(), path: "team/app".into() }
    }

    #[test]
    fn standard_configuration_names_repository_cache_and_hosts() {
        let template = Template::standard(Path::new("/r/cache"))
            .with_registry(&["/etc/certs.d".into()], Some(Path::new("/run/p2pd.sock")));
        let filled = template.fill("/7", &repository(), Some(("me", "secret")));
        assert_eq!(filled["id"], "/7");
        assert_eq!(filled["backend"]["registry"]["host"], "example.com:5000");
        assert_eq!(filled["backend"]["registry"]["repo"], "team/app");
        assert_eq!(filled["backend"]["registry"]["auth"], BASE64_STANDARD.encode("me:secret"));
        assert_eq!(filled["cache"]["filecache"]["work_dir"], "/r/cache");
        assert_eq!(filled["backend"]["registry"]["hosts_dirs"][0], "/etc/certs.d");
        assert_eq!(filled["backend"]["registry"]["p2p_socket"], "/run/p2pd.sock");
    }

    #[test]
    fn configuration_of_the_first_version_is_filled_where_it_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nydusd.json");
        let old = r#"{"device":{"backend":{"type":"registry","config":{"timeout":5}},"cache":{"type":"blobcache"}},"mode":"direct"}"#;
        std::fs::write(&file, old).unwrap();
        let filled =
            Template::read(&file, Path::new("/c")).unwrap().fill("/7", &repository(), Some(("", "token")));
        let config = &filled["device"]["backend"]["config"];
        assert_eq!((&config["host"], &config["timeout"]), (&json!("example.com:5000"), &json!(5)));
        assert_eq!(config["registry_token"], "token");
        assert_eq!(filled["device"]["cache"]["config"]["work_dir"], "/c");
        assert!(filled.get("cache").is_none());
    }

    #[test]
    fn backend_that_is_no_registry_stays_as_the_operator_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nydusd.json");
        std::fs::write(&file, r#"{"version":2,"backend":{"type":"localfs","localfs":{"dir":"/blobs"}}}"#)
            .unwrap();
        let filled = Template::read(&file, Path::new("/c")).unwrap().fill("/7", &repository(), None);
        assert_eq!(filled["backend"], json!({"type": "localfs", "localfs": {"dir": "/blobs"}}));
    }
}
