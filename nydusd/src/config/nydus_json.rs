//! nydusd's own configuration files, version 1 and 2.

use std::{path::PathBuf, time::Duration};

use registry::{OriginOptions, Repository, Scheme};
use storage::ReadPolicy;

use super::{
    BackendConfig, ConfigError, DEFAULT_CACHE_DIR, HttpConfig, ImageConfig, LocalFsConfig, PrefetchConfig,
    RegistryAccess, RegistryConfig, Secret, section::Section,
};

/// Keys that change nothing here: digests are always checked, attributes always served, work always shared out.
const ACCEPTED_TOP: &[&str] = &[
    "id",
    "version",
    "mode",
    "digest_validate",
    "iostats_files",
    "enable_xattr",
    "access_pattern",
    "latest_read_files",
    "amplify_io",
    "rafs",
];
const ACCEPTED_CACHE: &[&str] = &["compressed", "validate"];
const ACCEPTED_CACHE_CONFIG: &[&str] = &["disable_indexed_map"];
const ACCEPTED_PREFETCH: &[&str] = &[
    "threads_count",
    "threads",
    "merging_size",
    "batch_size",
    "bandwidth_rate",
    "bandwidth_limit",
    "stream_prefetch",
];

/// Parses a configuration of version 1 or 2. Also returns the names of keys that would have an effect in the original
/// and have none here.
///
/// # Errors
/// [`ConfigError`].
pub fn parse(text: &str) -> Result<(ImageConfig, Vec<String>), ConfigError> {
    let mut top = Section::root(text)?;
    let mut unknown = Vec::new();
    let version: u32 = top.take("version")?.unwrap_or(1);
    let config = match version {
        1 => version_1(&mut top, &mut unknown)?,
        2 => version_2(&mut top, &mut unknown)?,
        other => return Err(top.wrong("version", format!("is {other}, known are 1 and 2"))),
    };
    top.finish(ACCEPTED_TOP, &mut unknown);
    Ok((config, unknown))
}

fn version_1(top: &mut Section, unknown: &mut Vec<String>) -> Result<ImageConfig, ConfigError> {
    let mut device = top.section("device")?;
    let mut backend_section = device.section("backend")?;
    let kind: String = backend_section.need("type")?;
    let mut policy = ReadPolicy::default();
    let options = backend_section.section("config")?;
    let backend = backend(&kind, &backend_section, options, &mut policy, unknown)?;
    backend_section.finish(&[], unknown);

    let mut cache = device.section("cache")?;
    let kind = cache.text("type")?;
    let cache_config = cache.section("config")?;
    let cache_dir = cache_dir(kind.as_deref(), &cache, cache_config, unknown)?;
    cache.finish(ACCEPTED_CACHE, unknown);
    device.finish(&["id"], unknown);
    let prefetch = prefetch(top.section("fs_prefetch")?, unknown)?;
    Ok(ImageConfig { backend, cache_dir, prefetch, policy })
}

fn version_2(top: &mut Section, unknown: &mut Vec<String>) -> Result<ImageConfig, ConfigError> {
    let mut backend_section = top.section("backend")?;
    let kind: String = backend_section.need("type")?;
    let mut policy = ReadPolicy::default();
    let options = backend_section.section(&kind)?;
    let backend = backend(&kind, &backend_section, options, &mut policy, unknown)?;
    backend_section.finish(&[], unknown);

    let mut cache = top.section("cache")?;
    let kind = cache.text("type")?;
    let key = if kind.as_deref() == Some("fscache") { "fscache" } else { "filecache" };
    let cache_config = cache.section(key)?;
    let cache_dir = cache_dir(kind.as_deref(), &cache, cache_config, unknown)?;
    let prefetch = prefetch(cache.section("prefetch")?, unknown)?;
    cache.finish(ACCEPTED_CACHE, unknown);
    Ok(ImageConfig { backend, cache_dir, prefetch, policy })
}

fn backend(
    kind: &str,
    parent: &Section,
    mut options: Section,
    policy: &mut ReadPolicy,
    unknown: &mut Vec<String>,
) -> Result<BackendConfig, ConfigError> {
    if let Some(secs) = options.take::<u64>("deadline_secs")? {
        policy.deadline = Duration::from_secs(secs.max(1));
    }
    let config = match kind {
        "localfs" => BackendConfig::LocalFs(local(&mut options)?),
        "registry" => BackendConfig::Registry(registry(&mut options)?),
        "http" | "http-proxy" => BackendConfig::Http(http(&mut options)?),
        other => {
            let problem = format!("{other:?} is not served, only registry, localfs and http-proxy are");
            return Err(parent.wrong("type", problem));
        }
    };
    options.finish(&[], unknown);
    if let Some(silence) = config.read_timeout() {
        policy.stall = policy.stall.max(silence * 2);
    }
    Ok(config)
}

fn local(options: &mut Section) -> Result<LocalFsConfig, ConfigError> {
    match options.text("blob_file")? {
        Some(file) => Ok(LocalFsConfig::File(file.into())),
        None => Ok(LocalFsConfig::Dir(options.need::<String>("dir")?.into())),
    }
}

fn http(options: &mut Section) -> Result<HttpConfig, ConfigError> {
    let address: String = options.need("addr")?;
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(options.wrong("addr", "must begin with http:// or https://"));
    }
    let path = options.text("path")?.unwrap_or_default();
    let url = format!("{}/{}", address.trim_end_matches('/'), path.trim_matches('/'));
    let origin = origin(options)?;
    let (connect_timeout, read_timeout, _) = timeouts(options)?;
    Ok(HttpConfig { url, origin, connect_timeout, read_timeout })
}

/// How the server itself is known; its scheme stands in its URL.
fn origin(options: &mut Section) -> Result<OriginOptions, ConfigError> {
    let skip_verify = options.take("skip_verify")?.unwrap_or(false);
    let ca: Vec<PathBuf> = options.take("ca_cert_files")?.unwrap_or_default();
    Ok(OriginOptions { scheme: None, skip_verify, ca })
}

fn scheme(options: &mut Section) -> Result<Option<Scheme>, ConfigError> {
    match options.text("scheme")?.as_deref() {
        None => Ok(None),
        Some("http") => Ok(Some(Scheme::Http)),
        Some("https") => Ok(Some(Scheme::Https)),
        Some(other) => Err(options.wrong("scheme", format!("{other:?} is neither http nor https"))),
    }
}

fn registry(options: &mut Section) -> Result<RegistryConfig, ConfigError> {
    let (host, path): (String, String) = (options.need("host")?, options.need("repo")?);
    let repository = Repository::parse(&format!("{host}/{path}"))
        .map_err(|error| options.wrong("repo", error.to_string()))?;
    let hosts_dirs = options.take("hosts_dirs")?;
    let credential = match (options.text("registry_token")?, options.text("auth")?) {
        (Some(token), _) => Some(Secret::Token(token)),
        (None, Some(auth)) => {
            Some(Secret::from_basic(&auth).map_err(|problem| options.wrong("auth", problem))?)
        }
        (None, None) => None,
    };
    let origin = OriginOptions { scheme: scheme(options)?, ..origin(options)? };
    let (connect_timeout, read_timeout, attempts) = timeouts(options)?;
    let access = RegistryAccess { hosts_dirs, credential, origin, connect_timeout, read_timeout, attempts };
    let p2p_socket = options.text("p2p_socket")?.map(Into::into);
    Ok(RegistryConfig { repository, access, p2p_socket })
}

type Timeouts = (Option<Duration>, Option<Duration>, Option<u32>);

/// Zero stands for the default, as in the original.
fn timeouts(options: &mut Section) -> Result<Timeouts, ConfigError> {
    let seconds = |value: Option<u64>| value.filter(|secs| *secs > 0).map(Duration::from_secs);
    let connect = seconds(options.take("connect_timeout")?);
    let read = seconds(options.take("timeout")?);
    let attempts = options.take::<u32>("retry_limit")?.map(|retries| retries.saturating_add(1));
    Ok((connect, read, attempts))
}

fn cache_dir(
    kind: Option<&str>,
    parent: &Section,
    mut config: Section,
    unknown: &mut Vec<String>,
) -> Result<std::path::PathBuf, ConfigError> {
    let dir = config.text("work_dir")?.unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
    config.finish(ACCEPTED_CACHE_CONFIG, unknown);
    match kind {
        None | Some("blobcache" | "filecache" | "dummycache" | "") => Ok(dir.into()),
        Some(other) => Err(parent.wrong("type", format!("{other:?} is not served, only blobcache is"))),
    }
}

fn prefetch(mut section: Section, unknown: &mut Vec<String>) -> Result<PrefetchConfig, ConfigError> {
    let enabled = section.take("enable")?.unwrap_or(true);
    let all: bool = section.take("prefetch_all")?.unwrap_or(false);
    section.finish(ACCEPTED_PREFETCH, unknown);
    Ok(PrefetchConfig { table: enabled, all: enabled && all })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = r#"{
        "device": {
            "backend": {"type": "registry", "config": {
                "scheme": "http", "host": "example.com:5000", "repo": "team/app", "auth": "dTpw",
                "timeout": 5, "connect_timeout": 0, "retry_limit": 2, "deadline_secs": 7,
                "skip_verify": true, "ca_cert_files": ["/ca.pem"],
                "blob_url_scheme": "http", "blob_redirected_host": "", "proxy": {"url": "", "fallback": false},
                "hosts_dirs": ["/etc/x"], "mirrors": [{"host": "m"}]}},
            "cache": {"type": "blobcache", "config": {"work_dir": "/cache"}}},
        "mode": "direct", "digest_validate": false, "typo": 1,
        "fs_prefetch": {"enable": true, "threads_count": 4, "prefetch_all": true}}"#;

    #[test]
    fn version_1_is_understood_and_unknown_keys_are_named() {
        let (config, unknown) = parse(V1).unwrap();
        let BackendConfig::Registry(registry) = &config.backend else { panic!("{config:?}") };
        assert_eq!(registry.repository.host, "example.com:5000");
        assert_eq!(registry.access.credential, Some(Secret::Basic("u".into(), "p".into())));
        assert_eq!(registry.access.read_timeout, Some(Duration::from_secs(5)));
        assert_eq!(registry.access.connect_timeout, None);
        assert_eq!(registry.access.attempts, Some(3));
        let ca = vec!["/ca.pem".into()];
        let origin = OriginOptions { scheme: Some(Scheme::Http), skip_verify: true, ca };
        assert_eq!(registry.access.origin, origin);
        assert_eq!(config.policy.deadline, Duration::from_secs(7));
        assert_eq!(config.policy.stall, ReadPolicy::default().stall);
        let (patient, _) = parse(&V1.replace("\"timeout\": 5", "\"timeout\": 30")).unwrap();
        assert!(patient.policy.stall > Duration::from_secs(30), "the client notices a silent host first");
        assert_eq!(config.cache_dir.to_str(), Some("/cache"));
        assert_eq!(config.prefetch, PrefetchConfig { table: true, all: true });
        let of_backend = |key: &str| format!("device.backend.config.{key}");
        assert_eq!(unknown, [of_backend("blob_url_scheme"), of_backend("mirrors"), "typo".into()]);
    }

    #[test]
    fn version_2_is_understood() {
        let text = r#"{"version": 2, "id": "x",
            "backend": {"type": "localfs", "localfs": {"dir": "/blobs"}},
            "cache": {"type": "filecache", "filecache": {"work_dir": "/c"}, "prefetch": {"enable": false}},
            "rafs": {"mode": "direct"}, "external_backends": [{}, 1]}"#;
        let (config, unknown) = parse(text).unwrap();
        assert_eq!(config.backend, BackendConfig::LocalFs(LocalFsConfig::Dir("/blobs".into())));
        assert_eq!(config.prefetch, PrefetchConfig { table: false, all: false });
        assert_eq!(unknown, ["external_backends"]);
    }

    #[test]
    fn a_web_server_is_known_by_the_files_named() {
        let text = r#"{"version": 2, "backend": {"type": "http-proxy", "http-proxy": {
            "addr": "https://example.com", "path": "/blobs", "ca_cert_files": ["/ca.pem"], "proxy": {"url": "x"}}}}"#;
        let (config, unknown) = parse(text).unwrap();
        let BackendConfig::Http(http) = &config.backend else { panic!("{config:?}") };
        assert_eq!(http.url, "https://example.com/blobs");
        assert_eq!((http.origin.skip_verify, &http.origin.ca[..]), (false, &["/ca.pem".into()][..]));
        assert_eq!(unknown, ["backend.http-proxy.proxy"]);
    }

    #[test]
    fn a_fault_is_told_with_its_key() {
        let cases = [
            (r#"{"device":{"backend":{"type":"oss"}}}"#, "device.backend.type: \"oss\" is not served"),
            (r#"{"device":{"backend":{}}}"#, "device.backend.type is missing"),
            (r#"{"version":3}"#, "version: is 3"),
            (
                r#"{"device":{"backend":{"type":"registry","config":{"host":"h","repo":"r","auth":"?"}}}}"#,
                "device.backend.config.auth: is no base64",
            ),
            (r#"{"version":2,"backend":{"type":"localfs","localfs":{"dir":1}}}"#, "backend.localfs.dir: "),
            (
                r#"{"device":{"backend":{"type":"registry","config":{"host":"h","repo":"r","scheme":"ftp"}}}}"#,
                "device.backend.config.scheme: \"ftp\" is neither http nor https",
            ),
        ];
        for (text, told) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(parse("[]").is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let (config, _) = parse(V1).unwrap();
        assert!(!format!("{config:?}").contains("dTpw") && !format!("{config:?}").contains("\"p\""));
        assert!(!config.backend.to_json().to_string().contains("auth"));
    }
}
