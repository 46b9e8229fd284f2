//! The client against a registry that counts and misbehaves, and against a real one.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, reason = "tests")]

mod auth;
mod latency;
mod mirrors;
mod proxies;
mod pushes;
mod reads;
mod real;
mod redirects;

use std::{ops::Range, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use registry::{Client, ClientOptions, RegistryError, Repository};
use tempfile::TempDir;

/// A directory for hosts.toml and docker's configuration, and clients that read nothing else.
struct Setup {
    dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn options(&self) -> ClientOptions {
        ClientOptions {
            hosts_dirs: vec![self.path().join("certs.d")],
            docker_config: Some(self.path().join("docker")),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(2),
            attempts: 3,
            mirror_rest: Duration::from_secs(1),
            ..ClientOptions::default()
        }
    }

    fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| at.to_le_bytes()[at % 3] ^ 0x5a).collect()
}

fn part(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

async fn read(
    client: &Client,
    repository: &Repository,
    digest: &str,
    range: impl Into<Option<Range<u64>>>,
) -> Result<Bytes, RegistryError> {
    let stream = client.blob(repository, digest, range.into()).await?;
    let parts: Vec<Bytes> = stream.try_collect().await?;
    Ok(parts.concat().into())
}
