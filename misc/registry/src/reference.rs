//! Image references.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::RegistryError;

/// Docker's own registry, where short names live.
const DOCKER_HOST: &str = "docker.io";
/// Longest `host/path` that registries accept.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// A repository at a registry: `example.com:5000/team/app`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// Host, with port where one was given; `docker.io` for short names.
    pub host: String,
    /// Path: `team/app`, `library/redis`.
    pub path: String,
}

/// An image: a repository and a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// The tag, `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest, `sha256:<hex>`; wins over the tag.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a reference as docker and containerd do (`redis` is `docker.io/library/redis:latest`).
    ///
    /// # Errors
    /// [`RegistryError::Reference`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        parse(text).map_err(|problem| RegistryError::Reference { text: text.into(), problem })
    }

    /// What names the manifest at the registry: the digest, else the tag.
    #[must_use]
    pub fn identifier(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// The same repository, at a digest.
    #[must_use]
    pub fn at_digest(&self, digest: impl Into<String>) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest.into()) }
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Repository {
    /// Parses `host/path`, with neither tag nor digest; short names as in [`Reference::parse`].
    ///
    /// # Errors
    /// [`RegistryError::Reference`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        parse_name(text).map_err(|problem| RegistryError::Reference { text: text.into(), problem })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether a text is a digest of an algorithm that we can check: `sha256:<64 hex>` or `sha512:<128 hex>`.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let len = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == len && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("its digest is not sha256:<64 hex digits>");
    }
    // A colon before the last slash belongs to the host's port.
    let name_end = rest.rfind('/').unwrap_or(0);
    let (name, tag) = match rest[name_end..].find(':') {
        Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag is not 1 to 128 of letters, digits, '_', '.', '-'");
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    let repository = parse_name(name)?;
    Ok(Reference { repository, tag: tag.map(Into::into), digest: digest.map(Into::into) })
}

fn parse_name(name: &str) -> Result<Repository, &'static str> {
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (first, rest),
        _ => (DOCKER_HOST, name),
    };
    let host = if host == "index.docker.io" { DOCKER_HOST } else { host };
    if !is_host(host) {
        return Err("its host is malformed");
    }
    if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("it looks like an image id");
    }
    let path = match host == DOCKER_HOST && !path.contains('/') {
        true => format!("library/{path}"),
        false => path.to_owned(),
    };
    if !path.split('/').all(is_path_part) {
        return Err("its path is not lower case letters and digits, separated by '/', '.', '_', '__' or '-'");
    }
    if host.len() + 1 + path.len() > MAX_NAME {
        return Err("its name is longer than 255 characters");
    }
    Ok(Repository { host: host.into(), path })
}

/// What docker takes for a host rather than for the first part of a path.
fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) if address.parse::<Ipv6Addr>().is_ok() => ("ipv6", port),
        Some(_) => return false,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_fits = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    port_fits && name.split('.').all(label)
}

/// `[a-z0-9]+` groups, separated by one of `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    let separators_fit = bytes
        .split(is_word)
        .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'));
    ends_well && separators_fit
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn short_names_get_dockers_host_library_and_latest() {
        assert_eq!(full("redis"), "docker.io/library/redis:latest");
        assert_eq!(full("redis:7"), "docker.io/library/redis:7");
        assert_eq!(full("team/app"), "docker.io/team/app:latest");
        assert_eq!(full("docker.io/redis"), "docker.io/library/redis:latest");
        assert_eq!(full("index.docker.io/library/redis"), "docker.io/library/redis:latest");
    }

    #[test]
    fn a_first_part_with_dot_port_or_localhost_is_a_host() {
        assert_eq!(full("example.com/app"), "example.com/app:latest");
        assert_eq!(full("example:5000/team/app:v1.2_x-y"), "example:5000/team/app:v1.2_x-y");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("127.0.0.1:5000/app"), "127.0.0.1:5000/app:latest");
        assert_eq!(full("[::1]:5000/app"), "[::1]:5000/app:latest");
        assert_eq!(full("[2001:db8::1]/a/b/c"), "[2001:db8::1]/a/b/c:latest");
    }

    #[test]
    fn a_digest_stands_alone_or_beside_a_tag() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let alone = Reference::parse(&format!("example.com/app@{digest}")).unwrap();
        assert_eq!((alone.tag.as_deref(), alone.digest.as_deref()), (None, Some(digest.as_str())));
        let both = Reference::parse(&format!("example.com:1/app:v1@{digest}")).unwrap();
        assert_eq!(both.tag.as_deref(), Some("v1"));
        assert_eq!(both.identifier(), digest);
        assert_eq!(both.to_string(), format!("example.com:1/app:v1@{digest}"));
    }

    #[test]
    fn what_registries_refuse_is_refused() {
        let long = format!("example.com/{}", "a".repeat(250));
        let id = "a".repeat(64);
        for bad in [
            "",
            ":tag",
            "App",
            "a//b",
            "a/",
            "/a",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:-x",
            "a b",
            "a@sha256:1",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "[::1/app",
            "[zz]:1/app",
            "e.com:/x:y:z",
            "e.com:99999/x",
            "-e.com/x",
            "e..com/x",
            "e.com/../x",
            "http://e.com/x",
            &long,
            &id,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn odd_separators_that_registries_take_are_taken() {
        for good in ["a---b", "a__b", "a.b_c-d", "e.com/a-b.c/d__e"] {
            assert!(Reference::parse(good).is_ok(), "{good:?}");
        }
    }
}
