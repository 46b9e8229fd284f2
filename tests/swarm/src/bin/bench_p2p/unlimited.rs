//! Two nodes whose links have no limit: what they cost, not how long they take.

use std::thread;

use anyhow::Result;
use integration_tests::{
    bench::report::Row,
    swarm_bed::{Rates, SwarmBed},
};
use nix::unistd::Pid;

use crate::process;

/// What a node may know after some months.
const BLOBS: u64 = 1000;
/// Of a piece of a blob of those.
const SMALL: u32 = 64 << 10;
/// Bytes of a read.
const READ: usize = 32 << 20;
/// Pieces of the blob that is passed on, and their size.
const LARGE: (usize, u32) = (256, 1 << 20);

/// Memory of a node that knows a thousand blobs, and CPU for a blob that one node passes to the other.
///
/// # Errors
/// Where a bed does not start, or a node does not read a blob.
pub(super) fn measure() -> Result<Vec<Row>> {
    let rows = thread::spawn(|| Ok(vec![known_blobs()?, passed_on()?])).join();
    rows.map_err(|_| anyhow::anyhow!("the bed panicked"))?
}

fn start(piece: u32) -> Result<(SwarmBed, Vec<Pid>)> {
    let rates = Rates { node: 0, origin: 0 };
    let bed = SwarmBed::start_with(2, rates, &["--piece-size".into(), piece.to_string()])?;
    let pids = bed.on_all(|node| Ok(node.pid()))?;
    Ok((bed, pids))
}

fn known_blobs() -> Result<Row> {
    let (bed, pids) = start(SMALL)?;
    let idle = process::own_memory(&pids[..1])?;
    for seed in 0..BLOBS {
        let blob = bed.publish(seed, 1, SMALL)?;
        bed.nodes[0].call(move |node| {
            blob.introduce(node)?;
            blob.read(node, 0..blob.bytes.len(), "background")
        })?;
    }
    let with = process::own_memory(&pids[..1])?;
    Ok(Row::share("memory with 1,000 known blobs, of idle", idle, with, "MB"))
}

fn passed_on() -> Result<Row> {
    let (pieces, piece) = LARGE;
    let (bed, pids) = start(piece)?;
    let blob = bed.publish(1, pieces, piece)?;
    let mut before = std::time::Duration::ZERO;
    for node in &bed.nodes {
        before = process::cpu_time(&pids)?;
        let read = blob.clone();
        node.call(move |node| {
            read.introduce(node)?;
            // As much at a time as a read may ask for.
            let starts = (0..read.bytes.len()).step_by(READ);
            starts
                .map(|at| at..read.bytes.len().min(at + READ))
                .try_for_each(|range| read.read(node, range, "background"))
        })?;
    }
    let used = process::cpu_time(&pids)?.saturating_sub(before).as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let gigabytes = blob.bytes.len() as f64 / 1e9;
    Ok(Row::share("CPU seconds of both for a GB passed on, no limit", 1.0, used / gigabytes, "s"))
}
