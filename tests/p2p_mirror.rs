//! Real containerd pulling plain images through the mirrors of real nodes, and `shoal get`, before a real registry. Needs
//! root.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::PathBuf,
    thread,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{command, run},
    containerd::{Containerd, Release},
    image::generated::{files, noise},
    p2pd::P2pd,
    programs,
    registry::{PASSWORD, Registry, USER, free_address},
    relay::{Link, Relay},
    scratch::Scratch,
};
use serde_json::Value;

const FILES: u64 = 24;
const FILE: usize = 1 << 20;
const BLOB: usize = 20 * FILE + 77;

/// Nodes with mirrors. Ends in the order of its fields.
struct Bed {
    nodes: Vec<P2pd>,
    mirrors: Vec<SocketAddr>,
    relay: Relay,
    registry: Registry,
    scratch: Scratch,
}

impl Bed {
    fn start(nodes: u8, shared: bool) -> Result<Self> {
        let scratch = Scratch::new("p2p-mirror")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        let relay = Relay::start(registry.address(), Link::DIRECT)?;
        let share = if shared { format!("{}/*", relay.address()) } else { "registry.example/*".to_owned() };
        let port = free_address()?.port();
        let mut bed = Self { nodes: Vec::new(), mirrors: Vec::new(), relay, registry, scratch };
        for number in 0..nodes {
            let token = bed.nodes.first().map(P2pd::token).transpose()?;
            let dir = bed.scratch.dir(&format!("node-{number}"))?;
            let (host, mirror) = (Ipv4Addr::new(127, 0, 0, 2 + number), free_address()?);
            let flags = ["--mirror".to_owned(), mirror.to_string()];
            bed.nodes.push(P2pd::start_with(&dir, host, port, token.as_deref(), &share, &flags)?);
            bed.mirrors.push(mirror);
        }
        bed.nodes.iter().try_for_each(|node| node.sees(nodes.into()))?;
        Ok(bed)
    }

    /// Pushes a blob; says its digest and its bytes.
    fn publish(&self, seed: u64) -> Result<(String, Vec<u8>)> {
        let (file, bytes) = (self.scratch.path().join("blob"), noise(seed, BLOB));
        fs::write(&file, &bytes)?;
        Ok((self.registry.push_blob("app", &file)?, bytes))
    }

    /// The blob's address at a mirror.
    fn path(&self, digest: &str) -> String {
        format!("/v2/app/blobs/{digest}?ns={}", self.relay.address())
    }

    /// A directory of hosts.toml that sends the registry's pulls to a node's mirror first.
    fn hosts(&self, node: usize) -> Result<PathBuf> {
        let registry = self.relay.address();
        let dir = self.scratch.dir(&format!("hosts-{node}"))?;
        let of_registry = dir.join(registry.to_string());
        fs::create_dir_all(&of_registry)?;
        let text = run(&mut programs::shoal(["setup", "--print", "--part", "mirror"])?)?;
        let text = text.replace("https://REGISTRY", &format!("http://{registry}"));
        let text = text.replace("127.0.0.1:4701", &self.mirrors[node].to_string());
        fs::write(of_registry.join("hosts.toml"), text)?;
        Ok(dir)
    }

    fn pull(&self, node: usize, containerd: &Containerd) -> Result<()> {
        let hosts = self.hosts(node)?;
        let mut pull = containerd.ctr(["images", "pull", "--hosts-dir"]);
        run(pull.arg(hosts).arg(format!("{}/app:plain", self.relay.address())))?;
        Ok(())
    }

    fn get(&self, node: usize, digest: &str, further: &[&str]) -> Result<Value> {
        self.get_from(node, &format!("{}/app@{digest}", self.relay.address()), further)
    }

    fn get_from(&self, node: usize, source: &str, further: &[&str]) -> Result<Value> {
        let mut get = programs::shoal(["get", source, "--json", "--output"])?;
        get.arg(self.scratch.path().join("got")).arg("--p2p-socket").arg(self.nodes[node].socket());
        Ok(serde_json::from_str(&run(get.args(further))?)?)
    }
}

#[test]
fn plain_images_spread_through_mirrors_and_come_without_them() -> Result<()> {
    let bed = Bed::start(2, true)?;
    bed.registry.push(&files(&bed.scratch.dir("image")?, FILES, FILE)?, "app", "plain")?;
    let nowhere = bed.scratch.path().join("no-snapshotter.sock");
    let machines: Vec<_> =
        (0..2).map(|node| Scratch::new(&format!("mirror-{node}"))).collect::<Result<_>>()?;
    let containerds: Vec<_> = machines
        .iter()
        .map(|scratch| Containerd::start(scratch, Release::Installed, &nowhere, bed.relay.address()))
        .collect::<Result<_>>()?;
    thread::scope(|scope| {
        let bed = &bed;
        let pulls: Vec<_> = containerds
            .iter()
            .enumerate()
            .map(|(node, containerd)| scope.spawn(move || bed.pull(node, containerd)))
            .collect();
        pulls.into_iter().try_for_each(|pull| pull.join().unwrap())
    })?;
    let layers: u64 = FILES * FILE as u64;
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let copies = bed.relay.received() as f64 / layers as f64;
    println!("two containerd pulled {layers} bytes: {copies:.3} copies");
    ensure!(copies <= 1.1, "{copies} copies");
    for node in &bed.nodes {
        let status = node.status()?;
        let blobs = status["blobs"].as_array().context("blobs")?;
        ensure!(
            !blobs.is_empty() && blobs.iter().all(|blob| blob["pieces"] == blob["pieces_here"]),
            "{status}"
        );
    }

    bed.nodes[1].kill()?;
    run(containerds[1].ctr(["images", "rm", "--sync"]).arg(format!("{}/app:plain", bed.relay.address())))?;
    bed.pull(1, &containerds[1]).context("without its mirror")?;
    ensure!(bed.relay.received() > layers * 3 / 2, "the image came from nowhere");
    Ok(())
}

#[test]
fn a_private_blob_is_for_its_credential_alone() -> Result<()> {
    let mut bed = Bed::start(2, false)?;
    let (digest, bytes) = bed.publish(1)?;
    bed.registry.guard()?;
    let path = bed.path(&digest);
    assert_eq!((USER, PASSWORD), ("me", "pw"));
    let proof = "Basic bWU6cHc=";
    for node in [&bed.nodes[0], &bed.nodes[1], &bed.nodes[0]] {
        let refused = node.call("GET", &path, &[], &[])?;
        ensure!(refused.status == 401 && refused.header("www-authenticate").is_some(), "{}", refused.status);
        let answer = node.call("GET", &path, &[("Authorization", proof)], &[])?;
        ensure!(answer.status == 200 && answer.body == bytes, "{}", answer.status);
        ensure!(node.status()?["blobs"].as_array().is_some_and(Vec::is_empty), "something was kept");
    }
    Ok(())
}

#[test]
fn a_flipped_bit_in_the_registry_is_never_a_whole_blob_and_heals() -> Result<()> {
    let bed = Bed::start(2, true)?;
    let (digest, bytes) = bed.publish(2)?;
    let file = bed.registry.blob_file(digest.trim_start_matches("sha256:"));
    let mut wrong = bytes.clone();
    wrong[BLOB / 2] ^= 1;
    fs::write(&file, wrong)?;
    let read = || {
        let read = |node: &P2pd| node.call("GET", &bed.path(&digest), &[], &[]);
        thread::scope(|scope| {
            let reads = [&bed.nodes[0], &bed.nodes[1]].map(|node| scope.spawn(move || read(node)));
            reads.map(|read| read.join().unwrap())
        })
    };
    for answer in read().into_iter().flatten() {
        let is_whole = answer.status == 200 && answer.body.len() == BLOB;
        ensure!(!is_whole || answer.body == bytes, "a wrong blob was given as a whole one");
    }
    fs::write(&file, &bytes)?;
    for answer in read() {
        ensure!(answer?.body == bytes, "it does not heal");
    }
    Ok(())
}

#[test]
fn get_takes_from_the_network_from_the_registry_and_from_what_is_here() -> Result<()> {
    let bed = Bed::start(2, true)?;
    let (digest, bytes) = bed.publish(3)?;
    let (got, part) = (bed.scratch.path().join("got"), bed.scratch.path().join("got.part"));
    let is = |report: &Value, from: [usize; 3]| -> Result<()> {
        let told = ["p2p_bytes", "server_bytes", "resumed_bytes"].map(|key| report[key].as_u64());
        ensure!(told == from.map(|bytes| Some(bytes as u64)), "{report}");
        ensure!(fs::read(&got)? == bytes && !part.exists(), "the file is not the blob");
        Ok(())
    };
    is(&bed.get(0, &digest, &[])?, [BLOB, 0, 0])?;
    let before = bed.relay.received();
    is(&bed.get(1, &digest, &[])?, [BLOB, 0, 0])?;
    ensure!(bed.relay.received() - before < 10_000, "the registry sent it again");
    is(&bed.get(1, &digest, &["--no-p2p"])?, [0, BLOB, 0])?;

    fs::write(&part, &bytes[..BLOB / 3])?;
    is(&bed.get(0, &digest, &[])?, [BLOB - BLOB / 3, 0, BLOB / 3])?;
    fs::write(&part, &bytes[..BLOB / 3])?;
    bed.nodes[0].kill()?;
    is(&bed.get(0, &digest, &[])?, [0, BLOB - BLOB / 3, BLOB / 3])?;
    let mut wrong = bytes[..BLOB / 3].to_vec();
    wrong[7] ^= 1;
    fs::write(&part, wrong)?;
    is(&bed.get(1, &digest, &[])?, [0, BLOB, 0])?;

    fs::remove_file(&got)?;
    let dfget = bed.scratch.path().join("dfget");
    symlink(programs::path("shoal")?, &dfget)?;
    let url = format!("http://{}/v2/app/blobs/{digest}", bed.relay.address());
    let by_url = |digest: &str| {
        let mut get = command(&dfget, ["--url", &url, "--timeout", "1m", "--digest", digest, "-O"]);
        run(get.arg(&got))
    };
    let other = format!("sha256:{}", "0".repeat(64));
    ensure!(by_url(&other).is_err() && !got.exists() && !part.exists(), "a wrong file was kept");
    by_url(&digest)?;
    ensure!(fs::read(&got)? == bytes, "the file is not the blob");
    Ok(())
}

/// A registry is a web server too, and gives parts of files.
#[test]
fn a_file_comes_by_the_network_where_that_shares_it_and_else_from_its_server() -> Result<()> {
    let bed = Bed::start(2, true)?;
    let (digest, bytes) = bed.publish(5)?;
    let url = format!("http://{}/v2/app/blobs/{digest}", bed.relay.address());
    let part = bed.scratch.path().join("got.part");
    let get = |node: usize, further: &[&str], from: [usize; 2]| -> Result<()> {
        let report = bed.get_from(node, &url, further)?;
        let told = ["p2p_bytes", "server_bytes"].map(|key| report[key].as_u64());
        ensure!(told == from.map(|bytes| Some(bytes as u64)), "{report}");
        ensure!(fs::read(bed.scratch.path().join("got"))? == bytes && !part.exists(), "another file");
        Ok(())
    };
    get(0, &["--digest", &digest], [BLOB, 0])?;
    let before = bed.relay.received();
    get(1, &["--digest", &digest], [BLOB, 0])?;
    ensure!(bed.relay.received() - before < 10_000, "the server sent it again");
    fs::write(&part, &bytes[..BLOB / 3])?;
    get(1, &["--digest", &digest], [BLOB - BLOB / 3, 0])?;
    get(1, &[], [0, BLOB]).context("nobody shares it without a digest")?;
    bed.nodes[0].kill()?;
    get(0, &["--digest", &digest], [0, BLOB]).context("without its node")
}
