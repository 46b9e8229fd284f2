//! What processes use.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Megabytes of processes' own memory, on average.
///
/// # Errors
/// Where one is gone.
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
pub(super) fn own_memory(pids: &[Pid]) -> Result<f64> {
    let mut kilobytes = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        kilobytes += line.split_whitespace().next().context("a number")?.parse::<u64>()?;
    }
    ensure!(kilobytes > 0, "no process has memory");
    Ok(kilobytes as f64 / 1e3 / pids.len() as f64)
}

/// CPU time that processes have used so far, all together.
///
/// # Errors
/// Where one is gone.
pub(super) fn cpu_time(pids: &[Pid]) -> Result<Duration> {
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock")?.unsigned_abs();
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): utime and stime are the 14th and 15th field; the second ends with a bracket.
        let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
        let used = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        ticks += used.sum::<Result<u64, _>>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / ticks_per_second))
}
