//! A registry of our own: Debian's docker-registry on a loopback port.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write, copy},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{command::command, daemon::Daemon, image::Layout};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    daemon: Daemon,
    dir: PathBuf,
    address: SocketAddr,
}

impl Registry {
    /// Starts a registry that keeps its blobs in `dir`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let address = free_address()?;
        Ok(Self { daemon: serve(dir, address)?, dir: dir.to_owned(), address })
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
        self.daemon = serve(&self.dir, self.address)?;
        Ok(())
    }

    /// The file that holds a blob, to be changed behind the registry's back.
    #[must_use]
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        self.dir.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Pushes a layout's image as `repository:tag`.
    ///
    /// # Errors
    /// Where the registry refuses something.
    pub fn push(&self, layout: &Layout, repository: &str, tag: &str) -> Result<()> {
        let (descriptor, manifest) = layout.manifest()?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            let digest = blob.digest();
            let start = self.call("POST", &format!("/v2/{repository}/blobs/uploads/"), "", None)?;
            let location = start.header("location").context("the registry names no place to upload to")?;
            let path =
                location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
            let separator = if path.contains('?') { '&' } else { '?' };
            let file = layout.blob(digest.digest());
            self.call(
                "PUT",
                &format!("{path}{separator}digest={digest}"),
                "application/octet-stream",
                Some(&file),
            )?;
        }
        let file = layout.blob(descriptor.digest().digest());
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.call("PUT", &path, descriptor.media_type().as_ref(), Some(&file))?;
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
        let what = || format!("{method} {path}");
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT).with_context(what)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let file = body.map(File::open).transpose().with_context(what)?;
        let length = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|meta| meta.len()))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: {content_type}\r\nAccept: application/vnd.oci.image.manifest.v1+json, \
             application/vnd.oci.image.index.v1+json\r\n\r\n",
            self.address
        )?;
        if let Some(mut file) = file {
            copy(&mut file, &mut stream).with_context(what)?;
        }
        let answer = Answer::read(BufReader::new(stream)).with_context(what)?;
        ensure!((200..300).contains(&answer.status), "{}: {}", what(), String::from_utf8_lossy(&answer.body));
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

fn serve(dir: &Path, address: SocketAddr) -> Result<Daemon> {
    fs::create_dir_all(dir)?;
    let config = dir.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}', secret: only-here}}\n",
        dir.display()
    );
    fs::write(&config, text)?;
    let mut registry = command("docker-registry", ["serve"]);
    let mut daemon = Daemon::start("docker-registry", registry.arg(&config), &dir.join("registry.log"))?;
    daemon.wait_ready(Duration::from_secs(30), || TcpStream::connect(address).is_ok())?;
    Ok(daemon)
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut stream: impl BufRead) -> Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no status line")?.trim().parse()?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        if answer.header("transfer-encoding").is_some() {
            bail!("a chunked answer was not expected here");
        }
        stream.read_to_end(&mut answer.body)?;
        Ok(answer)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
