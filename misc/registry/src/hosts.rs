//! Which hosts serve a registry: what containerd reads from `certs.d/<host>/hosts.toml`, and its defaults.

mod file;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use http::HeaderMap;
use reqwest::Url;

use crate::{OriginOptions, RegistryError, Scheme, transport::TlsSettings};

/// One thing that a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Content by digest.
    Pull,
    /// What a tag names.
    Resolve,
    /// Writing.
    Push,
}

/// A host that serves a registry, itself or a mirror.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Everything before `<repository>/manifests`, with a slash at its end.
    pub(crate) base: Url,
    /// Host and port, for messages and credentials.
    pub(crate) name: String,
    pub(crate) capabilities: Vec<Capability>,
    /// Sent with every request to this host, to no other.
    pub(crate) headers: HeaderMap,
    pub(crate) tls: TlsSettings,
    /// The registry that this host stands in for; it is told as `ns`.
    pub(crate) namespace: Option<String>,
    /// Whether it is the registry itself rather than a mirror.
    pub(crate) is_origin: bool,
}

const ALL: [Capability; 3] = [Capability::Pull, Capability::Resolve, Capability::Push];

impl Capability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

impl Host {
    /// A web server that is no registry.
    pub(crate) fn web(url: &Url, origin: &OriginOptions) -> Result<Self, RegistryError> {
        let mut base = url.clone();
        base.set_path("/");
        base.set_query(None);
        let name = authority(url);
        let mut tls = TlsSettings::default();
        trust(&mut tls, origin, &name)?;
        Ok(Self {
            base,
            name,
            capabilities: vec![Capability::Pull],
            headers: HeaderMap::new(),
            tls,
            namespace: None,
            is_origin: true,
        })
    }

    /// The same host, to which nobody says who they are.
    pub(crate) fn without_proof(mut self) -> Self {
        self.headers.clear();
        self.tls.client = None;
        self
    }

    pub(crate) fn may(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// What a file says of one host, before defaults.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// Scheme, host and path; `None` stands for the registry's own address.
    address: Option<Url>,
    capabilities: Vec<Capability>,
    headers: HeaderMap,
    tls: TlsSettings,
    is_origin: bool,
}

/// The hosts of `registry` in the order in which they are tried; the registry itself is reached as `origin` says.
pub(crate) fn load(
    roots: &[PathBuf],
    registry: &str,
    origin: &OriginOptions,
) -> Result<Vec<Host>, RegistryError> {
    let entries = match roots.iter().find_map(|root| find_dir(root, registry)) {
        Some(dir) => file::read_dir(&dir, registry)?,
        None => vec![Entry { is_origin: true, ..Entry::default() }],
    };
    entries.into_iter().map(|entry| complete(entry, registry, origin)).collect()
}

/// The directory for a registry: `host_port_`, `host:port`, then `_default`.
fn find_dir(root: &Path, registry: &str) -> Option<PathBuf> {
    let underscored = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    [underscored.as_deref(), Some(registry), Some("_default")]
        .into_iter()
        .flatten()
        .map(|name| root.join(name))
        .find(|dir| dir.is_dir())
}

fn complete(entry: Entry, registry: &str, origin: &OriginOptions) -> Result<Host, RegistryError> {
    let own_address = entry.address.is_none();
    let names_registry = entry.address.as_ref().is_none_or(|url| authority(url) == upstream(registry));
    let is_origin = entry.is_origin || names_registry;
    let mut tls = entry.tls;
    if is_origin {
        trust(&mut tls, origin, registry)?;
    }
    let mut base = match entry.address {
        Some(url) => url,
        None => default_address(registry, origin.scheme, &mut tls)?,
    };
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let name = authority(&base);
    let namespace = (name != upstream(registry)).then(|| registry.to_owned());
    let capabilities = if own_address { ALL.to_vec() } else { entry.capabilities };
    Ok(Host { base, name, capabilities, headers: entry.headers, tls, namespace, is_origin })
}

/// Adds what the caller knows of a host's certificate to what the files say of it.
fn trust(tls: &mut TlsSettings, origin: &OriginOptions, host: &str) -> Result<(), RegistryError> {
    tls.skip_verify |= origin.skip_verify;
    for path in &origin.ca {
        let pem = std::fs::read(path).map_err(|error| RegistryError::HostsFile {
            registry: host.into(),
            path: path.clone(),
            problem: error.to_string(),
        })?;
        tls.ca.push(pem);
    }
    Ok(())
}

/// Where a registry is that no file says more about.
fn default_address(
    registry: &str,
    scheme: Option<Scheme>,
    tls: &mut TlsSettings,
) -> Result<Url, RegistryError> {
    let is_loopback = is_loopback(registry);
    let plain = match scheme {
        Some(scheme) => scheme == Scheme::Http,
        None => is_loopback && !matches!(port_of(registry), None | Some("443")) && tls.trusts_system(),
    };
    // Nobody certifies a loopback address; containerd does not ask for it either.
    tls.skip_verify |= is_loopback && !plain && tls.trusts_system();
    let scheme = if plain { "http" } else { "https" };
    let text = format!("{scheme}://{}/v2/", upstream(registry));
    Url::parse(&text).map_err(|_| RegistryError::Reference {
        text: registry.into(),
        problem: "its host is no network address",
    })
}

/// The host that answers for a registry's name.
fn upstream(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

fn port_of(host: &str) -> Option<&str> {
    host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(_, port)| port)
}

/// Whether `host`, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match port_of(host) {
        Some(port) => &host[..host.len() - port.len() - 1],
        None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Host and port of a URL, the port only where it was written.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests;
