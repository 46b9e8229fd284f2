//! Conversion against the plain compressor over the same bytes.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::report::{Gate, Row, median};
use crate::{
    command::{command, run},
    image::{Layout, debian::Program, layout::Form},
    programs,
    scratch::Scratch,
};

/// Measures layers of both forms.
///
/// # Errors
/// Where something does not run.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn measure(rounds: usize) -> Result<Vec<Row>> {
    let scratch = Scratch::new("convert")?;
    let gzip = Program::Python.image()?;
    let plain = plain(&gzip, &scratch.dir("plain")?)?;
    let mut rows = Vec::new();
    let (mut zstd, mut gunzip) = (
        shell(&plain, "cat \"$@\" | zstd -3 -T2 -q -c"),
        shell(&gzip, "gzip -dc \"$@\" | zstd -3 -T2 -q -c"),
    );
    for (name, layout, yardstick, gate) in
        [("plain layers", &plain, &mut zstd, 0.6), ("gzip layers", &gzip, &mut gunzip, 1.0)]
    {
        let (mut theirs, mut ours, mut peak) = (Vec::new(), Vec::new(), 0);
        // The first round fills the page cache.
        for round in 0..=rounds {
            let start = Instant::now();
            run(yardstick.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?)?;
            let (their, (our, memory)) = (start.elapsed(), convert(layout, &scratch)?);
            if round > 0 {
                theirs.push(their);
                ours.push(our);
                peak = peak.max(memory);
            }
        }
        rows.push(Row::speed(name, median(theirs), median(ours)).gate(Gate::AtLeast(gate)));
        rows.push(Row::share(format!("{name}: peak memory"), 50.0, peak as f64 / 1e3, "MB"));
    }
    Ok(rows)
}

/// The same image with layers that are not compressed.
fn plain(gzip: &Layout, dir: &Path) -> Result<Layout> {
    let plain = Layout::create(dir)?;
    let mut layers = Vec::new();
    for layer in gzip.manifest()?.1.layers() {
        let mut tar = GzDecoder::new(File::open(gzip.blob(layer.digest().digest()))?);
        layers.push(plain.add_layer(Form::Plain, |out| {
            io::copy(&mut tar, out)?;
            Ok(())
        })?);
    }
    plain.finish(&layers, Program::Python.args())?;
    Ok(plain)
}

/// A pipeline over all layer blobs, its output thrown away.
fn shell(layout: &Layout, script: &str) -> Result<Command> {
    let mut shell = command("sh", ["-euc", &format!("{script} >/dev/null"), "sh"]);
    let (_, manifest) = layout.manifest()?;
    shell.args(manifest.layers().iter().map(|layer| layout.blob(layer.digest().digest())));
    Ok(shell)
}

/// Time and peak memory (kB) of a conversion.
fn convert(layout: &Layout, scratch: &Scratch) -> Result<(Duration, u64)> {
    let target = scratch.path().join("converted");
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let (source, out) =
        (format!("oci:{}:latest", layout.dir.display()), format!("oci:{}:latest", target.display()));
    let start = Instant::now();
    let mut shoal = programs::shoal(["convert", source.as_str(), out.as_str()])?;
    let mut child = shoal.stdout(std::process::Stdio::null()).spawn().context("start shoal")?;
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak.max(high_water(child.id()).unwrap_or(0));
        thread::park_timeout(Duration::from_millis(10));
    };
    ensure!(status.success(), "shoal convert ended with {status}");
    Ok((start.elapsed(), peak))
}

fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}
