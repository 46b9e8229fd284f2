//! Web servers: an ordinary one, and those that do what they are told.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use integration_tests::{command::command, daemon::Daemon, registry::free_address};

const READY: Duration = Duration::from_secs(30);
/// Longest wait of a server for its client.
const PATIENCE: Duration = Duration::from_secs(90);

/// Python's web server over a directory.
#[derive(Debug)]
pub(crate) struct Web {
    _daemon: Daemon,
    dir: PathBuf,
    log: PathBuf,
    address: SocketAddr,
}

impl Web {
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let (address, log) = (free_address()?, dir.with_extension("log"));
        let (port, host) = (address.port().to_string(), address.ip().to_string());
        let mut python =
            command("python3", ["-u", "-m", "http.server", &port, "--bind", &host, "--directory"]);
        let mut daemon = Daemon::start("python3", python.arg(dir), &log)?;
        daemon.wait_ready(READY, || TcpStream::connect(address).is_ok())?;
        Ok(Self { _daemon: daemon, dir: dir.to_owned(), log, address })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How often a path was asked for.
    pub(crate) fn asked_for(&self, path: &str) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches(&format!("\"GET /{path} ")).count())
    }
}

/// A connection.
trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A client that has asked something.
pub(crate) struct Client(Box<dyn Stream>);

impl Client {
    /// Whether it takes the bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    pub(crate) fn wait_until_closed(&mut self) {
        while self.0.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    }

    fn serve(&mut self, answer: &impl Fn(&str, &mut Self) -> Vec<u8>) {
        let asked = self.ask();
        // Whoever only looks whether somebody is there asks nothing.
        let answer = if asked.is_empty() { Vec::new() } else { answer(&asked, self) };
        self.send(&answer);
    }

    /// What it asks, in lower case.
    fn ask(&mut self) -> String {
        let mut asked = String::new();
        let mut lines = BufReader::new(&mut self.0);
        while !asked.ends_with("\r\n\r\n") && lines.read_line(&mut asked).is_ok_and(|read| read > 0) {}
        asked.to_lowercase()
    }
}

/// A server that answers each client once, as it is told to. It takes no more clients when dropped.
pub(crate) struct Odd {
    address: Option<SocketAddr>,
    stopped: Arc<AtomicBool>,
    /// Makes it look whether it is to end.
    wake: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
}

impl Odd {
    /// One at a port. `answer` gets what is asked, may send by itself, and gives what is still to be sent.
    pub(crate) fn start(
        answer: impl Fn(&str, &mut Client) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let next = move || -> Option<Box<dyn Stream>> {
            let (stream, _) = listener.accept().ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.set_write_timeout(Some(PATIENCE)).ok()?;
            Some(Box::new(stream))
        };
        let wake = move || drop(TcpStream::connect(address));
        Ok(Self::serve(Some(address), next, answer, Box::new(wake)))
    }

    /// One at a socket.
    pub(crate) fn at_socket(
        socket: &Path,
        answer: impl Fn(&str, &mut Client) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let next = move || -> Option<Box<dyn Stream>> {
            let (stream, _) = listener.accept().ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.set_write_timeout(Some(PATIENCE)).ok()?;
            Some(Box::new(stream))
        };
        let socket = socket.to_owned();
        let wake = move || drop(UnixStream::connect(&socket));
        Ok(Self::serve(None, next, answer, Box::new(wake)))
    }

    fn serve(
        address: Option<SocketAddr>,
        next: impl Fn() -> Option<Box<dyn Stream>> + Send + 'static,
        answer: impl Fn(&str, &mut Client) -> Vec<u8> + Send + Sync + 'static,
        wake: Box<dyn Fn()>,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (stops, answer) = (Arc::clone(&stopped), Arc::new(answer));
        let thread = thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                let Some(mut client) = next().map(Client) else { continue };
                let answer = Arc::clone(&answer);
                // Ends with its client, at the latest when its patience does.
                thread::spawn(move || client.serve(&*answer));
            }
        });
        Self { address, stopped, wake, thread: Some(thread) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address.expect("it is at a port"))
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        (self.wake)();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The begin of an answer after which the connection is closed.
pub(crate) fn head(status: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// Part of a body whose length is not said.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
