//! A registry of our own: Debian's docker-registry on a loopback port.

use std::{
    fs::{self, File},
    io::{Read, empty},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    command::command,
    daemon::Daemon,
    http::{Answer, Call},
    image::Layout,
};

/// Who a guarded registry serves.
pub const USER: &str = "me";
/// And by which password.
pub const PASSWORD: &str = "pw";
/// Both, as the registry reads them.
const HTPASSWD: &str = "me:$2b$04$r2yA5U1clP4VD141cOkfJ.IGyfS9sgdjK/M.Mq6xZEY43qEeS3RYG\n";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    daemon: Daemon,
    dir: PathBuf,
    address: SocketAddr,
    guarded: bool,
}

impl Registry {
    /// Starts a registry that keeps its blobs in `dir`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let address = free_address()?;
        Ok(Self { daemon: serve(dir, address, false)?, dir: dir.to_owned(), address, guarded: false })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the process, as an outage.
    ///
    /// # Errors
    /// Where it cannot be ended.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop()
    }

    /// Serves again, at the same address.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.stop()?;
        self.daemon = serve(&self.dir, self.address, self.guarded)?;
        Ok(())
    }

    /// Serves from now on only who shows [`USER`] and [`PASSWORD`].
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn guard(&mut self) -> Result<()> {
        self.guarded = true;
        fs::write(self.dir.join("htpasswd"), HTPASSWD)?;
        self.restart()
    }

    /// The file that holds a blob, to be changed behind the registry's back.
    #[must_use]
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        self.dir.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Bytes of a blob that it has sent, by its log.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn sent(&self, hex: &str) -> Result<u64> {
        let log = fs::read_to_string(self.dir.join("registry.log"))?;
        let asked = format!("/blobs/sha256:{hex} HTTP/");
        // The common log format: ... "GET /path HTTP/1.1" status bytes ...
        let bytes = |line: &str| {
            let (request, answer) = line.split_once(&asked)?;
            let mut words = answer.split_whitespace().skip(1);
            let (status, bytes) = (words.next()?, words.next()?);
            let is_sent = request.contains("\"GET ") && matches!(status, "200" | "206");
            is_sent.then(|| bytes.parse::<u64>().ok()).flatten()
        };
        Ok(log.lines().filter_map(bytes).sum())
    }

    /// Pushes a layout's image as `repository:tag`.
    ///
    /// # Errors
    /// Where the registry refuses something.
    pub fn push(&self, layout: &Layout, repository: &str, tag: &str) -> Result<()> {
        let (descriptor, manifest) = layout.manifest()?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            self.upload(repository, blob.digest().as_ref(), &layout.blob(blob.digest().digest()))?;
        }
        let file = layout.blob(descriptor.digest().digest());
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.call("PUT", &path, descriptor.media_type().as_ref(), Some(&file))?;
        Ok(())
    }

    /// Pushes a file as a blob, and gives its digest.
    ///
    /// # Errors
    /// Where the registry refuses it.
    pub fn push_blob(&self, repository: &str, file: &Path) -> Result<String> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(fs::read(file)?)));
        self.upload(repository, &digest, file)?;
        Ok(digest)
    }

    fn upload(&self, repository: &str, digest: &str, file: &Path) -> Result<()> {
        let start = self.call("POST", &format!("/v2/{repository}/blobs/uploads/"), "", None)?;
        let location = start.header("location").context("the registry names no place to upload to")?;
        let path =
            location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={digest}");
        self.call("PUT", &path, "application/octet-stream", Some(file))?;
        Ok(())
    }

    /// A manifest, as the registry has it.
    ///
    /// # Errors
    /// Where it has none.
    pub fn manifest(&self, repository: &str, tag: &str) -> Result<serde_json::Value> {
        let answer = self.call("GET", &format!("/v2/{repository}/manifests/{tag}"), "", None)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    fn call(&self, method: &str, path: &str, content_type: &str, body: Option<&Path>) -> Result<Answer> {
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT).context("connect to the registry")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let (body, length): (Box<dyn Read>, u64) = match body {
            Some(file) => {
                let file = File::open(file)?;
                let length = file.metadata()?.len();
                (Box::new(file), length)
            }
            None => (Box::new(empty()), 0),
        };
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let headers = [("Content-Type", content_type), ("Accept", accept)];
        let host = &self.address.to_string();
        let answer = Call { method, path, host, headers: &headers }.over(stream, body, length)?;
        ensure!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        Ok(answer)
    }
}

/// An address of this machine that nobody listens on.
///
/// # Errors
/// Where there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn serve(dir: &Path, address: SocketAddr, guarded: bool) -> Result<Daemon> {
    fs::create_dir_all(dir)?;
    let config = dir.join("registry.yml");
    let auth = match guarded {
        true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", dir.join("htpasswd").display()),
        false => String::new(),
    };
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}', secret: only-here}}\n{auth}",
        dir.display()
    );
    fs::write(&config, text)?;
    let mut registry = command("docker-registry", ["serve"]);
    let mut daemon = Daemon::start("docker-registry", registry.arg(&config), &dir.join("registry.log"))?;
    daemon.wait_ready(Duration::from_secs(30), || TcpStream::connect(address).is_ok())?;
    Ok(daemon)
}
