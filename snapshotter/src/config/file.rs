//! The TOML file of containerd-nydus-grpc, version 1: what has a meaning here is taken, the rest is told.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use service::{exit::UsageError, telemetry::LogLevel};
use toml::{Table, Value};

use super::DataPath;

/// What the file sets.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) root: Option<PathBuf>,
    pub(super) address: Option<PathBuf>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) cleanup_on_close: Option<bool>,
    pub(super) nydusd: Option<PathBuf>,
    pub(super) nydusd_config: Option<PathBuf>,
    pub(super) threads: Option<u16>,
    pub(super) data_path: Option<DataPath>,
    pub(super) p2p_socket: Option<PathBuf>,
    pub(super) fs_driver: Option<String>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) cache: Option<PathBuf>,
    pub(super) hosts_dirs: Vec<PathBuf>,
    pub(super) ignored: Vec<String>,
}

impl File {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let problem = |what: String| UsageError(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| problem(error.message().to_owned()))?;
        Ok(Self::parse(Keys(table)).map_err(problem)?)
    }

    fn parse(mut keys: Keys) -> Result<Self, String> {
        match keys.take::<i64>("version")? {
            None | Some(1) => {}
            Some(other) => return Err(format!("version {other} is not known: this is version 1")),
        }
        let mut hosts_dirs: Vec<PathBuf> = keys.take("remote.hosts_dirs")?.unwrap_or_default();
        hosts_dirs.extend(keys.take_path("remote.mirrors_config.dir")?);
        let level = keys.take::<String>("log.level")?.filter(|level| !level.is_empty());
        Ok(Self {
            root: keys.take_path("root")?,
            address: keys.take_path("address")?,
            uid: keys.take("uid")?,
            gid: keys.take("gid")?,
            cleanup_on_close: keys.take("cleanup_on_close")?,
            nydusd: keys.take_path("daemon.nydusd_path")?,
            nydusd_config: keys.take_path("daemon.nydusd_config")?,
            threads: keys.take("daemon.threads_number")?,
            data_path: keys.take("daemon.data_path")?,
            p2p_socket: keys.take("daemon.p2p_socket")?,
            fs_driver: keys.take("daemon.fs_driver")?,
            log_level: level.map(|level| parse_level(&level)).transpose()?,
            cache: keys.take_path("cache_manager.cache_dir")?,
            hosts_dirs,
            ignored: keys.left(),
        })
    }
}

/// Levels that only the original has count as the nearest one.
fn parse_level(level: &str) -> Result<LogLevel, String> {
    match level {
        "fatal" | "panic" => Ok(LogLevel::Error),
        other => LogLevel::from_str(other, true).map_err(|_| format!("log.level {other:?} is not known")),
    }
}

/// Keys that nobody has taken yet.
struct Keys(Table);

impl Keys {
    fn take<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, String> {
        let (sections, key) =
            path.rsplit_once('.').map_or((None, path), |(sections, key)| (Some(sections), key));
        let mut table = &mut self.0;
        for section in sections.into_iter().flat_map(|sections| sections.split('.')) {
            let Some(Value::Table(inner)) = table.get_mut(section) else { return Ok(None) };
            table = inner;
        }
        let Some(value) = table.remove(key) else { return Ok(None) };
        value.try_into().map(Some).map_err(|error: toml::de::Error| format!("{path}: {}", error.message()))
    }

    /// An empty path is how the original's sample leaves one out.
    fn take_path(&mut self, path: &str) -> Result<Option<PathBuf>, String> {
        Ok(self.take::<PathBuf>(path)?.filter(|path| !path.as_os_str().is_empty()))
    }

    fn left(self) -> Vec<String> {
        let mut names = Vec::new();
        let mut pending: Vec<(String, Value)> = self.0.into_iter().collect();
        while let Some((name, value)) = pending.pop() {
            match value {
                Value::Table(inner) => {
                    pending.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
                }
                _ => names.push(name),
            }
        }
        names.sort();
        names
    }
}
