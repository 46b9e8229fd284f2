//! Real nodes of the piece network before a real registry.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    blob::Blob,
    command::wait_for,
    p2pd::P2pd,
    registry::{Registry, free_address},
    relay::{Link, Relay},
    scratch::Scratch,
};

const PIECE: usize = 1 << 20;
const STEP: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Three nodes before a registry. Ends in the order of its fields.
struct Bed {
    nodes: Vec<P2pd>,
    relay: Relay,
    registry: Registry,
    scratch: Scratch,
}

impl Bed {
    fn start(link: Link) -> Result<Self> {
        let scratch = Scratch::new("p2p")?;
        let registry = Registry::start(&scratch.dir("registry")?)?;
        let relay = Relay::start(registry.address(), link)?;
        let (port, share) = (free_address()?.port(), format!("{}/*", relay.address()));
        let node = |host: u8, join: Option<&str>| {
            let dir = scratch.path().join(format!("node-{host}"));
            P2pd::start(&dir, Ipv4Addr::new(127, 0, 0, host), port, join, &share)
        };
        let first = node(2, None)?;
        let token = first.token()?;
        let nodes = vec![first, node(3, Some(&token))?, node(4, Some(&token))?];
        nodes.iter().try_for_each(|node| node.sees(3))?;
        Ok(Self { nodes, relay, registry, scratch })
    }

    fn publish(&self, seed: u64, pieces: usize) -> Result<Blob> {
        let shape = (seed, pieces, u32::try_from(PIECE)?);
        Blob::publish(&self.registry, self.relay.address(), self.scratch.path(), shape)
    }

    fn open(&self, node: usize, blob: &Blob) -> Result<()> {
        blob.introduce(&self.nodes[node])
    }

    /// Opens a blob on a node and reads it whole.
    fn read_all(&self, node: usize, blob: &Blob) -> Result<()> {
        self.open(node, blob)?;
        for start in (0..blob.bytes.len()).step_by(STEP) {
            let end = blob.bytes.len().min(start + STEP);
            blob.read(&self.nodes[node], start..end, "demand").with_context(|| format!("node {node}"))?;
        }
        Ok(())
    }

    /// Bytes that left the registry since there were `before`, in copies of a blob.
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn copies(&self, before: u64, blob: &Blob) -> f64 {
        (self.relay.received() - before) as f64 / blob.bytes.len() as f64
    }
}

#[test]
fn three_nodes_take_one_copy_from_the_registry_and_a_restarted_one_none() -> Result<()> {
    let mut bed = Bed::start(Link::DIRECT)?;
    let blob = bed.publish(1, 48)?;
    let began = Instant::now();
    thread::scope(|scope| {
        let reads = [0, 1, 2].map(|node| {
            scope.spawn({
                let (bed, blob) = (&bed, &blob);
                move || bed.read_all(node, blob)
            })
        });
        reads.into_iter().try_for_each(|read| read.join().unwrap())
    })?;
    let copies = bed.copies(0, &blob);
    println!("three nodes read {} bytes in {:?}: {copies:.3} copies", blob.bytes.len(), began.elapsed());
    ensure!(copies <= 1.1, "{copies} copies");

    let before = bed.relay.received();
    bed.nodes[2].kill()?;
    bed.nodes[2].restart()?;
    bed.nodes[2].sees(3)?;
    bed.open(2, &blob)?;
    let here = blob.pieces_at(&bed.nodes[2])?;
    println!("{here} pieces are found again");
    ensure!(here > 0, "no piece is found again");
    bed.read_all(2, &blob)?;
    ensure!(bed.relay.received() == before, "the registry was asked again");

    // An orderly end loses nothing: all of it comes from this node's disk.
    bed.nodes[2].stop()?;
    bed.nodes[0].stop()?;
    bed.nodes[1].stop()?;
    bed.nodes[2].restart()?;
    bed.read_all(2, &blob)?;
    ensure!(bed.relay.received() == before, "the registry was asked again");
    Ok(())
}

/// What nodes say that they have done agrees with what is seen from outside.
#[test]
fn figures_add_up() -> Result<()> {
    let bed = Bed::start(Link::DIRECT)?;
    let blob = bed.publish(9, 12)?;
    let len = blob.bytes.len() as u64;
    (0..3).try_for_each(|node| bed.read_all(node, &blob))?;
    let figure = |name: &str| -> Result<[u64; 3]> {
        let of = |node: usize| bed.nodes[node].figure(name);
        Ok([of(0)?, of(1)?, of(2)?])
    };
    let from_origin = figure("shoal_p2p_received_bytes_total{from=\"origin\",fate=\"kept\"}")?;
    let from_peers = figure("shoal_p2p_received_bytes_total{from=\"peer\",fate=\"kept\"}")?;
    println!("{from_origin:?} from the origin, {from_peers:?} from peers, of {len} bytes");
    ensure!(from_origin == [len, 0, 0] && from_peers == [0, len, len]);
    ensure!(figure("shoal_p2p_sent_bytes_total")?.iter().sum::<u64>() >= 2 * len);
    ensure!(figure("shoal_p2p_read_bytes_total{priority=\"demand\"}")? == [len; 3]);
    ensure!(figure("shoal_p2p_stored_bytes")? == [len; 3] && figure("shoal_p2p_members")? == [3; 3]);
    ensure!(figure("shoal_p2p_strikes_total")? == [0; 3]);
    Ok(())
}

#[test]
fn the_others_finish_when_a_node_is_killed_half_way() -> Result<()> {
    let bed = Bed::start(Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 })?;
    let blob = bed.publish(2, 48)?;
    thread::scope(|scope| {
        let [first, second, dying] = [0, 1, 2].map(|node| {
            let (bed, blob) = (&bed, &blob);
            scope.spawn(move || bed.read_all(node, blob))
        });
        let half = blob.bytes.len() as u64 / 2;
        wait_for("half of the blob", PATIENCE, || Ok((bed.relay.received() > half).then_some(())))?;
        bed.nodes[2].kill()?;
        ensure!(dying.join().unwrap().is_err(), "the node was killed too late");
        first.join().unwrap()?;
        second.join().unwrap()
    })?;
    let copies = bed.copies(0, &blob);
    println!("{copies:.3} copies left the registry");
    ensure!(copies <= 1.3, "{copies} copies");
    bed.nodes[0].sees(2)
}

#[test]
fn a_blob_flipped_in_the_registry_is_an_error_that_names_the_piece_and_heals() -> Result<()> {
    let bed = Bed::start(Link::DIRECT)?;
    let blob = bed.publish(3, 6)?;
    let file = blob.file(&bed.registry);
    let mut flipped = blob.bytes.clone();
    flipped[3 * PIECE + 5] ^= 1;
    fs::write(&file, &flipped)?;
    (0..3).try_for_each(|node| bed.open(node, &blob))?;
    let (start, end) = (3 * PIECE, 3 * PIECE + 100);
    let answer = blob.ask(&bed.nodes[1], &(start..end), "demand")?;
    ensure!(answer.status == 502, "{}: {}", answer.status, answer.text());
    ensure!(answer.text().contains("piece 3 "), "{}", answer.text());
    let others = blob.ask(&bed.nodes[1], &(0..start), "demand")?;
    ensure!(
        others.status == 206 && others.body == blob.bytes[..start],
        "the other pieces are as good as ever"
    );
    fs::write(&file, &blob.bytes)?;
    wait_for("the blob to heal", PATIENCE, || {
        let answer = blob.ask(&bed.nodes[1], &(start..end), "demand")?;
        Ok((answer.status == 206 && answer.body == blob.bytes[start..end]).then_some(()))
    })?;
    (0..3).try_for_each(|node| bed.read_all(node, &blob))
}

/// Limits are floors of time: what takes longer for other reasons is within them too.
#[test]
fn limits_hold_and_are_changed_while_bytes_flow() -> Result<()> {
    let bed = Bed::start(Link::DIRECT)?;
    let blob = bed.publish(7, 24)?;
    let limit = |node: usize, limits: &str| -> Result<()> {
        let body = format!("{{\"limits\":[{limits}]}}");
        let json = [("Content-Type", "application/json")];
        let answer = bed.nodes[node].call("PUT", "/v1/limits", &json, body.as_bytes())?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    };
    let floor = |what: &str, seconds: u64, read: &dyn Fn() -> Result<()>| -> Result<()> {
        let began = Instant::now();
        read()?;
        println!("{what}: {:?}", began.elapsed());
        ensure!(began.elapsed() >= Duration::from_secs(seconds), "{what}: {:?}", began.elapsed());
        Ok(())
    };
    // 24 MiB at 8 MiB/s are 3 s, less what has gathered before.
    limit(0, "\"task.origin=8MiB\"")?;
    floor("from the origin", 2, &|| bed.read_all(0, &blob))?;
    ensure!(bed.copies(0, &blob) <= 1.1, "{} copies", bed.copies(0, &blob));

    limit(0, "\"upload=8MiB\"")?;
    let before = bed.relay.received();
    floor("from a node that sends so much", 2, &|| bed.read_all(1, &blob))?;
    ensure!(bed.relay.received() == before, "the registry was asked");

    // One that would take a minute and a half, were it not lifted.
    limit(0, "\"upload=none\"")?;
    limit(2, "\"download=256KiB\"")?;
    thread::scope(|scope| {
        let read = scope.spawn(|| bed.read_all(2, &blob));
        wait_for("first piece", PATIENCE, || {
            Ok((blob.pieces_at(&bed.nodes[2]).unwrap_or(0) > 0).then_some(()))
        })?;
        limit(2, "\"download=none\"")?;
        read.join().unwrap()
    })?;
    let told = bed.nodes[2].status()?["limits"].to_string();
    ensure!(told.contains("\"download=none\"") && told.contains("\"task.prefetch=none\""), "{told}");

    limit(0, "\"prefetch=1MiB\"")?;
    floor("ahead of need", 2, &|| blob.read(&bed.nodes[0], 0..3 * PIECE, "trace"))?;
    let wrong = bed.nodes[0].call(
        "PUT",
        "/v1/limits",
        &[("Content-Type", "application/json")],
        b"{\"limits\":[\"upload=1MiB\",\"sideways=1MiB\"]}",
    )?;
    ensure!(wrong.status == 400, "{}", wrong.text());
    ensure!(bed.nodes[0].status()?["limits"].to_string().contains("upload=none"), "half of it was done");
    Ok(())
}
