//! `p2pd` processes on loopback addresses of their own.

use std::{
    io::Cursor,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    command::{command, run, wait_for},
    daemon::Daemon,
    http::{Answer, Call},
    programs,
};

const READY: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(150);

/// A node of the piece network.
#[derive(Debug)]
pub struct P2pd {
    daemon: Daemon,
    dir: PathBuf,
    listen: String,
    share: String,
    flags: Vec<String>,
}

impl P2pd {
    /// Starts a node whose state is in `dir`, at `host` and `port`. `join` is the token of another node.
    ///
    /// # Errors
    /// Where it does not serve in time.
    pub fn start(dir: &Path, host: Ipv4Addr, port: u16, join: Option<&str>, share: &str) -> Result<Self> {
        Self::start_with(dir, host, port, join, share, &[])
    }

    /// Starts one with further flags.
    ///
    /// # Errors
    /// Where it does not serve in time.
    pub fn start_with(
        dir: &Path,
        host: Ipv4Addr,
        port: u16,
        join: Option<&str>,
        share: &str,
        flags: &[String],
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (listen, share, flags) = (format!("{host}:{port}"), share.to_owned(), flags.to_owned());
        let daemon = launch(dir, &listen, &share, &flags, join)?;
        Ok(Self { daemon, dir: dir.to_owned(), listen, share, flags })
    }

    /// Where programs of its node find it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Its token.
    ///
    /// # Errors
    /// Where it has none.
    pub fn token(&self) -> Result<String> {
        let root = self.dir.join("root");
        let mut token = command(programs::path("p2pd")?, ["token", "--root"]);
        Ok(run(token.arg(root))?.trim().to_owned())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.daemon.pid()
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// Where it is gone already.
    pub fn kill(&self) -> Result<()> {
        Ok(kill(self.daemon.pid(), Signal::SIGKILL)?)
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop()
    }

    /// Starts it again with what it keeps.
    ///
    /// # Errors
    /// Where it does not serve in time.
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.stop()?;
        self.daemon = launch(&self.dir, &self.listen, &self.share, &self.flags, None)?;
        Ok(())
    }

    /// Waits until it sees so many members, itself among them.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn sees(&self, members: usize) -> Result<()> {
        wait_for(&format!("{members} members"), READY, || {
            let status = self.status()?;
            let seen = status["members"].as_array().context("a list of members")?.len();
            Ok((seen == members).then_some(()))
        })
        .with_context(|| self.daemon.said())
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&self) -> Result<serde_json::Value> {
        let answer = self.call("GET", "/v1/status", &[], &[])?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// The sum of its figures that begin so.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn figure(&self, begin: &str) -> Result<u64> {
        let answer = self.call("GET", "/metrics", &[], &[])?;
        ensure!(answer.status == 200, "{}", answer.text());
        let page = answer.text();
        let found = page.lines().filter(|line| line.starts_with(begin));
        found.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    }

    /// Makes a call on its socket.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let stream = UnixStream::connect(socket(&self.dir)).with_context(|| self.daemon.said())?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Call { method, path, host: "p2pd", headers }.over(stream, Cursor::new(body), body.len() as u64)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("p2pd.sock")
}

fn launch(dir: &Path, listen: &str, share: &str, flags: &[String], join: Option<&str>) -> Result<Daemon> {
    let mut peer = command(programs::path("p2pd")?, ["up", "--log-level", "debug", "--keep-free", "0"]);
    // Many nodes share this host: its load is their own.
    peer.args(["--yield-cpu", "none"]);
    peer.args(["--listen", listen, "--share", share]).args(flags);
    peer.arg("--root").arg(dir.join("root")).arg("--socket").arg(socket(dir));
    peer.envs(join.map(|token| ("SHOAL_JOIN", token)));
    let mut daemon = Daemon::start("p2pd", &mut peer, &dir.join("p2pd.log"))?;
    daemon.wait_ready(READY, || UnixStream::connect(socket(dir)).is_ok())?;
    Ok(daemon)
}
