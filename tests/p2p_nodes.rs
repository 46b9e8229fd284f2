//! Whole nodes that feed each other: containerd, snapshotter, nydusd and p2pd on each, in network namespaces.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use integration_tests::{
    command::run,
    containerd::{Containerd, Release},
    image::debian::Program,
    network::{Host, Network},
    node::until_ready,
    p2pd::P2pd,
    programs,
    registry::Registry,
    relay::{Link, Relay},
    scratch::{Mounted, Scratch},
    snapshotter::Snapshotter,
    tree,
};
use sha2::{Digest as _, Sha256};

const PROGRAM: Program = Program::Redis;
const PORT: u16 = 4700;

/// What runs on a host. Ends in the order of its fields.
struct Node {
    containerd: Containerd,
    snapshotter: Snapshotter,
    p2pd: P2pd,
    scratch: Scratch,
    image: String,
}

impl Node {
    fn start(number: u16, registry: SocketAddr, join: Option<&str>) -> Result<Self> {
        let scratch = Scratch::new(&format!("node-{number}"))?;
        scratch.trust(registry)?;
        let share = format!("{registry}/*");
        let p2pd = P2pd::start(&scratch.dir("p2p")?, Network::address(number), PORT, join, &share)?;
        let socket = p2pd.socket().display().to_string();
        let snapshotter = Snapshotter::start_with(&scratch, &["--p2p-socket", &socket])?;
        let containerd = Containerd::start(&scratch, Release::Installed, snapshotter.socket(), registry)?;
        let image = format!("{registry}/{}:lazy", PROGRAM.name());
        Ok(Self { containerd, snapshotter, p2pd, scratch, image })
    }

    /// Pulls lazily and runs the program to its end.
    fn run(&self) -> Result<()> {
        let mut pull = programs::shoal(["pull", &self.image, "--address"])?;
        run(pull.arg(self.containerd.socket()))?;
        until_ready(&mut self.containerd.run("nydus", &self.image, "one", PROGRAM.args()), || ())?;
        Ok(())
    }

    fn view(&self) -> Result<Mounted> {
        self.containerd.view("nydus", &self.image, &self.scratch.path().join("view"))
    }

    /// What the user is told of a running container's image, named by the container.
    fn explained(&self) -> Result<serde_json::Value> {
        let ctr = ["run", "--detach", "--snapshotter", "nydus", &self.image, "asked", "sleep", "300"];
        run(&mut self.containerd.ctr(ctr))?;
        let mut explain = programs::shoal(["explain", "asked", "--json", "--root"])?;
        let told = run(explain.arg(self.snapshotter.root()));
        run(&mut self.containerd.ctr(["tasks", "delete", "--force", "asked"]))?;
        run(&mut self.containerd.ctr(["containers", "delete", "asked"]))?;
        Ok(serde_json::from_str(&told?)?)
    }

    /// The pieces of a blob that it has.
    fn pieces(&self, digest: &str) -> Result<BTreeSet<u64>> {
        let status = self.p2pd.status()?;
        let blobs = status["blobs"].as_array().context("a list of blobs")?;
        let Some(blob) = blobs.iter().find(|blob| blob["digest"] == digest) else {
            return Ok(BTreeSet::new());
        };
        let list = blob["list"].as_str().context("the blob has a list")?;
        let answer = self.p2pd.call("GET", &format!("/v1/blobs/{digest}/pieces?list={list}"), &[], &[])?;
        let pieces: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let runs: Vec<(u64, u64)> = serde_json::from_value(pieces["here"].clone())?;
        Ok(runs.into_iter().flat_map(|(first, last)| first..=last).collect())
    }
}

/// Registry and hosts.
struct Bed {
    hosts: Vec<Host<Node>>,
    relay: Relay,
    registry: Registry,
    network: Network,
    /// Sizes of the image's blobs by digest.
    blobs: BTreeMap<String, u64>,
    _scratch: Scratch,
}

impl Bed {
    fn start() -> Result<Self> {
        let image = PROGRAM.image()?;
        let network = Network::new()?;
        let scratch = Scratch::new("p2p-nodes")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        let relay = Relay::at(Network::HUB, registry.address(), Link::DIRECT)?;
        registry.push(&image, PROGRAM.name(), "plain")?;
        let at = format!("{}/{}", registry.address(), PROGRAM.name());
        run(&mut programs::shoal(["convert", &format!("{at}:plain"), &format!("{at}:lazy")])?)?;
        let manifest = registry.manifest(PROGRAM.name(), "lazy")?;
        let layers = manifest["layers"].as_array().context("a manifest has layers")?;
        let blob = |layer: &serde_json::Value| {
            let is_blob = layer["mediaType"].as_str()?.contains("nydus.blob");
            is_blob.then_some((layer["digest"].as_str()?.to_owned(), layer["size"].as_u64()?))
        };
        let blobs = layers.iter().filter_map(blob).collect();
        Ok(Self { hosts: Vec::new(), relay, registry, network, blobs, _scratch: scratch })
    }

    /// Adds hosts, all at once, that join the first one's cluster.
    fn add(&mut self, numbers: &[u16]) -> Result<()> {
        let registry = self.relay.address();
        let join = match self.hosts.first() {
            Some(first) => Some(first.call(|node| node.p2pd.token())?),
            None => None,
        };
        let start = |number: &u16| {
            let (number, join) = (*number, join.clone());
            Host::start(self.network, number, 0, move || Node::start(number, registry, join.as_deref()))
        };
        let started: Vec<_> = numbers.iter().map(start).collect::<Result<_>>()?;
        for (host, made) in started {
            made.wait()?;
            self.hosts.push(host);
        }
        let all = self.hosts.len();
        self.on_all(move |node| node.p2pd.sees(all))?;
        Ok(())
    }

    /// Does something on all hosts at once.
    fn on_all<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Node) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let begun: Vec<_> = self.hosts.iter().map(|host| host.begin(work.clone())).collect();
        begun.into_iter().map(|answer| answer.wait()).collect()
    }

    /// Bytes of blobs that the registry has sent, by its log.
    fn sent(&self) -> Result<u64> {
        let hex = |digest: &String| digest.trim_start_matches("sha256:").to_owned();
        self.blobs.keys().map(|digest| self.registry.sent(&hex(digest))).sum()
    }

    /// Bytes of the pieces that hosts have, each counted once.
    fn held(&self) -> Result<u64> {
        let mut held = 0;
        for (digest, size) in &self.blobs {
            let name = digest.clone();
            let each = self.on_all(move |node| node.pieces(&name))?;
            let pieces: BTreeSet<_> = each.into_iter().flatten().collect();
            held += pieces.iter().map(|piece| (size - (piece << 20)).min(1 << 20)).sum::<u64>();
        }
        Ok(held)
    }
}

/// Reads one file of three, another one on each host; gives what they hold.
fn read_part(root: &Path, part: usize) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut open, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
            match kind? {
                kind if kind.is_dir() => open.push(entry),
                kind if kind.is_file() => files.push(entry),
                _ => {}
            }
        }
    }
    files.sort();
    let mine = files.into_iter().enumerate().filter(|(number, _)| number % 3 == part);
    mine.map(|(_, file)| {
        let digest = Sha256::digest(fs::read(&file).with_context(|| file.display().to_string())?).to_vec();
        Ok((file.strip_prefix(root)?.to_owned(), digest))
    })
    .collect()
}

#[test]
fn an_image_starts_on_all_nodes_from_one_copy_and_then_without_the_registry() -> Result<()> {
    let mut bed = Bed::start()?;
    bed.add(&[2])?;
    bed.add(&[3, 4])?;
    bed.on_all(|node| node.run())?;
    let (sent, held) = (bed.sent()?, bed.held()?);
    ensure!(held > 0, "no piece came through the network");
    ensure!(sent * 10 <= held * 11, "the registry sent {sent} bytes of blobs for {held}");

    let reads = bed.hosts.iter().enumerate().map(|(part, host)| {
        host.begin(move |node| {
            let view = node.view()?;
            read_part(view.path(), part)
        })
    });
    let reads: Vec<_> = reads.collect();
    let mut expected = BTreeMap::new();
    for read in reads {
        expected.extend(read.wait()?);
    }
    let (sent, held) = (bed.sent()?, bed.held()?);
    ensure!(sent * 10 <= held * 11, "the registry sent {sent} bytes of blobs for {held}, all of them");
    eprintln!("3 nodes: {sent} bytes of blobs from the registry, {held} held, {} files", expected.len());

    for digest in bed.blobs.keys() {
        fs::remove_file(bed.registry.blob_file(digest.trim_start_matches("sha256:")))?;
    }
    bed.add(&[5])?;
    let last = bed.hosts.last().context("a fourth host")?;
    last.call(|node| node.run())?;
    let found = last.call(|node| tree::read(node.view()?.path()))?;
    for (path, digest) in &expected {
        let entry = found.get(path).with_context(|| format!("{} is missing", path.display()))?;
        ensure!(entry.sha256.as_deref() == Some(&hex::encode(digest)), "{} is wrong", path.display());
    }
    ensure!(bed.sent()? == sent, "the registry still sent blobs");

    let told = last.call(|node| node.explained())?;
    let [image] = told.as_array().map(Vec::as_slice).unwrap_or_default() else { bail!("one image: {told}") };
    let chunks = |source: &str| {
        let figures = image["sources"].as_array().into_iter().flatten();
        figures
            .filter(|figures| figures["source"] == source)
            .filter_map(|figures| figures["chunks"].as_u64())
            .sum::<u64>()
    };
    ensure!(chunks("p2p-peers") > 0, "nothing came from other nodes: {told}");
    ensure!(["registry", "p2p-origin", "p2p-mixed"].map(chunks) == [0; 3], "the registry sent some: {told}");
    Ok(())
}
