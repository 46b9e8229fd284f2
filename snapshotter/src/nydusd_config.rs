//! nydusd's configuration for one image: a template, filled with where the image's blobs are.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use registry::Repository;
use serde_json::{Map, Value, json};

/// A nydusd configuration, version 1 or 2, that lacks only the image.
#[derive(Debug, Clone)]
pub struct Template(Map<String, Value>);

impl Template {
    /// The configuration to use where the operator gives none.
    #[must_use]
    pub fn standard(cache: &Path, hosts_dirs: &[PathBuf]) -> Self {
        let mut template = into_map(json!({
            "version": 2,
            "backend": { "type": "registry", "registry": {} },
            "cache": { "type": "blobcache", "filecache": { "work_dir": cache } },
            "rafs": { "mode": "direct", "validate": true, "enable_xattr": true },
        }));
        put_hosts_dirs(&mut template, hosts_dirs);
        Self(template)
    }

    /// Reads the operator's configuration. Where the cache is and how registries are reached is ours to say.
    ///
    /// # Errors
    /// Where the file cannot be read or is no JSON object.
    pub fn read(file: &Path, cache: &Path, hosts_dirs: &[PathBuf]) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let template: Value =
            serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        anyhow::ensure!(template.is_object(), "{} is not a JSON object", file.display());
        let mut template = into_map(template);
        match template.get_mut("device") {
            Some(device) => set(device, &["cache", "config", "work_dir"], json!(cache)),
            None => {
                let cache = json!({ "type": "blobcache", "filecache": { "work_dir": cache } });
                template.insert("cache".into(), cache);
            }
        }
        put_hosts_dirs(&mut template, hosts_dirs);
        Ok(Self(template))
    }

    /// The configuration of the image that is mounted at `id`, from this repository. A credential without a user is a
    /// bearer token. Backends other than a registry stay as they are.
    #[must_use]
    pub fn fill(&self, id: &str, repository: &Repository, credential: Option<(&str, &str)>) -> Value {
        let mut filled = Value::Object(self.0.clone());
        set(&mut filled, &["id"], json!(id));
        let old = self.0.get("device");
        let backend: &[&str] = if old.is_some() { &["device", "backend"] } else { &["backend"] };
        let settings = if old.is_some() { "config" } else { "registry" };
        let kind = old.unwrap_or(&filled).pointer("/backend/type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind != "registry") {
            return filled;
        }
        let mut put =
            |key: &str, value: Value| set(&mut filled, &[backend, &[settings, key]].concat(), value);
        put("host", json!(repository.host));
        put("repo", json!(repository.path));
        match credential {
            Some(("", token)) => put("registry_token", json!(token)),
            Some((user, secret)) => put("auth", json!(BASE64_STANDARD.encode(format!("{user}:{secret}")))),
            None => {}
        }
        filled
    }
}

/// Without any, nydusd looks where containerd and docker do.
fn put_hosts_dirs(template: &mut Map<String, Value>, hosts_dirs: &[PathBuf]) {
    if !hosts_dirs.is_empty() {
        template.insert("hosts_dirs".into(), json!(hosts_dirs));
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

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Repository {
        Repository { host: "example.com:5000".into(), path: "team/app".into() }
    }

    #[test]
    fn standard_configuration_names_repository_cache_and_hosts() {
        let template = Template::standard(Path::new("/r/cache"), &["/etc/certs.d".into()]);
        let filled = template.fill("/7", &repository(), Some(("me", "secret")));
        assert_eq!(filled["id"], "/7");
        assert_eq!(filled["backend"]["registry"]["host"], "example.com:5000");
        assert_eq!(filled["backend"]["registry"]["repo"], "team/app");
        assert_eq!(filled["backend"]["registry"]["auth"], BASE64_STANDARD.encode("me:secret"));
        assert_eq!(filled["cache"]["filecache"]["work_dir"], "/r/cache");
        assert_eq!(filled["hosts_dirs"][0], "/etc/certs.d");
    }

    #[test]
    fn configuration_of_the_first_version_is_filled_where_it_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nydusd.json");
        let old = r#"{"device":{"backend":{"type":"registry","config":{"timeout":5}},"cache":{"type":"blobcache"}},"mode":"direct"}"#;
        std::fs::write(&file, old).unwrap();
        let filled = Template::read(&file, Path::new("/c"), &[]).unwrap().fill(
            "/7",
            &repository(),
            Some(("", "token")),
        );
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
        let filled = Template::read(&file, Path::new("/c"), &[]).unwrap().fill("/7", &repository(), None);
        assert_eq!(filled["backend"], json!({"type": "localfs", "localfs": {"dir": "/blobs"}}));
    }
}
