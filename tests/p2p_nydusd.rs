//! Real nydusd over real nodes of the piece network, before a real registry. Needs root and FUSE.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{fs, net::Ipv4Addr, ops::Range, os::unix::fs::FileExt as _, path::PathBuf, thread, time::Duration};

use anyhow::{Result, ensure};
use integration_tests::{
    command::{run, wait_for},
    image::generated::{files, noise},
    nydusd::{Nydusd, unpack_bootstrap},
    p2pd::P2pd,
    programs,
    registry::{PASSWORD, Registry, USER, free_address},
    relay::{Link, Relay},
    scratch::Scratch,
};
use nix::sys::signal::{Signal, kill};

const FILES: u64 = 24;
const FILE: usize = 1 << 20;
/// Bytes of a piece.
const PIECE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What a bed shares.
#[derive(Clone, Copy, PartialEq)]
enum Share {
    All,
    Nothing,
}

/// Nodes, each with a nydusd of its own, before a registry. Ends in the order of its fields.
struct Bed {
    readers: Vec<Nydusd>,
    nodes: Vec<P2pd>,
    relay: Relay,
    registry: Registry,
    bootstrap: PathBuf,
    blobs: Vec<String>,
    scratch: Scratch,
}

impl Bed {
    /// So many nodes that know each other, and no reader yet.
    fn start(nodes: u8, share: Share, link: Link) -> Result<Self> {
        let scratch = Scratch::new("p2p-nydusd")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        registry.push(&files(&scratch.dir("image")?, FILES, FILE)?, "app", "plain")?;
        let at = format!("{}/app", registry.address());
        run(&mut programs::shoal(["convert", &format!("{at}:plain"), &format!("{at}:lazy")])?)?;
        let bootstrap = scratch.dir("bootstrap")?;
        let blobs = unpack_bootstrap(&registry, "app", "lazy", &bootstrap)?;
        let relay = Relay::start(registry.address(), link)?;
        let share = match share {
            Share::All => format!("{}/*", relay.address()),
            Share::Nothing => "registry.example/nothing".to_owned(),
        };
        let port = free_address()?.port();
        let mut bed =
            Self { readers: Vec::new(), nodes: Vec::new(), relay, registry, bootstrap, blobs, scratch };
        for number in 0..nodes {
            let token = bed.nodes.first().map(P2pd::token).transpose()?;
            let dir = bed.scratch.dir(&format!("node-{number}"))?;
            let host = Ipv4Addr::new(127, 0, 0, 2 + number);
            bed.nodes.push(P2pd::start(&dir, host, port, token.as_deref(), &share)?);
        }
        bed.nodes.iter().try_for_each(|node| node.sees(nodes.into()))?;
        Ok(bed)
    }

    /// Mounts the image on the next node, by a credential or without.
    fn mount(&mut self, auth: Option<&str>) -> Result<()> {
        let number = self.readers.len();
        let mut backend = serde_json::json!({
            "host": self.relay.address().to_string(),
            "repo": "app",
            "scheme": "http",
            "p2p_socket": self.nodes[number].socket(),
        });
        if let Some(auth) = auth {
            backend["auth"] = auth.into();
        }
        let dir = self.scratch.dir(&format!("reader-{number}"))?;
        self.readers.push(Nydusd::start(&dir, &self.bootstrap, &backend)?);
        Ok(())
    }

    fn mount_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|_| self.mount(None))
    }

    /// Waits until nydusd has handed its lists over, as it does at mount.
    fn introduced(&self, node: usize) -> Result<()> {
        wait_for("the lists", PATIENCE, || Ok((self.known(node)? == self.blobs.len()).then_some(())))
    }

    /// Blobs that a node knows.
    fn known(&self, node: usize) -> Result<usize> {
        let status = self.nodes[node].status()?;
        Ok(status["blobs"].as_array().map_or(0, Vec::len))
    }

    /// Reads files on a node, and checks them.
    fn read(&self, node: usize, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            let found = self.readers[node].read(&number.to_string())?;
            ensure!(found == noise(number, FILE), "node {node}: wrong bytes in {number}");
        }
        Ok(())
    }

    /// Flips a bit of every piece that a node has on its disk; says of how many.
    fn rot(&self, node: usize) -> Result<usize> {
        let mut rotten = 0;
        for task in fs::read_dir(self.scratch.path().join(format!("node-{node}/root/pieces")))? {
            let path = task?.path().join("data");
            if !path.is_file() {
                continue;
            }
            let file = fs::File::options().read(true).write(true).open(path)?;
            for at in (PIECE / 2..file.metadata()?.len()).step_by(usize::try_from(PIECE)?) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 1], at)?;
                rotten += 1;
            }
        }
        Ok(rotten)
    }

    /// Copies of all files that the registry has sent.
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn copies(&self) -> f64 {
        self.relay.received() as f64 / (FILES as f64 * FILE as f64)
    }

    /// Reads all on a node, and has something done after a third of it.
    fn read_and(&self, node: usize, then: impl FnOnce() -> Result<()>) -> Result<()> {
        self.read(node, 0..FILES / 3)?;
        thread::scope(|scope| {
            let rest = scope.spawn(|| self.read(node, FILES / 3..FILES));
            then()?;
            rest.join().unwrap()
        })
    }
}

#[test]
fn readers_on_three_nodes_take_one_copy_from_the_registry() -> Result<()> {
    let mut bed = Bed::start(3, Share::All, Link::DIRECT)?;
    bed.mount_all()?;
    (0..3).try_for_each(|node| bed.introduced(node))?;
    thread::scope(|scope| {
        let bed = &bed;
        let reads = [0, 1, 2].map(|node| scope.spawn(move || bed.read(node, 0..FILES)));
        reads.into_iter().try_for_each(|read| read.join().unwrap())
    })?;
    println!("three nodes read: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    Ok(())
}

#[test]
fn what_everybody_may_read_is_shared_without_being_listed() -> Result<()> {
    let mut bed = Bed::start(2, Share::Nothing, Link::DIRECT)?;
    bed.mount_all()?;
    // The registry is asked at mount; nobody reads before it has answered.
    (0..2).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a public image: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    Ok(())
}

#[test]
fn a_p2pd_that_is_killed_in_mid_read_costs_its_reader_time_only() -> Result<()> {
    let slow = Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 };
    let mut bed = Bed::start(2, Share::All, slow)?;
    bed.mount_all()?;
    bed.introduced(0)?;
    bed.read_and(0, || bed.nodes[0].kill())?;
    // Its partner is none the worse.
    bed.read(1, 0..FILES)
}

#[test]
fn a_p2pd_that_stops_in_mid_read_costs_its_reader_time_only() -> Result<()> {
    let slow = Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 };
    let mut bed = Bed::start(2, Share::All, slow)?;
    bed.mount_all()?;
    bed.introduced(0)?;
    let stopped = bed.read_and(0, || Ok(kill(bed.nodes[0].pid(), Signal::SIGSTOP)?));
    kill(bed.nodes[0].pid(), Signal::SIGCONT)?;
    stopped?;
    bed.read(1, 0..FILES)
}

#[test]
fn bytes_that_rot_on_a_node_s_disk_cost_another_s_reader_time_only() -> Result<()> {
    let mut bed = Bed::start(3, Share::All, Link::DIRECT)?;
    bed.mount_all()?;
    (0..3).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    let rotten = bed.rot(0)?;
    bed.read(2, 0..FILES)?;
    println!("{rotten} pieces were rotten: {:.3} copies", bed.copies());
    let log = fs::read_to_string(bed.scratch.path().join("node-2/p2pd.log"))?;
    ensure!(rotten > 0 && log.contains("a piece is wrong"), "nobody met a rotten piece");
    ensure!(bed.copies() < 1.5, "{} copies: the good pieces came from the registry too", bed.copies());
    Ok(())
}

#[test]
fn a_private_repository_is_read_by_those_who_may_and_shared_with_nobody() -> Result<()> {
    let mut bed = Bed::start(2, Share::Nothing, Link::DIRECT)?;
    bed.registry.guard()?;
    let auth = auth();
    bed.mount(Some(&auth))?;
    bed.mount(Some(&auth))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a private image: {:.3} copies", bed.copies());
    ensure!(bed.copies() >= 2.0, "{} copies: something was shared", bed.copies());
    for node in 0..2 {
        ensure!(bed.known(node)? == 0, "node {node} shares something");
    }
    Ok(())
}

#[test]
fn a_private_repository_that_is_listed_is_fetched_by_its_reader_s_credential() -> Result<()> {
    let mut bed = Bed::start(2, Share::All, Link::DIRECT)?;
    bed.registry.guard()?;
    let auth = auth();
    bed.mount(Some(&auth))?;
    bed.mount(Some(&auth))?;
    (0..2).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a listed private image: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    // Nothing of it is kept or told.
    for node in 0..2 {
        let dir = bed.scratch.path().join(format!("node-{node}"));
        let found =
            run(integration_tests::command::command("grep", ["-raclF", "-e", &auth, "-e", PASSWORD_LINE])
                .arg(dir.join("p2pd.log"))
                .arg(dir.join("root/identity")));
        ensure!(found.is_err(), "the credential stands in a file of node {node}");
    }
    Ok(())
}

/// How a credential would look in a log.
const PASSWORD_LINE: &str = "password: \"pw\"";

fn auth() -> String {
    // Of "me:pw", as docker's configuration has it.
    assert_eq!((USER, PASSWORD), ("me", "pw"));
    "bWU6cHc=".to_owned()
}
