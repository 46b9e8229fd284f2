//! A whole node of our own: registry, link, snapshotter and containerd.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{check_interrupted, run},
    containerd::{Containerd, Release},
    image::Layout,
    programs,
    registry::Registry,
    relay::{Link, Relay},
    scratch::Scratch,
    snapshotter::Snapshotter,
};

const READY: Duration = Duration::from_secs(120);

/// Everything that a container needs, none of it the machine's. Ends in the order of its fields.
#[derive(Debug)]
pub struct Node {
    /// The container runtime.
    pub containerd: Containerd,
    /// Ours.
    pub snapshotter: Snapshotter,
    /// Between node and registry.
    pub relay: Relay,
    /// The registry.
    pub registry: Registry,
    /// Where all of it lives.
    pub scratch: Scratch,
}

/// Times of one container, from nothing to its ready line.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Until the image can be used.
    pub pull: Duration,
    /// Until the container is there.
    pub create: Duration,
    /// From its start to the ready line.
    pub ready: Duration,
    /// Bytes that crossed the link from pull to ready line.
    pub bytes: u64,
}

impl Start {
    /// Pull to ready.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.pull + self.create + self.ready
    }
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn start(name: &str, release: Release, link: Link) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let registry = Registry::start(&scratch.path().join("registry"))?;
        Self::with_registry(scratch, registry, release, link)
    }

    /// Starts everything, with a snapshotter that leaves the kernel's own driver aside.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn through_fuse(name: &str, release: Release) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let registry = Registry::start(&scratch.path().join("registry"))?;
        let snapshotter = Snapshotter::start_with(&scratch, &["--data-path", "fuse"])?;
        Self::around(scratch, registry, snapshotter, (release, Link::DIRECT))
    }

    /// Starts the rest around a registry.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn with_registry(scratch: Scratch, registry: Registry, release: Release, link: Link) -> Result<Self> {
        let snapshotter = Snapshotter::start(&scratch)?;
        Self::around(scratch, registry, snapshotter, (release, link))
    }

    fn around(
        scratch: Scratch,
        registry: Registry,
        snapshotter: Snapshotter,
        (release, link): (Release, Link),
    ) -> Result<Self> {
        let relay = Relay::start(registry.address(), link)?;
        let containerd = Containerd::start(&scratch, release, snapshotter.socket(), relay.address())?;
        Ok(Self { containerd, snapshotter, relay, registry, scratch })
    }

    /// How the node names an image of the registry.
    #[must_use]
    pub fn name(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.relay.address())
    }

    /// Pushes an image as `repository:plain` and converts it to `repository:lazy`.
    ///
    /// # Errors
    /// What the registry or `shoal convert` tells.
    pub fn publish(&self, layout: &Layout, repository: &str) -> Result<()> {
        self.registry.push(layout, repository, "plain")?;
        self.convert(repository, "lazy", &[])
    }

    /// Converts `repository:plain` to another tag.
    ///
    /// # Errors
    /// What `shoal convert` tells.
    pub fn convert(&self, repository: &str, tag: &str, flags: &[&str]) -> Result<()> {
        let at = self.registry.address();
        let (source, target) = (format!("{at}/{repository}:plain"), format!("{at}/{repository}:{tag}"));
        run(programs::shoal(["convert", source.as_str(), target.as_str()])?.args(flags))?;
        Ok(())
    }

    /// Pulls an image lazily.
    ///
    /// # Errors
    /// What `shoal pull` tells.
    pub fn pull_lazily(&self, image: &str) -> Result<()> {
        run(programs::shoal(["pull", image, "--address"])?.arg(self.containerd.socket()))
            .with_context(|| self.snapshotter.said())?;
        Ok(())
    }

    /// Pulls, creates and starts a container, and waits for its ready line, then for its end.
    ///
    /// # Errors
    /// Where a step fails.
    pub fn cold_start(&self, snapshotter: &str, image: &str, args: &[&str]) -> Result<Start> {
        let before = self.relay.received();
        let start = Instant::now();
        match snapshotter {
            "nydus" => self.pull_lazily(image)?,
            _ => self.containerd.pull(snapshotter, image)?,
        }
        let pull = start.elapsed();
        let name = format!("{snapshotter}-start");
        let start = Instant::now();
        let mut create =
            self.containerd.ctr(["containers", "create", "--snapshotter", snapshotter, image, &name]);
        run(create.args(args)).with_context(|| self.snapshotter.said())?;
        let create = start.elapsed();
        let (ready, bytes) = {
            let mut task = self.containerd.ctr(["tasks", "start", &name]);
            until_ready(&mut task, || self.relay.received() - before)
                .with_context(|| self.snapshotter.said())?
        };
        run(&mut self.containerd.ctr(["containers", "delete", &name]))?;
        Ok(Start { pull, create, ready, bytes })
    }
}

/// Runs a program; the time to the line with `ready` in it, and what `measure` says at that moment.
///
/// # Errors
/// Where it ends without that line or with an error.
pub fn until_ready<T>(command: &mut Command, measure: impl FnOnce() -> T) -> Result<(Duration, T)> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let (send, lines) = mpsc::channel();
    let reader =
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
    let mut said = Vec::new();
    let found = loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) if line.contains("ready") => break Some((start.elapsed(), measure())),
            Ok(line) => said.push(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if check_interrupted().is_err() || start.elapsed() > READY {
            break None;
        }
    };
    if found.is_none() {
        child.kill().ok();
    }
    // The program may go on talking: nobody waits for it with a full pipe.
    drop(lines);
    let output = child.wait_with_output()?;
    drop(reader.join());
    check_interrupted()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let Some(found) = found else { bail!("no ready line; it said:\n{}\n{stderr}", said.join("\n")) };
    ensure!(output.status.success(), "ended with {}:\n{stderr}", output.status);
    Ok(found)
}

/// Drops clean pages, so that the next read comes from where the data is.
///
/// # Errors
/// Where the kernel does not let us.
pub fn drop_page_cache() -> Result<()> {
    nix::unistd::sync();
    std::fs::write(Path::new("/proc/sys/vm/drop_caches"), "3").context("drop the page cache")
}
