//! Eight nodes in network namespaces with slow links: bytes and invariants, never times.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use anyhow::{Result, ensure};
use integration_tests::{
    command::wait_for,
    swarm_bed::{Rates, SwarmBed},
};

const NODES: usize = 8;
const PIECES: usize = 96;
const PIECE: u32 = 64 << 10;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn copies(sent: u64, len: usize) -> f64 {
    sent as f64 / len as f64
}

#[test]
fn eight_nodes_take_about_one_copy_and_all_finish_when_some_are_slow_or_die() -> Result<()> {
    let bed = SwarmBed::start(NODES, Rates { node: 40_000_000, origin: 40_000_000 })?;
    let blob = bed.publish(1, PIECES, PIECE)?;
    let (before, len) = (bed.relay.received(), blob.bytes.len());
    let read = blob.clone();
    bed.on_all(move |node| {
        read.introduce(node)?;
        read.read(node, 0..len, "background")
    })?;
    let sent = copies(bed.relay.received() - before, len);
    println!("{NODES} nodes: {sent:.3} copies");
    ensure!(sent <= 1.25, "{sent} copies left the registry");

    // One with a tenth of the link upwards, and one that dies half-way.
    let (slow, dying) = (NODES - 2, NODES - 1);
    bed.nodes[slow].call(|_| integration_tests::network::limit_upload(4_000_000))?;
    let blob = bed.publish(2, PIECES, PIECE)?;
    let before = bed.relay.received();
    let (read, pid) = (blob.clone(), bed.nodes[dying].call(|node| Ok(node.pid()))?);
    let reads = bed.begin_on_all(move |node| {
        read.introduce(node)?;
        read.read(node, 0..len, "background")
    });
    let half = len as u64 / 2;
    wait_for("half of the blob", PATIENCE, || Ok((bed.relay.received() - before > half).then_some(())))?;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    for (node, read) in reads.into_iter().enumerate() {
        let outcome = read.wait();
        ensure!(outcome.is_ok() || node == dying, "node {node}: {:#}", outcome.unwrap_err());
    }
    let sent = copies(bed.relay.received() - before, len);
    println!("one slow, one killed: {sent:.3} copies");
    ensure!(sent <= 1.5, "{sent} copies left the registry");
    Ok(())
}
