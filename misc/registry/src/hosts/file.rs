//! Reader of one directory of `certs.d`: hosts.toml, else docker's certificate files.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use serde::Deserialize;
use toml::de::DeTable;

use super::{ALL, Capability, Entry};
use crate::{RegistryError, transport::TlsSettings};

/// hosts.toml as it is written.
#[derive(Deserialize)]
struct RawFile {
    server: Option<String>,
    #[serde(default)]
    host: HashMap<String, RawHost>,
    #[serde(flatten)]
    of_server: RawHost,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHost {
    capabilities: Vec<String>,
    ca: Option<OneOrMany>,
    client: Option<RawClient>,
    skip_verify: bool,
    header: HashMap<String, OneOrMany>,
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawClient {
    One(String),
    Many(Vec<RawPair>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPair {
    One(String),
    Pair([String; 2]),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Hosts that a directory configures for `registry`, in their order.
pub(super) fn read_dir(dir: &Path, registry: &str) -> Result<Vec<Entry>, RegistryError> {
    let path = dir.join("hosts.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if !text.is_empty() => text,
        _ => return Ok(vec![certificate_files(dir, registry)?]),
    };
    let reader = Reader { dir, path: &path, registry };
    let read = parse(&text)
        .map_err(|problem| reader.broken(problem))
        .and_then(|(order, raw)| reader.entries(order, raw));
    match read {
        // As containerd does: a broken file does not stop pulls from the registry itself. A certificate that cannot
        // be read does.
        Err(RegistryError::HostsFile { path: broken, problem, .. }) if broken == path => {
            tracing::error!(path = %path.display(), problem, "hosts.toml is ignored");
            Ok(vec![certificate_files(dir, registry)?])
        }
        read => read,
    }
}

/// The file, and its hosts in the order in which they are written.
fn parse(text: &str) -> Result<(Vec<String>, RawFile), String> {
    let table = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
    let mut order: Vec<(usize, String)> =
        match table.get_ref().get("host").and_then(|h| h.get_ref().as_table()) {
            Some(hosts) => hosts.keys().map(|key| (key.span().start, key.get_ref().to_string())).collect(),
            None => Vec::new(),
        };
    order.sort();
    let raw = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    Ok((order.into_iter().map(|(_, host)| host).collect(), raw))
}

struct Reader<'a> {
    dir: &'a Path,
    path: &'a Path,
    registry: &'a str,
}

impl Reader<'_> {
    fn entries(&self, order: Vec<String>, mut raw: RawFile) -> Result<Vec<Entry>, RegistryError> {
        let mut entries = Vec::with_capacity(order.len() + 1);
        for name in order {
            let host = raw.host.remove(&name).unwrap_or_default();
            entries.push(self.entry(Some(&name), host)?);
        }
        let server = self.entry(raw.server.as_deref().filter(|server| !server.is_empty()), raw.of_server)?;
        entries.push(Entry { is_origin: true, ..server });
        Ok(entries)
    }

    fn entry(&self, server: Option<&str>, raw: RawHost) -> Result<Entry, RegistryError> {
        let address = server.map(|server| self.address(server, raw.override_path)).transpose()?;
        let capabilities = match raw.capabilities.is_empty() {
            true => ALL.to_vec(),
            false => raw.capabilities.iter().filter_map(|name| self.capability(name)).collect(),
        };
        let mut tls = TlsSettings { skip_verify: raw.skip_verify, ..TlsSettings::default() };
        for ca in raw.ca.map(OneOrMany::into_vec).unwrap_or_default() {
            tls.ca.push(self.read(&self.dir.join(ca))?);
        }
        if let Some(client) = raw.client {
            tls.client = self.client(client)?;
        }
        tls.dial_timeout = raw.dial_timeout.as_deref().map(|text| self.duration(text)).transpose()?;
        Ok(Entry { address, capabilities, headers: self.headers(raw.header)?, tls, is_origin: false })
    }

    fn address(&self, server: &str, override_path: bool) -> Result<Url, RegistryError> {
        let text = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
        let mut url =
            Url::parse(&text).map_err(|error| self.broken(format!("server {server:?}: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(self.broken(format!("server {server:?} is neither http nor https")));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let path = if path.ends_with("/v2") || override_path { path } else { format!("{path}/v2") };
        url.set_path(&path);
        Ok(url)
    }

    fn capability(&self, name: &str) -> Option<Capability> {
        match name.to_ascii_lowercase().as_str() {
            "pull" => Some(Capability::Pull),
            "resolve" => Some(Capability::Resolve),
            "push" => Some(Capability::Push),
            _ => {
                // Newer containerds know more of them.
                tracing::debug!(path = %self.path.display(), name, "capability is not used here");
                None
            }
        }
    }

    fn client(&self, raw: RawClient) -> Result<Option<Vec<u8>>, RegistryError> {
        let pairs = match raw {
            RawClient::One(one) => vec![RawPair::One(one)],
            RawClient::Many(many) => many,
        };
        if pairs.len() > 1 {
            tracing::warn!(path = %self.path.display(), "only the first client certificate is used");
        }
        match pairs.into_iter().next() {
            None => Ok(None),
            Some(RawPair::One(file)) => self.read(&self.dir.join(file)).map(Some),
            Some(RawPair::Pair([cert, key])) => {
                self.pair(&self.dir.join(cert), &self.dir.join(key)).map(Some)
            }
        }
    }

    fn pair(&self, cert: &Path, key: &Path) -> Result<Vec<u8>, RegistryError> {
        let mut pem = self.read(cert)?;
        pem.push(b'\n');
        pem.extend(self.read(key)?);
        Ok(pem)
    }

    fn headers(&self, raw: HashMap<String, OneOrMany>) -> Result<HeaderMap, RegistryError> {
        let mut headers = HeaderMap::new();
        for (name, values) in raw {
            let parsed = HeaderName::try_from(&name).map_err(|_| self.broken(format!("header {name:?}")))?;
            for value in values.into_vec() {
                let value = HeaderValue::try_from(value);
                let mut value = value.map_err(|_| self.broken(format!("value of header {name:?}")))?;
                value.set_sensitive(true);
                headers.append(parsed.clone(), value);
            }
        }
        Ok(headers)
    }

    fn duration(&self, text: &str) -> Result<Duration, RegistryError> {
        go_duration(text).ok_or_else(|| self.broken(format!("dial_timeout {text:?} is no duration")))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, RegistryError> {
        std::fs::read(path).map_err(|error| RegistryError::HostsFile {
            registry: self.registry.into(),
            path: path.into(),
            problem: error.to_string(),
        })
    }

    fn broken(&self, problem: String) -> RegistryError {
        RegistryError::HostsFile { registry: self.registry.into(), path: self.path.into(), problem }
    }
}

/// Docker's form of the directory: `*.crt` are authorities, `x.cert` with `x.key` is the client's.
fn certificate_files(dir: &Path, registry: &str) -> Result<Entry, RegistryError> {
    let reader = Reader { dir, path: dir, registry };
    let files = std::fs::read_dir(dir).map_err(|error| reader.broken(error.to_string()))?;
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    let mut tls = TlsSettings::default();
    for path in paths.iter().filter(|path| path.is_file()) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(reader.read(path)?),
            Some("cert") if tls.client.is_none() => {
                let key = path.with_extension("key");
                tls.client = Some(if key.exists() { reader.pair(path, &key)? } else { reader.read(path)? });
            }
            _ => {}
        }
    }
    Ok(Entry { tls, is_origin: true, ..Entry::default() })
}

/// A duration as Go writes it: `1m30s`, `500ms`, `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let seconds = match &tail[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total =
            total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = &tail[unit_len..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(go_duration("3s"), Some(Duration::from_secs(3)));
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(go_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "3", "s", "-1s", "3 s", "1d"] {
            assert_eq!(go_duration(bad), None, "{bad:?}");
        }
    }
}
