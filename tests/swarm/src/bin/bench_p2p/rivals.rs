//! The same blob to the same nodes by what else there is: plain HTTP from the registry, and BitTorrent by aria2 with a
//! tracker and a first seeder at the registry's rate.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    blob::Blob,
    command::{command, run, wait_for},
    daemon::Daemon,
    network::{Answer, Host, Network},
    p2pd::P2pd,
    scratch::Scratch,
    swarm_bed::SwarmBed,
};

/// Debian's packages with the programs of the same names.
const PROGRAMS: [&str; 3] = ["aria2c", "mktorrent", "opentracker"];
const TRACKER: u16 = 6969;
/// A client makes this file when it has all.
const COMPLETE: &str = "complete";
const READY: Duration = Duration::from_secs(10);
/// Less than a host is waited for.
const PATIENCE: Duration = Duration::from_secs(290);

/// How long the last node takes where each asks the registry for the blob.
///
/// # Errors
/// Where one does not get it.
pub(super) fn plain_http(bed: &SwarmBed, blob: &Blob) -> Result<Duration> {
    let (registry, path, len) = (bed.relay.address(), blob.path(), blob.bytes.len());
    let times = bed.on_all(move |_| {
        let began = Instant::now();
        ensure!(get(registry, &path)? == len, "the blob is cut off");
        Ok(began.elapsed())
    })?;
    times.into_iter().max().context("no node")
}

fn get(registry: SocketAddr, path: &str) -> Result<usize> {
    let stream = TcpStream::connect_timeout(&registry, READY)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let host = registry.to_string();
    let call = integration_tests::http::Call { method: "GET", path, host: &host, headers: &[] };
    let answer = call.over(stream, std::io::empty(), 0)?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.body.len())
}

/// A torrent, its tracker and its first seeder.
pub(super) struct Torrent {
    scratch: Scratch,
    file: PathBuf,
    blob: Arc<Blob>,
    _seeder: Daemon,
    _tracker: Daemon,
}

impl Torrent {
    /// Whether the programs are there.
    pub(super) fn is_there() -> bool {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        PROGRAMS.iter().all(|program| std::env::split_paths(&paths).any(|dir| dir.join(program).is_file()))
    }

    /// Begins to seed a blob in pieces of the size, a power of two, at so many bytes per second. Called on the hub.
    pub(super) fn seed(blob: &Arc<Blob>, piece: u32, bytes_per_second: u64) -> Result<Self> {
        let scratch = Scratch::new("torrent")?;
        let (content, file) = (scratch.dir("seeder")?.join("blob"), scratch.path().join("blob.torrent"));
        fs::write(&content, &blob.bytes)?;
        let announce = format!("http://{}:{TRACKER}/announce", Network::HUB);
        let power = piece.ilog2().to_string();
        run(command("mktorrent", ["-a", &announce, "-l", &power, "-o"]).arg(&file).arg(&content))?;
        let tracker = track(&scratch, &file)?;
        let mut seeder = aria2(&scratch.dir("seeder")?, &file)?;
        seeder.args(["--check-integrity=true", &format!("--max-overall-upload-limit={bytes_per_second}")]);
        let seeder = Daemon::start("aria2c", &mut seeder, &scratch.path().join("seeder.log"))?;
        let complete = scratch.dir("seeder")?.join(COMPLETE);
        wait_for("the seeder", READY, || Ok(complete.exists().then_some(())))?;
        Ok(Self { file, blob: Arc::clone(blob), scratch, _seeder: seeder, _tracker: tracker })
    }

    /// How long the last node takes.
    pub(super) fn leech(&self, bed: &SwarmBed) -> Result<Duration> {
        let begin = |(at, node): (usize, &Host<P2pd>)| {
            let (file, blob) = (self.file.clone(), Arc::clone(&self.blob));
            let dir = self.scratch.path().join(format!("leecher-{at}"));
            node.begin(move |_| {
                fs::create_dir_all(&dir)?;
                let began = Instant::now();
                let daemon = Daemon::start("aria2c", &mut aria2(&dir, &file)?, &dir.join("log"))?;
                let complete = || Ok(dir.join(COMPLETE).exists().then_some(()));
                wait_for("aria2c", PATIENCE, complete).with_context(|| daemon.said())?;
                let took = began.elapsed();
                ensure!(fs::read(dir.join("blob"))? == blob.bytes, "wrong bytes");
                Ok((took, daemon))
            })
        };
        // All go on to seed until the last one has it.
        let leechers: Vec<_> = bed.nodes.iter().enumerate().map(begin).collect();
        let done: Vec<_> = leechers.into_iter().map(Answer::wait).collect::<Result<_>>()?;
        done.iter().map(|(time, _)| *time).max().context("no node")
    }
}

/// Starts a tracker, which knows no torrent but this one.
fn track(scratch: &Scratch, torrent: &Path) -> Result<Daemon> {
    let shown = run(command("aria2c", ["--show-files"]).arg(torrent))?;
    let hash = shown.lines().find_map(|line| line.strip_prefix("Info Hash: ")).context("no info hash")?;
    let known = scratch.path().join("known");
    fs::write(&known, format!("{hash}\n"))?;
    // It gives up being root before it reads the file.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let (address, port) = (Network::HUB.to_string(), TRACKER.to_string());
    let mut tracker = command("opentracker", ["-i", &address, "-p", &port, "-P", &port, "-w"]);
    let mut tracker = Daemon::start("opentracker", tracker.arg(&known), &scratch.path().join("tracker.log"))?;
    tracker.wait_ready(READY, || TcpStream::connect((Network::HUB, TRACKER)).is_ok())?;
    Ok(tracker)
}

/// A BitTorrent client with its defaults, that goes on to seed, and says when it is complete.
fn aria2(dir: &Path, torrent: &Path) -> Result<std::process::Command> {
    let hook = dir.join("hook");
    fs::write(&hook, format!("#!/bin/sh\n: >'{}'\n", dir.join(COMPLETE).display()))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let mut aria2 =
        command("aria2c", ["--no-conf", "--enable-dht=false", "--seed-ratio=0.0", "--summary-interval=0"]);
    aria2
        .arg(format!("--dir={}", dir.display()))
        .arg(format!("--on-bt-download-complete={}", hook.display()));
    aria2.arg(torrent);
    Ok(aria2)
}
