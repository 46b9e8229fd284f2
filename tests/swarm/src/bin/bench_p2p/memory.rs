//! Memory of processes.

use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    bench::report::Row,
    swarm_bed::{Rates, SwarmBed},
};
use nix::unistd::Pid;

/// What a node may know after some months.
const BLOBS: u64 = 1000;
/// Of a blob here.
const PIECE: u32 = 64 << 10;

/// What a node holds of its own when it knows a thousand blobs, beside what it holds idle.
///
/// # Errors
/// Where a bed does not start, or a node does not read one of them.
pub(super) fn of_a_thousand_blobs() -> Result<Row> {
    let measured = thread::spawn(|| {
        let rates = Rates { node: 0, origin: 0 };
        let bed = SwarmBed::start_with(2, rates, &["--piece-size".into(), PIECE.to_string()])?;
        let pids = [bed.nodes[0].call(|node| Ok(node.pid()))?];
        let idle = own(&pids)?;
        for seed in 0..BLOBS {
            let blob = bed.publish(seed, 1, PIECE)?;
            bed.nodes[0].call(move |node| {
                blob.introduce(node)?;
                blob.read(node, 0..blob.bytes.len(), "background")
            })?;
        }
        Ok(Row::share("memory with 1,000 known blobs, of idle", idle, own(&pids)?, "MB"))
    });
    measured.join().map_err(|_| anyhow::anyhow!("the bed panicked"))?
}

/// Megabytes of processes' own memory, on average.
///
/// # Errors
/// Where one is gone.
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
pub(super) fn own(pids: &[Pid]) -> Result<f64> {
    let mut kilobytes = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        kilobytes += line.split_whitespace().next().context("a number")?.parse::<u64>()?;
    }
    ensure!(kilobytes > 0, "no process has memory");
    Ok(kilobytes as f64 / 1e3 / pids.len() as f64)
}
