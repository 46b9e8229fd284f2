//! curl through the forward proxies of real nodes, before a real registry.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    thread,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{DEADLINE, command, output, run},
    image::generated::noise,
    p2pd::P2pd,
    registry::{PASSWORD, Registry, USER, free_address},
    relay::{Link, Relay},
    scratch::Scratch,
};

const BLOB: usize = 20 * (1 << 20) + 77;

/// Two nodes with proxies. Ends in the order of its fields.
struct Bed {
    nodes: Vec<P2pd>,
    proxies: Vec<SocketAddr>,
    relay: Relay,
    registry: Registry,
    scratch: Scratch,
}

impl Bed {
    fn start(share: &str, rules: &str) -> Result<Self> {
        let scratch = Scratch::new("p2p-proxy")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        let relay = Relay::start(registry.address(), Link::DIRECT)?;
        let (config, share) = (scratch.path().join("p2pd.toml"), format!("{}/{share}", relay.address()));
        fs::write(&config, rules)?;
        let port = free_address()?.port();
        let (mut nodes, mut proxies): (Vec<P2pd>, _) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let token = nodes.first().map(P2pd::token).transpose()?;
            let (dir, proxy) = (scratch.dir(&format!("node-{number}"))?, free_address()?);
            let flags = ["--proxy", &proxy.to_string(), "--config", &config.display().to_string()];
            let (host, flags) = (Ipv4Addr::new(127, 0, 0, 2 + number), flags.map(str::to_owned));
            nodes.push(P2pd::start_with(&dir, host, port, token.as_deref(), &share, &flags)?);
            proxies.push(proxy);
        }
        nodes.iter().try_for_each(|node| node.sees(2))?;
        Ok(Self { nodes, proxies, relay, registry, scratch })
    }

    fn curl(&self, node: usize) -> Command {
        let proxy = format!("http://{}", self.proxies[node]);
        command("curl", ["-sS", "--fail", "--noproxy", "", "-x", &proxy])
    }

    /// A file of noise.
    fn file(&self, seed: u64) -> Result<(PathBuf, Vec<u8>)> {
        let (file, bytes) = (self.scratch.path().join(format!("blob-{seed}")), noise(seed, BLOB));
        fs::write(&file, &bytes)?;
        Ok((file, bytes))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/app/{path}", self.relay.address())
    }

    /// Downloads through a node's proxy.
    fn get(&self, node: usize, url: &str, further: &[&str]) -> Result<Vec<u8>> {
        let file = self.scratch.path().join(format!("got-{node}"));
        run(self.curl(node).arg(url).args(further).arg("-o").arg(&file))?;
        Ok(fs::read(file)?)
    }

    /// What curl says of a download that fails.
    fn refused(&self, url: &str, further: &[&str]) -> Result<String> {
        let output = output(self.curl(0).arg(url).args(further), DEADLINE)?;
        ensure!(!output.status.success(), "{url} came");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A server that sends one caller back what came first.
fn echo() -> Result<(SocketAddr, thread::JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut heard = [0; 4096];
        let length = stream.read(&mut heard)?;
        stream.write_all(&heard[..length])?;
        Ok(())
    });
    Ok((address, serving))
}

#[test]
fn what_is_pushed_through_one_proxy_spreads_through_all_from_one_copy() -> Result<()> {
    let bed = Bed::start("*", "")?;
    let (file, bytes) = bed.file(1)?;
    let digest = run(&mut command("sha256sum", [&file]))?;
    let digest = format!("sha256:{}", digest.split_whitespace().next().context("a digest")?);
    let begun = ["-X", "POST", "-o", "/dev/null", "-w", "%header{location}"];
    let location = run(bed.curl(0).arg(bed.url("blobs/uploads/")).args(begun))?;
    ensure!(location.starts_with(&bed.url("blobs/uploads/")), "the registry saw another host: {location}");
    let upload = format!("{location}&digest={digest}");
    run(bed.curl(0).arg(&upload).arg("-T").arg(&file))?;

    let (before, url) = (bed.relay.received(), bed.url(&format!("blobs/{digest}")));
    thread::scope(|scope| {
        let (bed, url) = (&bed, &url);
        let reads = [0, 1].map(|node| scope.spawn(move || bed.get(node, url, &[])));
        reads.into_iter().try_for_each(|read| {
            ensure!(read.join().unwrap()? == bytes, "other bytes");
            Ok(())
        })
    })?;
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let copies = (bed.relay.received() - before) as f64 / BLOB as f64;
    println!("two proxies gave {BLOB} bytes each: {copies:.3} copies");
    ensure!(copies <= 1.1, "{copies} copies");
    Ok(())
}

#[test]
fn a_private_blob_goes_through_for_its_credential_alone() -> Result<()> {
    let mut bed = Bed::start("other/*", "")?;
    let (file, bytes) = bed.file(2)?;
    let url = bed.url(&format!("blobs/{}", bed.registry.push_blob("app", &file)?));
    bed.registry.guard()?;
    let proof = format!("{USER}:{PASSWORD}");
    for node in [0, 1, 0] {
        ensure!(bed.refused(&url, &[])?.contains("401"), "not refused");
        ensure!(bed.get(node, &url, &["-u", &proof])? == bytes, "other bytes");
        let status = bed.nodes[node].status()?;
        ensure!(status["blobs"].as_array().is_some_and(Vec::is_empty), "something was kept");
    }
    bed.registry.stop()?;
    ensure!(bed.refused(&url, &["-u", &proof])?.contains("502"), "what is away has another name");
    Ok(())
}

#[test]
fn tunnels_lead_where_rules_and_the_guard_let_them() -> Result<()> {
    let rules = "[[proxy_rules]]\nmatch = 'localhost'\naction = 'deny'\n";
    let bed = Bed::start("*", rules)?;
    let (file, bytes) = bed.file(3)?;
    let url = bed.url(&format!("blobs/{}", bed.registry.push_blob("app", &file)?));
    ensure!(bed.get(0, &url, &["--proxytunnel"])? == bytes, "other bytes");

    let (address, serving) = echo()?;
    let heard = run(bed.curl(0).args(["--proxytunnel", "--http0.9"]).arg(format!("http://{address}/x")))?;
    ensure!(heard.starts_with("GET /x HTTP/1.1\r\n") && !heard.to_lowercase().contains("via"), "{heard}");
    serving.join().unwrap()?;

    let (own, tunnel) = (bed.proxies[0], ["--proxytunnel"].as_slice());
    for (url, further, status) in [
        ("http://localhost/".to_owned(), [].as_slice(), "403"),
        ("https://localhost/".to_owned(), &[], "403"),
        ("http://169.254.169.254/".to_owned(), &[], "403"),
        ("http://169.254.169.254/".to_owned(), tunnel, "403"),
        (format!("http://{own}/"), &[], "508"),
        (format!("http://{own}/"), tunnel, "508"),
        (format!("https://{}/", free_address()?), &[], "502"),
    ] {
        let told = bed.refused(&url, further)?;
        ensure!(told.contains(status), "{url} {further:?}: {told}");
    }
    Ok(())
}
